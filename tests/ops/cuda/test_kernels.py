"""The Triton formulation's kernels: compiled for an sm_90 that nobody has here, which settings are tried, and in which
precision."""

import importlib.util
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from triton_toys import compiled_for

from shconv.ops.cuda import tape, tuning

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("interpreted kernels cannot be compiled")
    from shconv.ops.cuda import kernels as triton_kernels

    return triton_kernels


def resources(
    kernel: Any, configuration: Any, directory: Any, dtype: str, capability: int = 90, **constants: Any
) -> tuple[int, int, int]:
    """Registers, stack bytes (where spills go) and shared memory of a compiled kernel, 3x3 with padding 1."""
    known = dict.fromkeys(("STRIDE_H", "STRIDE_W", "STEP_H", "STEP_W", "PADDING_H", "PADDING_W"), 1) | {
        "S_H": 3, "S_W": 3, "DILATION_H": 1, "DILATION_W": 1, "NEEDS_X": True, "NEEDS_MAP": True, "PRECISION": "ieee",
        "PLACES": 128,
    }  # fmt: skip
    known |= constants | configuration.kwargs
    types = dict.fromkeys(("x", "dX", "Y", "dY", "weight"), f"*{dtype}") | dict.fromkeys(
        ("M", "dM_parts", "dW_parts"), "*fp32"
    )
    warps, stages = configuration.num_warps, configuration.num_stages
    registers, stack, made = compiled_for(capability, kernel.fn, types, known, warps, stages, directory)
    instruction = {90: "wgmma", 80: "mma.sync"}[capability]
    assert (instruction in made.asm["ptx"]) == (dtype != "fp32"), "16-bit products belong on the tensor cores"
    return registers, stack, made.metadata.shared


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("name", ["forward", "backward_input", "backward_weight"])
class TestCompiledForHopper:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))

    @pytest.mark.parametrize("channels", [(512, 512), pytest.param((64, 64), marks=pytest.mark.slow)], ids=str)
    def test_the_default_setting_spills_no_register_and_leaves_room_for_two_blocks(
        self, name, channels, kernels, tmp_path
    ):
        kernel = getattr(kernels, name)
        registers, stack, shared = resources(kernel, kernel.configs[0], tmp_path, "bf16", C=channels[0], D=channels[1])
        assert (registers <= 255, stack) == (True, 0)
        assert 2 * shared <= 227 * 1024

    def test_the_default_setting_compiles_for_ampere_without_spills(self, name, kernels, tmp_path):
        kernel = getattr(kernels, name)
        _, stack, shared = resources(
            kernel, kernel.configs[0], tmp_path, "bf16", capability=80, C=128, D=128, STRIDE_H=2, STEP_H=2
        )
        assert stack == 0
        assert shared <= 163 * 1024

    @pytest.mark.slow  # the default setting of larger images and sizes of one are compiled above and below
    def test_small_images_share_a_tile_without_spills(self, name, kernels, tmp_path):
        kernel = getattr(kernels, name)
        registers, stack, _ = resources(kernel, kernel.configs[0], tmp_path, "bf16", C=512, D=512, PLACES=16)
        assert (registers <= 255, stack) == (True, 0)

    def test_sizes_of_one_which_triton_takes_for_constants_compile(self, name, kernels, tmp_path):
        sizes = ("N", "H", "W", "OUT_H", "OUT_W", "rows", "parts", "SPLITS", "height", "width", "taps_h", "taps_w")
        one = dict.fromkeys((*sizes, "first_h", "first_w", "tap_h", "tap_w"), 1)
        kernel = getattr(kernels, name)
        _, stack, _ = resources(kernel, kernel.configs[0], tmp_path, "bf16", C=64, D=64, PLACES=1, **one)
        assert stack == 0

    @pytest.mark.slow  # the first and the last are compiled above and below
    def test_every_other_setting_compiles_within_shared_memory(self, name, kernels, tmp_path):
        kernel = getattr(kernels, name)
        for configuration in kernel.configs[1:]:
            *_, shared = resources(kernel, configuration, tmp_path, "bf16", C=256, D=256, STRIDE_H=2, STEP_H=2)
            assert shared <= 227 * 1024

    @pytest.mark.parametrize("channels", [37, pytest.param(64, marks=pytest.mark.slow)])
    def test_float32_without_tensor_cores_and_odd_channels_spill_next_to_nothing(
        self, name, channels, kernels, tmp_path
    ):
        kernel = getattr(kernels, name)
        _, stack, _ = resources(kernel, kernel.configs[-1], tmp_path, "fp32", C=channels, D=channels)
        assert stack <= 32  # a few registers are the compiler's, and differ by its version


@pytest.mark.parametrize("name", ["forward", "backward_input", "backward_weight"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [3, 64, 512])
def test_only_settings_that_fit_the_call_are_tried(name, dtype, channels, kernels):
    kernel = getattr(kernels, name)
    call = dict.fromkeys(kernel.fn.arg_names, 0) | {"x": torch.empty(0, dtype=dtype), "C": channels, "D": channels}
    tried = kernel.early_config_prune(kernel.configs, {}, **call | {"PRECISION": "tf32"})
    shared = [(c.kwargs["ROWS"] + c.kwargs["COLUMNS"]) * c.kwargs["INNER"] * c.num_stages for c in tried]
    assert tried[0] is kernel.configs[0]
    assert kernel.configs[-1] not in tried
    assert max(shared) * dtype.itemsize <= 227 * 1024
    assert all(c.kwargs["COLUMNS"] <= max(64, channels) for c in tried)
    if dtype == torch.float32:
        assert kernel.early_config_prune(kernel.configs, {}, **call | {"PRECISION": "ieee"}) == kernel.configs[-1:]


class Kernel:
    """Stands for a tuned kernel that finds its last setting the fastest; tells how it was launched."""

    keys = ("C",)

    def __init__(self, configs: list[Any]) -> None:
        self.configs, self.best_config, self.fn, self.launches = configs, configs[-1], self._untuned, []

    def __getitem__(self, grid: str) -> Any:
        return lambda **arguments: self.launches.append("tuned")

    def _untuned(self, ROWS: int, **arguments: Any) -> None:
        self.launches.append(ROWS)


def test_tiles_are_tried_once_and_where_nothing_may_be_measured_the_first_that_fit_are_taken(kernels, monkeypatch):
    settings = [kernels.triton.Config({"ROWS": rows, "COLUMNS": 64, "INNER": 64}) for rows in (1024, 128, 64, 32)]
    call = {"x": torch.empty(0, dtype=torch.bfloat16), "Y": None, "PRECISION": "ieee"}
    call |= dict.fromkeys(("D", "S_H", "S_W", "OUT_H", "OUT_W"), 8)
    kernel = Kernel(settings)
    monkeypatch.setattr(kernels, "_fastest", {})
    monkeypatch.setattr(tuning, "measures", lambda products: True)
    monkeypatch.setattr(kernels.plans, "run", lambda kernel, grid, arguments: kernel(**arguments))
    monkeypatch.setattr(kernels, "_compile", lambda kernel, arguments: kernel.launches.append("compiled"))
    with tape.collecting():  # to be compiled ahead
        kernels.launch(kernel, "grid", C=64, **call)
    assert kernel.launches == [128, 64]  # the last is for float32; three stages of 1024 rows have no room
    kernel.launches.clear()
    kernels.launch(kernel, "grid", C=64, **call)
    monkeypatch.setattr(tuning, "measures", lambda products: False)  # a graph is captured
    for channels in (64, 96):
        kernels.launch(kernel, "grid", C=channels, **call)
    monkeypatch.setattr(tuning, "fixed", lambda: True)
    kernels.launch(kernel, "grid", C=64, **call)
    assert kernel.launches == ["compiled", "tuned", 32, 128, 128]


@pytest.fixture
def keep_precision() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("keep_precision")
@pytest.mark.parametrize(("allowed", "used"), [(False, "ieee"), (True, "tf32")])
def test_float32_is_rounded_for_the_tensor_cores_only_where_torch_allows_its_convolutions_that(allowed, used, kernels):
    torch.backends.cudnn.allow_tf32 = allowed
    assert kernels.precision(torch.float32) == used
    assert kernels.precision(torch.bfloat16) == "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    assert kernels.precision(torch.float32) == "ieee"
