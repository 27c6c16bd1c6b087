"""Mean and variance of every channel of every image, as one op: a single visit of the input in each direction.
The compiled kernels do it on the CPU in float32 and bfloat16, Triton's on CUDA; elsewhere torch does."""

from collections.abc import Sequence

import torch
from torch import Tensor

from shconv.ops.cpu import statistics as cpu
from shconv.ops.cuda import runtime
from shconv.ops.geometry import check_images, like
from shconv.ops.modes import transforming
from shconv.ops.registration import Op


def channel_mean_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance over the pixels: x (N, D, H, W) -> (N, D) and (N, D), in x's dtype or float32,
    whichever is more precise. Differentiable like the filtered convolution itself.
    """
    check_images(x)
    mean, variance = _plain(x) if transforming() else _op((x,), ())
    return mean, variance


def at_least_float32(x: Tensor) -> Tensor:
    """bfloat16 and float16 become float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _plain(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(at_least_float32(x), dim=(2, 3), correction=0)
    return mean, variance


def _forward(inputs: tuple[Tensor], numbers: tuple[()], keep: bool) -> tuple[Tensor, Tensor]:
    (x,) = inputs
    if x.numel() == 0:
        x = at_least_float32(x)
        return x.new_zeros(x.shape[:2]), x.new_zeros(x.shape[:2])
    if runtime.statistics_serve(x):
        from shconv.ops.cuda import statistics as cuda

        return cuda.mean_variance(x)
    x = _readable(x)
    return cpu.mean_variance(x) if cpu.serves(x) else _plain(x)


def _shapes(inputs: tuple[Tensor], numbers: tuple[()], keep: bool) -> tuple[Tensor, Tensor]:
    (x,) = inputs
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape[:2], dtype=dtype), x.new_empty(x.shape[:2], dtype=dtype)


def input_gradient(x: Tensor, mean: Tensor, dmean: Tensor, dvariance: Tensor) -> Tensor:
    """dX of x (N, D, H, W), its means, and the gradients of its means and variances, (N, D) each."""
    if x.numel() == 0:
        return torch.empty_like(x)
    if runtime.statistics_serve(x):
        from shconv.ops.cuda import statistics as cuda

        return cuda.input_gradient(x, mean, dmean, dvariance)
    dtype, x = x.dtype, _readable(x)
    if cpu.serves(x):
        return cpu.input_gradient(x, mean, dmean, dvariance).to(dtype)
    return _plain_backward(at_least_float32(x), mean, dmean, dvariance).to(dtype)


def _plain_backward(x: Tensor, mean: Tensor, dmean: Tensor, dvariance: Tensor) -> Tensor:
    pixels = x.shape[2] * x.shape[3]
    slope, level = 2 * dvariance / pixels, dmean / pixels  # (N, D)
    return torch.addcmul(level[:, :, None, None], slope[:, :, None, None], x - mean[:, :, None, None])


def _backward(
    gradients: tuple[Tensor, Tensor], saved: tuple[Tensor, Tensor], numbers: tuple[()], mask: Sequence[bool]
) -> tuple[Tensor]:
    return (like(input_gradient(*saved, *gradients), saved[0]),)


def _again(
    gradients: tuple[Tensor, Tensor], inputs: tuple[Tensor], numbers: tuple[()], mask: Sequence[bool]
) -> tuple[Tensor]:
    (x,), X = inputs, at_least_float32(inputs[0])
    return (_plain_backward(X, _plain(X)[0], *gradients).to(x.dtype),)


def _readable(x: Tensor) -> Tensor:
    """What the compiled kernels can read of it: float16 becomes float32."""
    return x.float() if x.dtype == torch.float16 else x


_op = Op(
    "channel_mean_variance(Tensor x) -> (Tensor, Tensor)", ("mean", "variance"), ("mean",),
    forward=_forward, shapes=_shapes, backward=_backward, again=_again,
)  # fmt: skip
