"""Launches of Triton's kernels by one call of a small C library (csrc/launch.cpp) for all of them: what Triton's own
launcher does in Python each time is written down once, as a program. Importing this imports no triton.

How a kernel takes its arguments is Triton's own convention: read from the versions of _KNOWN, refused for others.
"""

import ctypes
import functools
import importlib.metadata
import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from shconv.ops.cpu import library
from shconv.ops.cuda.tape import Described, Launched, Ref, UnrecordableError

_KNOWN = ("3.6", "3.7", "3.8")  # versions of Triton
_BUILT = Path(__file__).parent / "launch.so"  # in wheels
_SOURCE = Path(__file__).parent / "csrc" / "launch.cpp"
_DRIVER = "libcuda.so.1"
_FUNCTIONS = ("cuLaunchKernel", "cuTensorMapEncodeTiled", "cuCtxGetCurrent", "cuDevicePrimaryCtxRetain",
              "cuCtxSetCurrent")  # fmt: skip
_MOST_PARAMETERS, _MOST_MAPS = 128, 8  # as in launch.cpp
_MOST_SHARED = 228 * 1024  # bytes; more of them are asked for in another way
_WHOLE = {f"{sign}{bits}": bits for sign in "iu" for bits in (1, 8, 16, 32, 64)}
_ELEMENTS = {8: 10, 9: 8, 10: 9}  # of a tensor map: Triton's numbers and the driver's, where they differ
_TF32 = 11
_SMALL, _MENDED_UP_TO = 128 * 1024, 13010  # bytes of a tensor; the driver's version
_log = logging.getLogger(__name__)

Play = Callable[[Sequence[int], int], None]  # of the addresses of the roots (0 for what is not there yet), and a stream


@functools.cache
def reason_against() -> str:
    """Why nothing can be launched this way, "" where it can; logged when it is found out, for Triton's way serves."""
    try:
        version = importlib.metadata.version("triton")
        if not version.startswith(tuple(f"{each}." for each in _KNOWN)):
            reason = f"Triton {version} may pass arguments in another way than {', '.join(_KNOWN)}"
        else:
            found = _library()
            reason = found if isinstance(found, str) else ""
    except (OSError, AttributeError, importlib.metadata.PackageNotFoundError) as error:
        reason = f"{type(error).__name__}: {error}"
    if reason:
        _log.info("a layer's kernels are launched one by one: %s", reason)
    return reason


def player(launches: Sequence[Launched], device: int) -> Play:
    """What launches them all. Raises UnrecordableError where a kernel wants what is not known here."""
    if reason := reason_against():
        raise UnrecordableError(reason)
    words = [len(launches)]
    for each in launches:
        words += _kernel(each)
    program = (ctypes.c_int64 * len(words))(*words)
    compiled = [each.compiled for each in launches]  # a kernel is unloaded with it
    found = _library()
    assert not isinstance(found, str)
    function, driver = found
    head = ctypes.addressof(driver), device, ctypes.addressof(program)

    def play(addresses: Sequence[int], stream: int, of: object = (program, compiled)) -> None:
        if failed := function(*head, _packed(len(addresses))(*addresses), stream):
            raise RuntimeError(f"the CUDA driver refuses a launch: {_said(failed)}")

    return play


@functools.cache
def _packed(count: int) -> Callable[..., bytes]:
    """Words of 64 bits as C reads them: by struct in a fifth of the time that an array of ctypes takes to be filled."""
    return struct.Struct(f"{count}Q").pack


def _kernel(launched: Launched) -> list[int]:
    compiled = launched.compiled
    if compiled is None:
        raise UnrecordableError("a kernel that is interpreted")
    compiled._init_handles()
    told, (warps, blocks, shared) = compiled.metadata, compiled.packed_metadata
    unusual = ("launch_cooperative_grid", "launch_pdl", "global_scratch_size", "profile_scratch_size",
               "instrumentation_mode")  # fmt: skip
    if blocks != 1 or shared > _MOST_SHARED or any(getattr(told, name, None) for name in unusual):
        raise UnrecordableError(f"kernel {compiled.name} is launched in an unusual way")
    maps, parameters = iter(getattr(told, "tensordesc_meta", None) or ()), list[list[int]]()
    for name, kind in compiled.src.signature.items():
        if kind != "constexpr":
            parameters += _parameters(kind, launched.arguments[name], maps)
    parameters += [[0, 0], [0, 0]]  # Triton's scratch
    if len(parameters) > _MOST_PARAMETERS or sum(each[0] == 2 for each in parameters) > _MOST_MAPS:
        raise UnrecordableError(f"kernel {compiled.name} has too many parameters")
    head = [compiled.function, *(*launched.grid, 1, 1)[:3], 32 * warps, shared, len(parameters)]
    return [*head, *(word for each in parameters for word in each)]


def _parameters(kind: Any, value: Any, maps: Iterator[Any]) -> list[list[int]]:
    """What an argument of Triton's type `kind` becomes: words as launch.cpp reads them, for each parameter."""
    if isinstance(value, Described):
        told = next(maps, None)
        if told is None or told["fp4_padded"] or told.get("is_im2col"):
            raise UnrecordableError("a descriptor that is no plain tensor map")
        return [_map(value, told), *([0, each] for each in (*value.shape, *value.strides))]
    if isinstance(value, Ref):
        return [[1, value.root, value.offset]]
    if str(kind).startswith("*") and value is None:  # an empty tensor
        return [[0, 0]]
    if kind in _WHOLE:
        return [[0, _signed(int(value))]]
    if kind in ("fp32", "fp64"):
        return [[0, int.from_bytes(struct.pack("<f" if kind == "fp32" else "<d", value), "little", signed=True)]]
    raise UnrecordableError(f"an argument of type {kind}")


def _map(value: Described, told: Any) -> list[int]:
    """A map has the innermost side first, and strides in bytes without the innermost."""
    element = _TF32 if value.rounded else _ELEMENTS.get(told["elem_type"], told["elem_type"])
    sizes, box = value.shape[::-1], told["block_size"][::-1]
    strides = [told["elem_size"] * each for each in value.strides[-2::-1]]
    reach = sum((size - 1) * step for size, step in zip(sizes, (told["elem_size"], *strides), strict=True))
    small = reach + 1 < _SMALL and _mends_small()
    head = [2, value.base.root, value.base.offset, element, len(sizes), told["swizzle"], int(value.nan), int(small)]
    return [*head, *sizes, *strides, *box]


def _mends_small() -> bool:
    """Whether this Triton changes a bit of the driver's maps of small tensors."""
    version = ctypes.c_int()
    ctypes.CDLL(_DRIVER).cuDriverGetVersion(ctypes.byref(version))
    return version.value <= _MENDED_UP_TO and not importlib.metadata.version("triton").startswith("3.6.")


def _signed(value: int) -> int:
    """The same 64 bits."""
    return value - 2**64 if value >= 2**63 else value


@functools.cache
def _library() -> tuple[Any, Any] | str:
    """shconv_launch and the driver's functions for it, or why there are none."""
    found = library.load(_BUILT, _SOURCE)
    if isinstance(found, str):
        return found
    driver = ctypes.CDLL(_DRIVER)
    addresses = (ctypes.c_void_p * len(_FUNCTIONS))(
        *(ctypes.cast(driver[name], ctypes.c_void_p) for name in _FUNCTIONS)
    )
    function: Any = found.shconv_launch
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 3]
    return function, addresses


def _said(code: int) -> str:
    text = ctypes.c_char_p()
    ctypes.CDLL(_DRIVER).cuGetErrorString(code, ctypes.byref(text))
    return f"{(text.value or b'').decode()} (error {code})"


def stream(device: int) -> int:
    """torch's current one."""
    return int(torch._C._cuda_getCurrentRawStream(device))
