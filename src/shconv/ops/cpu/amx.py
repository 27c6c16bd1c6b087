"""Formulation "amx": bfloat16 on the matrix tiles of processors that have them (Intel's AMX), C++ built on first use.
Sums are float32. M scales what leaves the tiles, or where images are large 32 output channels of the weight at a time.

Memory beside the results: a copy of the weight; for each thread, padded, the images that share one visit of it, 1 MB
or one image; for the gradient of the weight 16 MB of padded images, or one image, and its sums in float32, once or for
each thread. Threads keep these buffers between calls; no image's kernel outlives 32 of its channels.

The output, dX and dM of an image have the same bits whatever else is in the batch and however many threads there are.
"""

import torch
from torch import Tensor

from shconv.ops.cpu import library
from shconv.ops.geometry import Geometry


def reasons_against(x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]:
    """Why this formulation cannot serve the call; empty where it can. Builds the kernels for the first it can serve."""
    reasons = []
    if x.device.type != "cpu":
        reasons.append(f"x must be on the CPU, got {x.device}")
    if x.dtype != torch.bfloat16 or weight.dtype != torch.bfloat16:
        reasons.append(f"x and weight must be bfloat16, got {x.dtype} and {weight.dtype}")
    if geometry.groups != 1:
        reasons.append(f"groups must be 1, got {geometry.groups}")
    if not reasons and isinstance(kernels := library.kernels(), str):
        reasons.append(kernels)
    if not reasons and not library.has_bfloat16():
        reasons.append("this processor, or its compiler, has no bfloat16 tiles (AMX)")
    return reasons


def forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    x, weight, M = library.dense(x), library.dense(weight), M.float().contiguous()
    Y = library.empty((len(x), len(weight), *geometry.output_size(x, weight)), x)
    library.convolve("shconv_bfloat16_forward", (x, Y), weight, geometry, False, [x, weight, M, Y])
    return Y


def backward(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and M, each only where mask asks for it."""
    needs_x, needs_weight, needs_map = mask
    dtype, M = M.dtype, M.float().contiguous()
    x, dY, weight = library.dense(x), library.dense(dY), library.dense(weight)
    by_images, beside_weight = _routes(dY, weight)
    beside_weight = beside_weight and needs_map and needs_weight
    dX = torch.empty_like(x, memory_format=library.layout(x)) if needs_x or (needs_map and not beside_weight) else None
    dW = torch.empty_like(weight, memory_format=library.layout(weight)) if needs_weight else None
    dM = torch.empty_like(M) if needs_map else None
    if dX is not None:
        tensors = [dY, x, weight, M, dX, None if beside_weight else dM]
        library.convolve("shconv_bfloat16_backward_input", (x, dY), weight, geometry, False, tensors)
    if dW is not None:
        tensors = [dY, x, weight, M, dW, dM if beside_weight else None]
        library.convolve("shconv_bfloat16_backward_weight", (x, dY), weight, geometry, by_images, tensors)
    return dX if needs_x else None, dW, None if dM is None else dM.to(dtype)


def _routes(dY: Tensor, weight: Tensor) -> tuple[bool, bool]:
    """Whether each image's gradient of the weight is computed by itself, and whether dM is then taken from it, not from
    the pass to dX: for next to nothing where images are large beside the weight. The limits are measured."""
    pixels = dY[0, 0].numel()
    by_images = pixels >= 128 or weight.numel() <= 2**20
    return by_images, by_images and pixels >= 4 * min(weight.shape[:2])
