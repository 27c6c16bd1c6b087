"""The mean and the variance of a random tensor through the layers of a network, in closed form: each number a normal
one, independent of the others, after every layer (Jin et al. 2015). One rule for each kind of layer."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from shconv import variants
from shconv.errors import InputError
from shconv.layers import SHConv2d
from shconv.models.normalize import Normalize
from shconv.ops import filtered_conv2d
from shconv.routes import in_force, scale_gradient

TINY = 1e-12  # a variance below it is taken for it, so that its root has a gradient


class Moments(NamedTuple):
    """Of independent normal numbers, both of one shape."""

    mean: Tensor
    variance: Tensor


def convolution(layer: nn.Conv2d, x: Moments) -> Moments:
    """Sums of w x: the variance is a convolution of the variances with w^2. Copies of pixels at a border (padding modes
    other than zeros) are taken for independent."""
    mean, padding = layer(x.mean), layer.padding
    variance = x.variance
    if layer.padding_mode != "zeros":
        variance = F.pad(variance, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        padding = (0, 0)
    weight = layer.weight.square()
    return Moments(mean, F.conv2d(variance, weight, None, layer.stride, padding, layer.dilation, layer.groups))


def filtered_convolution(layer: SHConv2d, x: Moments) -> Moments:
    """The map is that of the mean; of the kernel w M the square is w^2 M^2. Frozen maps are given once a call."""
    routes = in_force(layer, x.mean)

    def convolved(part: Tensor, kernel: Tensor, M: Tensor, bias: Tensor | None) -> Tensor:
        X, padding = layer.padded(scale_gradient(part, routes.convolution))
        convolve = filtered_conv2d if M.dim() == 3 else variants.filtered_by_groups
        how: Any = (layer.stride, padding, layer.dilation, layer.groups)
        return convolve(X, kernel, M, bias, *how)

    if routes.frozen is None:
        M, mean = layer.filter_map(scale_gradient(x.mean, routes.hypernetwork)), layer(x.mean)
    else:
        M = routes.frozen(x.mean)
        if routes.recorder is not None:
            routes.recorder(M.detach())
        mean = convolved(x.mean, layer.kernel(), M, layer.bias)
    return Moments(mean, convolved(x.variance, layer.kernel().square(), M.square(), None))


def linear(layer: nn.Linear, x: Moments) -> Moments:
    return Moments(layer(x.mean), F.linear(x.variance, layer.weight.square()))


def batch_norm(layer: _BatchNorm, x: Moments) -> Moments:
    """In train mode by the batch's statistics, whose variance is that of the means plus the mean of the variances; the
    running ones follow them."""
    if type(layer) is not nn.BatchNorm2d:
        raise InputError(f"the noise model has no rule for {type(layer).__name__}: leave out --sync-batch-norm")
    mean, variance = _wide(x.mean), _wide(x.variance)
    if layer.training or layer.running_mean is None or layer.running_var is None:
        mu = mean.mean((0, 2, 3))
        total = mean.var((0, 2, 3), unbiased=False) + variance.mean((0, 2, 3))
        if layer.training and layer.track_running_stats:
            _follow(layer, mu.detach(), total.detach(), mean.numel() // mean.shape[1])
    else:
        mu, total = layer.running_mean, layer.running_var
    scale = (total + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    shift = -mu * scale if layer.bias is None else layer.bias - mu * scale
    along = (1, -1, 1, 1)
    return Moments(mean * scale.view(along) + shift.view(along), variance * scale.square().view(along))


def _follow(layer: _BatchNorm, mu: Tensor, total: Tensor, n: int) -> None:
    """The running statistics, as torch moves them: with the variance of a sample."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mu.to(layer.running_mean), share)
    layer.running_var.lerp_((total * n / max(1, n - 1)).to(layer.running_var), share)


def relu(x: Moments) -> Moments:
    """Of max(X, 0): s (a Phi + phi) and s^2 (Phi + a^2 Phi (1 - Phi) + a phi (1 - 2 Phi) - phi^2), a = mean / s."""
    mean, variance = _wide(x.mean), _wide(x.variance).clamp_min(TINY)
    s = variance.sqrt()
    a = mean / s
    above, below = torch.special.ndtr(a), torch.special.ndtr(-a)
    density = (-a.square() / 2).exp() / math.sqrt(2 * math.pi)
    share = above + a.square() * above * below + a * density * (below - above) - density.square()
    return Moments(mean * above + s * density, variance * share.clamp_min(0))


def larger(x: Moments, y: Moments) -> Moments:
    """Of max(X, Y) = Y + max(X - Y, 0), taken for a normal number again (Clark 1961)."""
    x, y = (Moments(_wide(each.mean), _wide(each.variance)) for each in (x, y))
    apart = Moments(x.mean - y.mean, x.variance + y.variance)
    gain = relu(apart)
    first = torch.special.ndtr(apart.mean / apart.variance.clamp_min(TINY).sqrt())  # how often X is the larger
    variance = y.variance + gain.variance - 2 * y.variance * first
    return Moments(y.mean + gain.mean, variance.clamp_min(0))


def max_pool(layer: nn.MaxPool2d, x: Moments) -> Moments:
    """The window's numbers in pairs, one after the other."""
    size, stride, padding, dilation = map(_pair, (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
    if layer.ceil_mode or layer.return_indices:
        raise InputError("the noise model has no rule for a max pool with ceil_mode or return_indices")
    around = (padding[1], padding[1], padding[0], padding[0])
    mean, variance = (F.pad(_wide(each), around) for each in x)
    inside = F.pad(torch.ones_like(x.mean[:1, :1], dtype=torch.bool), around)
    mean = torch.where(inside, mean, mean.detach().amin() - 1e3)  # beside it, what no number is below
    n, C = mean.shape[:2]
    out = layer(x.mean).shape[2:]
    windows = [
        F.unfold(each, size, dilation, 0, stride).view(n, C, size[0] * size[1], *out) for each in (mean, variance)
    ]
    found = Moments(*(each[:, :, 0] for each in windows))
    for k in range(1, size[0] * size[1]):
        found = larger(found, Moments(*(each[:, :, k] for each in windows)))
    return found


def average(x: Moments, dims: Any, keep: bool = False) -> Moments:
    """The mean over some dimensions, of n numbers: their variances' mean over n."""
    mean = x.mean.mean(dims, keepdim=keep)
    return Moments(mean, x.variance.mean(dims, keepdim=keep) * (mean.numel() / x.mean.numel()))


def average_pool(layer: nn.AvgPool2d, x: Moments) -> Moments:
    if any(_pair(layer.padding)) or layer.ceil_mode or layer.divisor_override:
        raise InputError("the noise model has no rule for an average pool with padding, ceil_mode or a divisor")
    size = _pair(layer.kernel_size)
    return Moments(layer(x.mean), layer(x.variance) / (size[0] * size[1]))


def pool_to_one(layer: nn.AdaptiveAvgPool2d, x: Moments) -> Moments:
    if _pair(layer.output_size) != (1, 1):
        raise InputError(f"the noise model has no rule for an adaptive pool to {layer.output_size}, only to 1")
    return average(x, (2, 3), keep=True)


def dropout(layer: nn.Dropout, x: Moments) -> Moments:
    """In train mode its noise is carried along, not drawn."""
    if not layer.training or layer.p == 0:
        return x
    return Moments(x.mean, (x.variance + x.mean.square()) / (1 - layer.p) - x.mean.square())


def normalize(layer: Normalize, x: Moments) -> Moments:
    std = torch.tensor(layer.std, dtype=x.variance.dtype, device=x.variance.device).view(-1, 1, 1)
    return Moments(layer(x.mean), x.variance / std.square())


def add(x: Moments, y: Any) -> Moments:
    """Of independent ones: a shortcut's and its block's are taken for that."""
    return (
        Moments(x.mean + y.mean, x.variance + y.variance) if isinstance(y, Moments) else Moments(x.mean + y, x.variance)
    )


def reshaped(x: Moments, *args: Any, **how: Any) -> Moments:
    return Moments(x.mean.flatten(*args, **how), x.variance.flatten(*args, **how))


LAYERS: tuple[tuple[type[nn.Module], Callable[[Any, Moments], Moments]], ...] = (
    (SHConv2d, filtered_convolution),  # a convolution too, so it comes first
    (nn.Conv2d, convolution),
    (nn.Linear, linear),
    (_BatchNorm, batch_norm),
    (nn.ReLU, lambda layer, x: relu(x)),
    (nn.MaxPool2d, max_pool),
    (nn.AvgPool2d, average_pool),
    (nn.AdaptiveAvgPool2d, pool_to_one),
    (nn.Dropout, dropout),
    (Normalize, normalize),
    (nn.Identity, lambda layer, x: x),
    (nn.Flatten, lambda layer, x: reshaped(x, layer.start_dim, layer.end_dim)),
)


def rule_of(layer: nn.Module) -> Callable[[Any, Moments], Moments]:
    """What is done for a layer. Raises InputError for one of a kind without a rule."""
    found = next((rule for kind, rule in LAYERS if isinstance(layer, kind)), None)
    if found is None or (found is convolution and not _is_plain(layer)):
        raise InputError(f"the noise model has no rule for {type(layer).__name__}")
    return found


def _is_plain(layer: nn.Module) -> bool:
    """A convolution that is one by its weight, and no other kernel."""
    kind = type(layer)
    return issubclass(kind, nn.Conv2d) and (kind.forward, kind._conv_forward) == (
        nn.Conv2d.forward,
        nn.Conv2d._conv_forward,
    )


def through(layer: nn.Module, x: Moments) -> Moments:
    """What a layer makes of them. Raises InputError for one of a kind without a rule."""
    return rule_of(layer)(layer, x)


def _wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
