"""Formulation "compiled": C++ kernels built on first use with the machine's own compiler, for float32 on the CPU.
Without a compiler, or with SHCONV_COMPILED=0, it gives its reason and serves no call."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from shconv.ops.geometry import Geometry

_SOURCE = Path(__file__).parent / "csrc"
_FLAGS = ["-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread", "-w"]
_THIN = 16  # output channels too few for dM to come cheaply with dX
_log = logging.getLogger(__name__)


def reasons_against(x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]:
    """Why this formulation cannot serve the call; empty where it can. Builds the kernels if nothing else speaks against."""
    reasons = []
    if x.device.type != "cpu":
        reasons.append(f"x must be on the CPU, got {x.device}")
    if x.dtype != torch.float32 or weight.dtype != torch.float32:
        reasons.append(f"x and weight must be float32, got {x.dtype} and {weight.dtype}")
    if geometry.groups != 1:
        reasons.append(f"groups must be 1, got {geometry.groups}")
    if not reasons and isinstance(kernels := _kernels(), str):
        reasons.append(kernels)
    return reasons


def forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    x = _dense(x)
    Y = torch.empty((len(x), len(weight), *geometry.output_size(x, weight)), memory_format=_layout(x))
    by_taps, _ = _routes(x, weight, geometry)
    _run("shconv_forward", (x, Y), weight, geometry, by_taps, [x, weight, M, Y])
    return Y


def backward(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and M, each only where mask asks for it."""
    needs_x, needs_weight, needs_map = mask
    x, dY = _dense(x), _dense(dY)
    by_taps, weight_by_taps = _routes(x, weight, geometry)
    weight_by_taps = weight_by_taps and (needs_x or not needs_map)
    # dM comes with either gradient, at next to no cost where that is computed the way which gives it.
    beside_weight = not weight_by_taps and (needs_weight or not needs_x or len(weight) <= _THIN)
    with_x, with_weight = needs_map and not beside_weight, needs_map and beside_weight
    dX = torch.empty_like(x, memory_format=_layout(x)) if needs_x else None
    dW = torch.empty_like(weight, memory_format=torch.contiguous_format) if needs_weight else None
    dM = torch.empty(M.shape) if needs_map else None
    if needs_x:
        tensors = [dY, x, weight, M, dX, dM if with_x else None]
        _run("shconv_backward_input", (x, dY), weight, geometry, by_taps or with_x, tensors)
    if needs_weight or with_weight:
        tensors = [dY, x, weight, M, dW, dM if with_weight else None]
        _run("shconv_backward_weight", (x, dY), weight, geometry, weight_by_taps, tensors)
    return dX, dW, None if dM is None else dM.to(M.dtype)


def _routes(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[bool, bool]:
    """For the passes over images and for the gradient of the weight: True where many images should share every tap's
    weights, False where one image has pixels enough to be worth its own kernel. Measured, see benchmarks/formulations.py."""
    height, width = geometry.output_size(x, weight)
    pixels, in_cache = height * width, weight.numel() <= 2**18
    return pixels < 4 * min(weight.shape[:2]), pixels < (64 if in_cache else 256)


def _dense(images: Tensor) -> Tensor:
    last = images.is_contiguous(memory_format=torch.channels_last)
    return images if last else images.contiguous()


def _layout(images: Tensor) -> torch.memory_format:
    return torch.contiguous_format if images.is_contiguous() else torch.channels_last


def _run(
    function: str,
    images: tuple[Tensor, Tensor],
    weight: Tensor,
    geometry: Geometry,
    by_taps: bool,
    tensors: list[Tensor | None],
) -> None:
    """Call into the library; images are the tensors in the place of x and of Y, tensors are passed in their order."""
    kernels = _kernels()
    if isinstance(kernels, str):
        raise RuntimeError(kernels)
    x, Y = images
    last = (int(not of.is_contiguous()) for of in images)
    numbers = (
        *x.shape, *Y.shape[1:], *weight.shape[2:], *geometry.stride, *geometry.padding, *geometry.dilation,
        *last, torch.get_num_threads(),
    )  # fmt: skip
    held = [t if t is None or (t.dim() == 4 and t is not weight) else t.float().contiguous() for t in tensors]
    pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in held]
    arguments = (ctypes.c_int64 * len(numbers))(*numbers)
    if getattr(kernels, function)(arguments, int(by_taps), _threads(), *pointers):
        raise MemoryError(f"{function} found no memory for its scratch")


@functools.cache
def _threads() -> ctypes.c_void_p:
    """The entry of the OpenMP runtime torch runs on, null where there is none: a second pool would fight with it."""
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(torch_cpu.GOMP_parallel, ctypes.c_void_p)  # searches what torch was linked with
    except (OSError, AttributeError):
        return ctypes.c_void_p(None)


@functools.cache
def _kernels() -> ctypes.CDLL | str:
    """The loaded library, or why there is none."""
    if os.environ.get("SHCONV_COMPILED") == "0":
        return "SHCONV_COMPILED=0 turns the compiled kernels off"
    try:
        return ctypes.CDLL(str(_build()))
    except (OSError, subprocess.SubprocessError) as error:
        detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        reason = f"the compiled kernels could not be built: {' '.join(detail.split())[:500]}"
        _log.warning("%s; slower formulations serve instead", reason)
        return reason


def _build() -> Path:
    """The shared library in the cache, compiled if it is not there; safe against other processes doing the same."""
    compiler = shlex.split(os.environ.get("SHCONV_CXX") or os.environ.get("CXX") or "")
    if not compiler:
        found = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
        if found is None:
            raise FileNotFoundError("no C++ compiler (g++, clang++ or c++) on the path")
        compiler = [found]
    library = _cache() / f"filtered-{_key(compiler)}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        command = [*compiler, *_FLAGS, str(_SOURCE / "filtered.cpp"), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        made.replace(library)
    return library


def _cache() -> Path:
    if folder := os.environ.get("SHCONV_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shconv"


def _key(compiler: list[str]) -> str:
    """What the library depends on: source, flags, compiler, processor and torch."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout
    parts = [*compiler, version, *_FLAGS, torch.__version__, platform.machine(), _processor()]
    for file in sorted(_SOURCE.iterdir()):
        parts += [file.name, file.read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _processor() -> str:
    """The instruction set, as far as the system tells it: a cache may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
