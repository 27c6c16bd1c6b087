"""Formulation "triton": implicit matrix products on the GPU, scaled for each image and tap where they are accumulated.
On Hopper the kernels of hopper/ serve where TMA can describe the tensors; what stands here serves everywhere else.

Images are worked on channels last (others are copied) and come out in x's layout. float32 is multiplied as
torch.backends.cudnn.conv allows, accumulated always in float32; no result depends on the order in which blocks run.
Memory beside the results: the weight where it is not channels last; partial sums of dM, T floats for every 64 pixels
and 64 channels of x; of dW, 33 MB, or one weight in float32 if that is larger, and T floats a pixel of
small images. No image's kernel exists.

Where tuning.measures allows it the first call for a geometry tries a few tilings, and Triton keeps the fastest in its
cache on disk; elsewhere one fixed tiling serves.
"""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shconv.ops.cuda import runtime
from shconv.ops.cuda.hopper import passes as hopper
from shconv.ops.cuda.runtime import COUNTED, DTYPES
from shconv.ops.geometry import Geometry, Pair, memory_format

_PART_TILES = 512  # tiles of 128 x 128 the parts of dW may have together: a few for each multiprocessor
_MOST_ROWS = 128  # of any tile
_CHUNKS = 8  # of 64 pixels, the least a part of dW is worth


def reasons_against(x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]:
    """Why this formulation cannot serve the call; empty where it can."""
    reasons = []
    if not runtime.installed():
        reasons.append("triton is not installed")
    elif x.is_cuda and (reason := runtime.reason_against(x.device.index)):
        reasons.append(reason)
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        reasons.append(f"x must be on a CUDA device, got {x.device}")
    if x.dtype not in DTYPES or weight.dtype != x.dtype:
        reasons.append(f"x and weight must be bfloat16, float16 or float32, got {x.dtype} and {weight.dtype}")
    if geometry.groups != 1:
        reasons.append(f"groups must be 1, got {geometry.groups}")
    pixels = len(x) * max(math.prod(x.shape[2:]), math.prod(geometry.output_size(x, weight)))
    if max(pixels, weight.numel()) >= COUNTED:
        reasons.append(f"fewer than {COUNTED} pixels and weights can be counted, got {pixels} and {weight.numel()}")
    return reasons


def forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    layout, scales = memory_format(x), M.float().contiguous()
    x = _channels_last(x)
    Y = None
    with torch.cuda.device_of(x):
        weight = _channels_last(weight)
        if hopper.serves(x, weight, geometry):
            Y = hopper.attempt(lambda: hopper.forward(x, weight, scales, geometry))
        if Y is None:
            Y = _forward(x, weight, scales, geometry)
    return Y.contiguous(memory_format=layout)


def backward(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool],
    dtype: torch.dtype | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of x, weight and M, each only where mask asks for it. dtype: the weight's gradient's, if not weight's;
    it is summed in float32."""
    needs_x, needs_weight, needs_map = mask
    layout, scales = memory_format(x), M.float().contiguous()
    dY, x, dtype = _channels_last(dY.to(x.dtype)), _channels_last(x), dtype or weight.dtype
    dX: Tensor | None = None
    dW: Tensor | None = None
    dM: Tensor | None = None
    with torch.cuda.device_of(x):
        weight = _channels_last(weight)
        if needs_weight and hopper.weight_serves(x, weight, geometry):
            beside = needs_map and hopper.map_by_weight(x, geometry, needs_x)
            sums = hopper.attempt(
                lambda: hopper.weight_gradient(_aligned(dY), x, weight, scales, geometry, beside, dtype)
            )
            dW, dM = sums or (None, None)
        if needs_weight and dW is None:
            dW = _backward_weight(dY, x, weight, scales, geometry)
        needs_map = needs_map and dM is None
        if needs_x or needs_map:
            both: tuple[Tensor | None, Tensor | None] | None = None
            if hopper.serves(x, weight, geometry):
                both = hopper.attempt(
                    lambda: hopper.input_gradient(_aligned(dY), x, weight, scales, geometry, needs_map)
                )
            dX, found = both or _backward_input(dY, x, weight, scales, geometry, needs_x, needs_map)
            dM = found if needs_map else dM
    return (
        dX.contiguous(memory_format=layout) if needs_x and dX is not None else None,
        None if dW is None else dW.to(dtype),
        None if dM is None else dM.view(M.shape).to(M.dtype),
    )


def joined(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Where it is the shorter way, what gives dX with the gradient through x's statistics in it, of [mu, sigma] and
    [dmu, dvariance] (N, 2, D): to be called once dM is known, and dW with it."""
    last = memory_format(x) == torch.channels_last  # copies of others would be made twice
    if not last or reasons_against(x, weight, geometry) or not hopper.joins(x, weight, geometry):
        return None
    dY, scales = _aligned(_channels_last(dY.to(x.dtype))), M.float().contiguous()

    def gradient(seen: Tensor, dseen: Tensor) -> Tensor:
        from shconv.ops.cuda import statistics

        with torch.cuda.device_of(x):
            W = _channels_last(weight)
            found = hopper.attempt(lambda: hopper.input_gradient(dY, x, W, scales, geometry, False, (seen, dseen)))
            if found:
                return found[0]
            dX, _ = _backward_input(dY, x, W, scales, geometry, True, False)
        return statistics.input_gradient(x, seen[:, 0], dseen[:, 0], dseen[:, 1], dX)

    return gradient


def _forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    from shconv.ops.cuda import kernels

    (height, width), C = geometry.output_size(x, weight), len(weight)
    rows = len(x) * height * width
    Y = _empty(x, len(x), C, height, width)

    def grid(tile: dict[str, int]) -> tuple[int]:
        return (_blocks(rows, tile["ROWS"]) * _blocks(C, tile["COLUMNS"]),)

    constants = _constants(x, weight, geometry)
    kernels.launch(kernels.forward, grid, x=x, weight=weight, M=M, Y=Y, rows=rows, **constants)
    return Y


def _backward_input(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, needs_x: bool, needs_map: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dX and dM (N, T) together: both want G_t. One launch for each class of pixels."""
    from shconv.ops.cuda import kernels

    (N, D, H, W), T = x.shape, weight[0, 0].numel()
    parts = _blocks(H * W, kernels.least(kernels.backward_input, "ROWS"))
    parts *= _blocks(D, kernels.least(kernels.backward_input, "COLUMNS"))
    dX = _empty(x, *x.shape) if needs_x else None
    dM_parts = M.new_zeros(N, parts, T) if needs_map else None  # a launch writes its own taps, a tile its own part
    constants = _constants(x, weight, geometry) | {"NEEDS_X": needs_x, "NEEDS_MAP": needs_map}
    unused = M.new_empty(0)
    constants["STEP_H"], constants["STEP_W"] = steps(geometry)
    # One number for all classes, by the first and largest: tiles are tried before its launch only, and clear dM_parts.
    largest = next(classes(H, W, weight, geometry))
    places = min(_MOST_ROWS, 1 << (largest.height * largest.width - 1).bit_length())
    for pixels in classes(H, W, weight, geometry):

        def grid(tile: dict[str, int], area: int = pixels.height * pixels.width) -> tuple[int]:
            images = max(1, tile["ROWS"] // places)
            return (_blocks(N, images) * _blocks(area, tile["ROWS"] // images) * _blocks(D, tile["COLUMNS"]),)

        kernels.launch(
            kernels.backward_input,
            grid,
            N=N,
            PLACES=places,
            dY=dY,
            x=x,
            weight=weight,
            M=M,
            dX=unused if dX is None else dX,
            dM_parts=unused if dM_parts is None else dM_parts,
            parts=parts,
            **pixels._asdict(),
            **constants,
        )
    return dX, None if dM_parts is None else dM_parts.sum(1)


def _backward_weight(dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    """dW in float32."""
    from shconv.ops.cuda import kernels

    N, (C, D, S_h, S_w) = len(x), weight.shape
    tiles = S_h * S_w * _blocks(C, 128) * _blocks(D, 128)
    splits = max(1, min(_PART_TILES // tiles, N * _blocks(dY[0, 0].numel(), 64) // _CHUNKS))
    parts = torch.empty(splits, C, S_h, S_w, D, dtype=torch.float32, device=x.device)

    def grid(tile: dict[str, int]) -> tuple[int]:
        return (splits * S_h * S_w * _blocks(C, tile["ROWS"]) * _blocks(D, tile["COLUMNS"]),)

    constants = _constants(x, weight, geometry)
    kernels.launch(kernels.backward_weight, grid, dY=dY, x=x, M=M, dW_parts=parts, N=N, SPLITS=splits, **constants)
    return parts.sum(0).permute(0, 3, 1, 2)


class Pixels(NamedTuple):
    """Input pixels a stride apart, and the taps that reach them, in the words of the kernel."""

    first_h: int
    first_w: int
    height: int
    width: int
    tap_h: int
    taps_h: int
    tap_w: int
    taps_w: int


def classes(H: int, W: int, weight: Tensor, geometry: Geometry) -> Iterator[Pixels]:
    """All input pixels, in at most stride x stride classes; together they see each tap once."""

    def along(axis: int, size: int) -> Iterator[tuple[int, int, int, int]]:
        stride, padding, dilation = (pair[axis] for pair in geometry[:3])
        for first in range(min(stride, size)):
            taps = [i for i in range(weight.shape[2 + axis]) if (first + padding - i * dilation) % stride == 0]
            yield first, _blocks(size - first, stride), taps[0] if taps else 0, len(taps)

    for first_h, height, tap_h, taps_h in along(0, H):
        for first_w, width, tap_w, taps_w in along(1, W):
            yield Pixels(first_h, first_w, height, width, tap_h, taps_h, tap_w, taps_w)


def steps(geometry: Geometry) -> Pair:
    """How far apart the taps are that reach pixels of one class."""
    (stride_h, stride_w), (dil_h, dil_w) = geometry.stride, geometry.dilation
    return stride_h // math.gcd(stride_h, dil_h), stride_w // math.gcd(stride_w, dil_w)


def _constants(x: Tensor, weight: Tensor, geometry: Geometry) -> dict[str, Any]:
    """What every kernel is told of the geometry."""
    from shconv.ops.cuda import kernels

    constants = {"H": x.shape[2], "W": x.shape[3], "C": weight.shape[0], "D": weight.shape[1]}
    pairs = {
        "OUT": geometry.output_size(x, weight), "S": weight.shape[2:],
        "STRIDE": geometry.stride, "PADDING": geometry.padding, "DILATION": geometry.dilation,
    }  # fmt: skip
    along = {f"{name}_{axis}": of[place] for name, of in pairs.items() for place, axis in enumerate("HW")}
    return constants | along | {"PRECISION": kernels.precision(x.dtype)}


def _aligned(dY: Tensor) -> Tensor:
    """As TMA wants a tensor to begin."""
    return dY.clone(memory_format=torch.preserve_format) if dY.data_ptr() % 16 else dY


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _empty(like: Tensor, *size: int) -> Tensor:
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _blocks(size: int, block: int) -> int:
    return -(-size // block)
