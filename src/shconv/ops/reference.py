"""The definition of a filtered convolution: one image, one kernel, one convolution at a time.
Every other formulation is tested against this one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.ops.geometry import IntOrPair


def filtered_conv2d(
    x: Tensor,
    weight: Tensor,
    filter_map: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: str | IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """Y_n = conv(X_n, W * M_n).

    x (N, D, H, W), weight (C, D / groups, S_h, S_w), filter_map (N, S_h, S_w) -> (N, C, H', W'). Section 2.2 of the
    paper, written down: differentiable any number of times, and slow.
    """
    if len(x) == 0:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    outputs = []
    for X, M in zip(x, filter_map, strict=True):
        H = (weight * M).to(x.dtype)  # (C, D / groups, S_h, S_w), the Hadamard product on every sub-kernel
        X = X[None].contiguous()  # torch's own gradient is wrong for a grouped float64 one in channels_last
        outputs.append(F.conv2d(X, H, bias, stride, padding, dilation, groups))
    return torch.cat(outputs)
