"""Mean and variance of every channel of every image, as one op: a single visit of the input in each direction.
The compiled kernels do it on the CPU in float32; elsewhere torch does."""

from typing import Any

import torch
from torch import Tensor

from shconv.ops import library


def channel_mean_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance over the pixels: x (N, D, H, W) -> (N, D) and (N, D), in x's dtype.

    Can be differentiated once, like the filtered convolution itself.
    """
    mean, variance = _forward(x)
    return mean, variance


@torch.library.custom_op("shconv::channel_mean_variance", mutates_args=())
def _forward(x: Tensor) -> tuple[Tensor, Tensor]:
    if _compiled_serves(x):
        mean, variance = x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])
        _call("shconv_mean_variance", x, mean, variance)
        return mean, variance
    if x.numel() == 0:
        return x.new_zeros(x.shape[:2]), x.new_zeros(x.shape[:2])
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
    return mean, variance


@_forward.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])


@torch.library.custom_op("shconv::channel_mean_variance_backward", mutates_args=())
def _backward(x: Tensor, mean: Tensor, dmean: Tensor, dvariance: Tensor) -> Tensor:
    if _compiled_serves(x):
        dx = torch.empty_like(x)
        _call("shconv_mean_variance_backward", x, mean, dmean.contiguous(), dvariance.contiguous(), dx)
        return dx
    pixels = x.shape[2] * x.shape[3]
    slope, level = 2 * dvariance / pixels, dmean / pixels  # (N, D)
    return torch.addcmul(level[:, :, None, None], slope[:, :, None, None], x - mean[:, :, None, None])


@_backward.register_fake
def _(x: Tensor, mean: Tensor, dmean: Tensor, dvariance: Tensor) -> Tensor:
    return torch.empty_like(x)


def _setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[0])


def _autograd(ctx: Any, dmean: Tensor, dvariance: Tensor) -> Tensor:
    x, mean = ctx.saved_tensors
    dX: Tensor = _backward(x, mean, dmean, dvariance)
    return dX


_forward.register_autograd(_autograd, setup_context=_setup_context)


def _compiled_serves(x: Tensor) -> bool:
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    kind = x.device.type == "cpu" and x.dtype == torch.float32
    return kind and dense and not isinstance(library.kernels(), str)


def _call(function: str, x: Tensor, *tensors: Tensor) -> None:
    N, D, H, W = x.shape
    library.call(function, (N, D, H * W, int(not x.is_contiguous())), x, *tensors)
