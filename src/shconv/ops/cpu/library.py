"""The C++ kernels as a shared library, called by name: the one that came with the package (hatch_build.py), else built
on first use with the machine's own compiler and cached. Where it cannot be built there is a reason instead.

Environment: SHCONV_COMPILED=0 turns it off, SHCONV_CXX (else CXX, g++, clang++, c++) names the compiler, SHCONV_CACHE
(else XDG_CACHE_HOME/shconv, ~/.cache/shconv) is where the library is kept.
"""

import ctypes
import functools
import logging
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shconv.ops.cpu.building import built
from shconv.ops.geometry import Geometry
from shconv.switches import switch

_SOURCE = Path(__file__).parent / "csrc"
_BUILT = Path(__file__).parent / "kernels.so"  # in wheels: for every level of x86-64, chosen among when it is loaded
_log = logging.getLogger(__name__)


def call(function: str, numbers: Sequence[int], *arguments: int | Tensor | None) -> None:
    """Call a C function with its geometry (torch's number of threads is added), torch's pool, then numbers and tensors.

    Raises RuntimeError where there is no library, MemoryError where the kernels find no memory for their scratch.
    """
    library = kernels()
    if isinstance(library, str):
        raise RuntimeError(library)
    geometry = (ctypes.c_int64 * (len(numbers) + 1))(*numbers, torch.get_num_threads())
    rest = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
    if getattr(library, function)(geometry, torch_threads(), *rest):
        raise MemoryError(f"{function} found no memory for its scratch")


def function(name: str, signature: str) -> Any:
    """A C function that takes addresses ("p") and numbers ("i") in that order, for calls in which every microsecond
    counts. Raises MemoryError where the kernels find no memory for their scratch."""
    library = kernels()
    assert isinstance(library, ctypes.CDLL)
    found: Any = library[name]
    found.argtypes = [{"p": ctypes.c_void_p, "i": ctypes.c_int}[kind] for kind in signature]
    found.errcheck = _check
    return found


def _check(result: int, function: Any, arguments: Any) -> int:
    if result:
        raise MemoryError(f"{function.__name__} found no memory for its scratch")
    return result


def geometry_numbers(x: Sequence[int], Y: Sequence[int], taps: Sequence[int], geometry: Geometry) -> tuple[int, ...]:
    """How every function of the filtered convolution is told of the sizes of x, of Y and of the kernel."""
    return *x, *Y[1:], *taps, *geometry.stride, *geometry.padding, *geometry.dilation


def convolve(
    function: str,
    images: tuple[Tensor, Tensor],
    weight: Tensor,
    geometry: Geometry,
    route: bool,
    tensors: Sequence[Tensor | None],
) -> None:
    """Call a function of the filtered convolution: images are those in the places of x and of Y, tensors what it takes,
    in its order. All are dense."""
    x, Y = images
    last = (int(not of.is_contiguous()) for of in (x, Y, weight))
    numbers = geometry_numbers(x.shape, Y.shape, weight.shape[2:], geometry)
    call(function, (*numbers, *last), int(route), *tensors)


def dense(tensor: Tensor) -> Tensor:
    """(N, C, H, W) as the kernels read it: contiguous or channels_last."""
    return tensor if tensor.is_contiguous(memory_format=torch.channels_last) else tensor.contiguous()


def layout(tensor: Tensor) -> torch.memory_format:
    """Of a dense tensor."""
    return torch.contiguous_format if tensor.is_contiguous() else torch.channels_last


def empty(size: Sequence[int], of: Tensor) -> Tensor:
    """Memory in the dtype and layout of a dense tensor: the dtype and the device that torch is set to by default may be
    others."""
    return torch.empty(size, dtype=of.dtype, device="cpu", memory_format=layout(of))


@functools.cache
def has_bfloat16() -> bool:
    """Whether the library was compiled for bfloat16 tiles (AMX) and the system lets this process use them."""
    library = kernels()
    return not isinstance(library, str) and bool(library.shconv_has_bfloat16())


@functools.cache
def torch_threads() -> ctypes.c_void_p:
    """The entry of the OpenMP runtime torch runs on, null where there is none: a second pool would fight with it."""
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(torch_cpu.GOMP_parallel, ctypes.c_void_p)  # searches what torch was linked with
    except (OSError, AttributeError):
        return ctypes.c_void_p(None)


@functools.cache
def kernels() -> ctypes.CDLL | str:
    """The loaded library, or why there is none."""
    found = load(_BUILT, _SOURCE / "filtered.cpp")
    if isinstance(found, str) and switch("SHCONV_COMPILED") is not False:
        _log.warning("%s; slower formulations are used instead", found)
    return found


def load(came: Path, source: Path) -> ctypes.CDLL | str:
    """The library that came with the package as this file, or else is built of source; or why there is none."""
    if switch("SHCONV_COMPILED") is False:
        return "SHCONV_COMPILED=0 turns the compiled kernels off"
    try:
        return _that_came_with_it(came) or built(source)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        detail = said.strip() or str(error)
        return f"the compiled kernels could not be built: {' '.join(detail.split())[:500]}"


def _that_came_with_it(came: Path) -> ctypes.CDLL | None:
    """None too where SHCONV_CXX asks for another compiler's, or the system cannot load it."""
    if not came.exists() or os.environ.get("SHCONV_CXX"):
        return None
    try:
        return ctypes.CDLL(str(came))
    except OSError as error:
        _log.warning("the compiled kernels of this package do not load: %s", error)
        return None
