"""Mean and variance of every channel by the C++ kernels: one visit of a channel, while it is in the cache."""

import torch
from torch import Tensor

from shconv.ops.cpu import library


def serves(x: Tensor) -> bool:
    """x (N, D, H, W), float32 or bfloat16, contiguous or channels last."""
    kind = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return kind and dense and not isinstance(library.kernels(), str)


def mean_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance (N, D), in float32."""
    mean, variance = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))
    _call("shconv_mean_variance", x, mean, variance)
    return mean, variance


def input_gradient(x: Tensor, mean: Tensor, dmean: Tensor, dvariance: Tensor) -> Tensor:
    """dX, in x's dtype and layout; the others are (N, D)."""
    dX = torch.empty_like(x)
    _call("shconv_mean_variance_backward", x, mean.contiguous(), dmean.contiguous(), dvariance.contiguous(), dX)
    return dX


def _call(function: str, x: Tensor, *tensors: Tensor) -> None:
    N, D, H, W = x.shape
    library.call(function, (N, D, H * W, int(not x.is_contiguous()), int(x.dtype == torch.bfloat16)), x, *tensors)
