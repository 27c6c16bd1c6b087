"""Formulation "compiled": C++ kernels built on first use with the machine's own compiler, for float32 on the CPU; and
for bfloat16 by way of float32. Without a compiler, or with SHCONV_COMPILED=0, it gives its reason and serves no call.

Memory beside the results: two copies of the weight, and on every thread a third where it has less than 256 KB, all with
channels rounded up to 16; on every thread, packed, four times one padded image (or 256 pixels where images are
smaller) of all channels, or 0.5 MB if that is more; for the gradient of the weight 16 MB of packed images, or one image
if that is larger, and partial sums of 32 MB, or one weight for each thread. Threads keep these buffers between calls;
no image's kernel outlives its call.

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
    if x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.bfloat16):
        reasons.append(f"x and weight must be float32 or bfloat16, got {x.dtype} and {weight.dtype}")
    if geometry.groups != 1:
        reasons.append(f"groups must be 1, got {geometry.groups}")
    if not reasons and isinstance(kernels := library.kernels(), str):
        reasons.append(kernels)
    return reasons


def forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    if x.dtype == torch.bfloat16:
        return forward(x.float(), weight.float(), M, geometry).bfloat16()
    x, weight, M = library.dense(x), library.dense(weight), M.float().contiguous()
    Y = library.empty((len(x), len(weight), *geometry.output_size(x, weight)), x)
    library.convolve("shconv_forward", (x, Y), weight, geometry, forward_route(x, weight, geometry), [x, weight, M, Y])
    return Y


def backward(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and M, each only where mask asks for it."""
    if x.dtype == torch.bfloat16:
        dX, dW, dM = backward(dY.float(), x.float(), weight.float(), M, geometry, mask)
        return None if dX is None else dX.bfloat16(), None if dW is None else dW.bfloat16(), dM
    needs_x, needs_weight, needs_map = mask
    dtype, M = M.dtype, M.float().contiguous()
    x, dY, weight = library.dense(x), library.dense(dY), library.dense(weight)
    by_taps, weight_by_taps, beside_weight = backward_routes(x, weight, geometry, mask)
    with_x, with_weight = needs_map and not beside_weight, needs_map and beside_weight
    dX = torch.empty_like(x, memory_format=library.layout(x)) if needs_x else None
    dW = torch.empty_like(weight, memory_format=library.layout(weight)) if needs_weight else None
    dM = torch.empty_like(M) if needs_map else None
    if needs_x:
        tensors = [dY, x, weight, M, dX, dM if with_x else None]
        library.convolve("shconv_backward_input", (x, dY), weight, geometry, by_taps, tensors)
    if needs_weight or with_weight:
        tensors = [dY, x, weight, M, dW, dM if with_weight else None]
        library.convolve("shconv_backward_weight", (x, dY), weight, geometry, weight_by_taps, tensors)
    return dX, dW, None if dM is None else dM.to(dtype)


def forward_route(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """What _routes says of the forward pass."""
    return _routes(x, weight, geometry)[0]


def backward_routes(
    x: Tensor, weight: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[bool, bool, bool]:
    """What _routes says of the passes to dX and to dW, and whether dM comes with the latter: it does with either, at
    next to no cost where that is computed the way which gives it."""
    needs_x, needs_weight, needs_map = mask
    by_taps, weight_by_taps = _routes(x, weight, geometry)
    weight_by_taps = weight_by_taps and (needs_x or not needs_map)
    beside_weight = not weight_by_taps and (needs_weight or not needs_x)
    return by_taps or (needs_map and not beside_weight), weight_by_taps, beside_weight


def _routes(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[bool, bool]:
    """For the passes over images and for the gradient of the weight: True where many images should share every tap's
    weights, False where one image has pixels enough to be worth a kernel of its own. The limits are measured."""
    height, width = geometry.output_size(x, weight)
    pixels, size = height * width, weight.numel()
    large = size > 2**16  # a kernel beside which scaling the sums is cheap
    return large or pixels < 4 * min(weight.shape[:2]), pixels < (64 if size <= 2**18 else 256)
