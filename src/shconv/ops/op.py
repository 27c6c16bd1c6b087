"""filtered_conv2d, the public op: what autocast casts, checks, and the bias.
Autograd keeps x, the weight and the map for the backward pass, never a kernel per image."""

import torch
from torch import Tensor

from shconv.errors import InputError
from shconv.ops import derivatives
from shconv.ops.choice import FORMULATIONS
from shconv.ops.geometry import Geometry, IntOrPair, check, check_dimensions, pair, resolve_padding
from shconv.ops.modes import autocasting, cast


def filtered_conv2d(
    x: Tensor,
    weight: Tensor,
    filter_map: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: str | IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    formulation: str = "auto",
) -> Tensor:
    """Convolve every image with the weight filtered by that image's map: Y_n = conv(X_n, W * M_n) (section 2.2).

    Args:
        x: images (N, D, H, W).
        weight: (C, D / groups, S_h, S_w), shared by all images.
        filter_map: M (N, S_h, S_w), one map for each image; may be of higher precision than x.
        bias: (C,), as in torch.nn.functional.conv2d, like the four that follow.
        stride: one number or two.
        padding: one number or two, "same" or "valid".
        dilation: one number or two.
        groups: divides D and C.
        formulation: "auto" chooses by shape and device; a name of FORMULATIONS forces one.

    Returns:
        (N, C, H', W') in x's dtype, channels_last where x is.

    Under autocast x, weight and bias are cast as F.conv2d's are; the map keeps its precision. Differentiable any
    number of times, backward and forward (inside torch.compile once, backward). Under torch.func.vmap entries that
    share the weight become one batch; each entry with a weight of its own, or asked for its gradient, costs a call.

    Raises:
        InputError: shapes, dtypes or devices do not fit, or the formulation cannot serve them (with the reason).
    """
    if autocasting(x):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = cast(x, dtype), cast(weight, dtype), None if bias is None else cast(bias, dtype)
    check_dimensions(x, weight)
    stride, dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
    x, padding = resolve_padding(x, weight, padding, stride, dilation)
    geometry = Geometry(stride, padding, dilation, groups)
    check(x, weight, filter_map, bias, geometry)
    if formulation not in ("auto", *FORMULATIONS):
        raise InputError(f"unknown formulation {formulation!r}, choose from auto, {', '.join(FORMULATIONS)}")
    filter_map = filter_map.to(torch.promote_types(filter_map.dtype, x.dtype))  # dW is summed in its precision
    Y = derivatives.convolve(x, weight, filter_map, geometry, formulation)
    return Y if bias is None else Y + bias[:, None, None]
