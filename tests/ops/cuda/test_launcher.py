"""The launcher against Triton's own, byte by byte, with a driver that launches nothing; and what it refuses."""

import ctypes
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shconv.ops.cuda import launcher, tape

COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler for the stub of the driver")

# In a process of its own, with the stub for a driver: Triton's launcher and ours, for all that a layer launches.
SCRIPT = """
import ctypes, os, sys
import torch
from triton.backends.nvidia import driver as nvidia
from triton.runtime import driver
from shconv.ops.cuda.ahead import StandIn
from shconv.ops import choice, hypernetwork, layer
from shconv.ops.cuda import launcher, tape
from shconv.ops.cuda.hopper import passes
from shconv.ops.geometry import Geometry

class Utils:
    def __init__(self): self.real = nvidia.CudaUtils()
    def __getattr__(self, name): return getattr(self.real, name)
    def load_binary(self, name, *rest): return 1, 4096 + len(name), 0, 0, 1024
    def get_device_properties(self, device): return {"max_shared_mem": 232448}
    def unload_module(self, module): pass

class Driver(StandIn):
    launcher_cls = nvidia.CudaLauncher
    def get_current_stream(self, device=None): return 7

sys.setdlopenflags(os.RTLD_LAZY)  # the stub has what is called, not all that Triton knows
Driver.utils = Utils()
driver.set_active(Driver())
torch.cuda.current_device = lambda: 0
hypernetwork._FUSED_ON = ("cuda", "cpu")
choice.choose = lambda *_: "triton"
passes.serves = lambda *_: True
stub = ctypes.CDLL("libcuda.so.1")

BYTES = {"i1": 1, "i8": 1, "i32": 4, "i64": 8, "fp32": 4, "fp64": 8}

def expect(compiled):
    sizes = []
    for kind in compiled.src.signature.values():
        if kind.startswith("tensordesc"):
            rank = kind[kind.index("["):kind.index("]")].count(",") + 1
            sizes += [128, *[4] * rank, *[8] * rank]
        elif kind != "constexpr":
            sizes.append(8 if kind[0] == "*" else BYTES[kind])
    stub.stub_expect((ctypes.c_int * 256)(*sizes, 8, 8))

from triton.compiler import CompiledKernel
runner = CompiledKernel.run.fget
def run(self):
    found = runner(self)
    expect(self)
    return found
CompiledKernel.run = property(run)

def lines(name, work):
    stub.stub_file(name.encode())
    work()
    stub.stub_flush()
    return open(name).read().splitlines()

def compare(function, *inputs_and_rest):
    inputs, *rest = inputs_and_rest
    now, results = tape.Recorder(inputs), []
    def direct():
        with tape._recording(now):
            results.extend(function(inputs, *rest))
    theirs = lines(sys.argv[1] + "/theirs", direct)
    steps = [each for each in now.tape(results).steps if isinstance(each, tape.Launched)]
    addresses = [first for first, _ in now._ranges]
    def one(each):
        expect(each.compiled)
        launcher.player([each], 0)(addresses, 7)
    ours = lines(sys.argv[1] + "/ours", lambda: [one(each) for each in steps])
    assert len(ours) == len(theirs) == len(steps) > 2, (len(ours), len(theirs), len(steps))
    for each, mine, its in zip(steps, ours, theirs):
        assert mine == its, (each.compiled.name, mine, its)
    print(*(each.compiled.name for each in steps))
    return results

dtype, stride = getattr(torch, sys.argv[2]), int(sys.argv[3])
def images(*size): return torch.empty(size, dtype=dtype).to(memory_format=torch.channels_last)
x, weight = images(2, 64, 8, 8), images(64, 64, 3, 3)
theta = [torch.empty(size) for size in ((32, 128), (32,), (9, 32), (9,))]
numbers = Geometry((stride, stride), (1, 1), (1, 1), 1), (0, 1)
Y, kept = compare(layer._forward, [x, weight, *theta], *numbers, 1e-5, True)
if "backward" in sys.argv:
    compare(layer._backward, [Y, x, weight, *theta, kept], *numbers, 1e-5, (True, True, False, True))
print("fine")
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stub")
    source = Path(__file__).parent / "stub_driver.c"
    command = [str(COMPILER), "-w", "-shared", "-fPIC", str(source), "-o", str(folder / "libcuda.so.1")]
    subprocess.run(command, check=True)
    return folder


@needs_triton
@needs_compiler
@pytest.mark.parametrize(
    "arguments",
    [
        ["bfloat16", "1"],
        pytest.param(["bfloat16", "1", "backward"], marks=pytest.mark.slow),
        pytest.param(["bfloat16", "2", "backward"], marks=pytest.mark.slow),
        pytest.param(["float32", "1", "backward"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_kernel_gets_the_bytes_that_it_gets_from_triton(arguments, stub, tmp_path):
    env = os.environ | {"TRITON_LIBCUDA_PATH": str(stub), "LD_LIBRARY_PATH": str(stub), "SHCONV_TUNE": "0"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.stdout.strip().endswith("fine"), done.stderr[-3000:]


@pytest.fixture
def fresh(stub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The launcher with the stub for a driver."""
    caches = (launcher.reason_against, launcher._library)
    monkeypatch.setattr(launcher, "_DRIVER", str(stub / "libcuda.so.1"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "3.6.0")
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


X = tape.Ref(0, 8, torch.float32, (3,), (1,))


def launched(function: int = 77, kind: str = "fp32", **told: Any) -> tape.Launched:
    """Of a kernel (x, n, eps) as Triton would have compiled it."""
    compiled = SimpleNamespace(
        name="toy", function=function, metadata=SimpleNamespace(**told), packed_metadata=(4, told.get("blocks", 1), 99),
        src=SimpleNamespace(signature={"x": "*fp32", "WIDE": "constexpr", "n": "i64", "eps": kind}),
        _init_handles=lambda: None,
    )  # fmt: skip
    return tape.Launched(None, (5, 6), {"x": X, "WIDE": 3, "n": -2, "eps": 0.5}, compiled)


@needs_compiler
@pytest.mark.usefixtures("fresh")
def test_kernels_are_launched_in_their_order_on_the_stream_and_what_the_driver_refuses_is_raised(stub, tmp_path):
    driver = ctypes.CDLL(str(stub / "libcuda.so.1"))
    driver.stub_file(str(tmp_path / "launches").encode())
    driver.stub_expect((ctypes.c_int * 256)(8, 8, 4, 8, 8))
    launcher.player([launched(), launched(78)], 0)([4096], 7)
    driver.stub_flush()
    zero = "0" * 16
    parameters = f"0810{zero[4:]} fe{'f' * 14} 0000003f {zero} {zero}"
    assert (tmp_path / "launches").read_text().splitlines() == [
        f"{hex(function)} 5 6 1 128 1 1 99 0x7 {parameters}" for function in (77, 78)
    ]
    with pytest.raises(RuntimeError, match=r"refuses a launch: stub \(error 700\)"):
        launcher.player([launched(13), launched()], 0)([4096], 7)
    driver.stub_flush()
    assert len((tmp_path / "launches").read_text().splitlines()) == 2  # none after it


@needs_compiler
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    "odd", [{"blocks": 2}, {"global_scratch_size": 16}, {"launch_pdl": True}, {"kind": "fp16"}], ids=str
)
def test_kernels_that_are_launched_in_another_way_are_left_to_triton(odd):
    with pytest.raises(tape.UnrecordableError):
        launcher.player([launched(**odd)], 0)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("version", "driver"), [("4.0.1", None), ("3.6.0", "/nowhere/libcuda.so.1")])
def test_without_a_driver_or_with_a_triton_that_is_not_known_the_log_says_so_once(version, driver, monkeypatch, caplog):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    if driver:
        monkeypatch.setattr(launcher, "_DRIVER", driver)
    with caplog.at_level(logging.INFO):
        assert launcher.reason_against() == launcher.reason_against() != ""
    assert caplog.text.count("one by one") == 1
    with pytest.raises(tape.UnrecordableError):
        launcher.player([launched()], 0)
