"""What a study may change in the layer: what the hypernetwork sees, how its last layer becomes a map, and one map for
each group of input channels. The paper's choices are the defaults of shconv.layers."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.errors import InputError
from shconv.ops import filtered_conv2d
from shconv.ops.statistics import at_least_float32

Statistic = Literal["mean", "std", "max", "min", "skew", "kurtosis"] | Callable[[Tensor], Tensor]
Activation = Literal["sigmoid", "softplus", "identity+1"] | Callable[[Tensor], Tensor]

STATISTICS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {  # of x (N, D, H, W), mu (N, D), sigma (N, D)
    "mean": lambda x, mu, sigma: mu,
    "std": lambda x, mu, sigma: sigma,
    "max": lambda x, mu, sigma: at_least_float32(x).amax((2, 3)),
    "min": lambda x, mu, sigma: at_least_float32(x).amin((2, 3)),
    "skew": lambda x, mu, sigma: _standardized(x, mu, sigma).pow(3).mean((2, 3)),
    "kurtosis": lambda x, mu, sigma: _standardized(x, mu, sigma).pow(4).mean((2, 3)),
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "identity+1": lambda z: z + 1,
}


def check_statistics(statistics: tuple[Statistic, ...]) -> None:
    """Raise InputError unless there is at least one, each once, each a known name or a function."""
    distinct = isinstance(statistics, tuple | list) and len(set(statistics)) == len(statistics) > 0
    if not distinct or not all(callable(each) or each in STATISTICS for each in statistics):
        names = ", ".join(f'"{name}"' for name in STATISTICS)
        raise InputError(f"statistics must be some of {names} or functions, each once, got {statistics!r}")


def check_activation(activation: Activation) -> None:
    """Raise InputError unless it is a known name or a function."""
    if not callable(activation) and activation not in ACTIVATIONS:
        raise InputError(f"activation must be {', '.join(ACTIVATIONS)} or a function, got {activation!r}")


def check_map_groups(map_groups: int, in_channels: int, groups: int) -> None:
    """Raise InputError unless the maps share the input channels evenly and no group of either kind is cut."""
    small, large = sorted((map_groups, groups))
    if small < 1 or in_channels % map_groups or large % small:
        raise InputError(
            f"map_groups must divide the {in_channels} input channels, and divide groups={groups} or be a multiple "
            f"of it; got {map_groups}"
        )


def statistic(which: Statistic, x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """One statistic of every channel (N, D). A function is given x (N, D, H, W), in float32 at least.

    Raises InputError where a function returns another shape.
    """
    if not callable(which):
        return STATISTICS[which](x, mu, sigma)
    value = which(at_least_float32(x))
    if value.shape != x.shape[:2]:
        wanted = f"{tuple(x.shape)} to (N, D) = {tuple(x.shape[:2])}"
        raise InputError(f"a statistic maps {wanted}, got {tuple(value.shape)}")
    return value


def activate(activation: Activation, z: Tensor) -> Tensor:
    """Maps from the hypernetwork's last layer z (N, S_h, S_w) or (N, G, S_h, S_w); a function must keep the shape."""
    M = activation(z) if callable(activation) else ACTIVATIONS[activation](z)
    if M.shape != z.shape:
        raise InputError(f"an activation keeps the shape {tuple(z.shape)} of what it is given, got {tuple(M.shape)}")
    return M


def filtered_by_groups(
    x: Tensor, weight: Tensor, M: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """filtered_conv2d with G maps M (N, G, S_h, S_w): input channel d of D is filtered by M[:, d // (D / G)].

    A filtered convolution for each map: summed where the maps share an output channel, side by side where they do not.
    """
    blocks = min(M.shape[1], groups)
    inner_maps, inner_groups = M.shape[1] // blocks, groups // blocks  # one of them is 1
    Y = []
    for X, W, maps in zip(x.chunk(blocks, 1), weight.chunk(blocks, 0), M.chunk(blocks, 1), strict=True):
        parts = zip(X.chunk(inner_maps, 1), W.chunk(inner_maps, 1), maps.unbind(1), strict=True)
        terms = [filtered_conv2d(*part, None, stride, padding, dilation, inner_groups) for part in parts]
        Y.append(torch.stack(terms).sum(0) if len(terms) > 1 else terms[0])
    whole = torch.cat(Y, 1)
    return whole if bias is None else whole + bias[:, None, None].to(whole.dtype)


def maps_by_sub_kernel(M: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The map of each sub-kernel: M (S_h, S_w) or (G, S_h, S_w) for a weight (C, D / groups, S_h, S_w) -> its shape."""
    if M.dim() == 2:
        return M.expand_as(weight)
    C, D = weight.shape[0], weight.shape[1] * groups
    by_channel = M.repeat_interleave(D // len(M), 0).view(groups, -1, *M.shape[1:])  # (groups, D / groups, S_h, S_w)
    return by_channel.repeat_interleave(C // groups, 0)


def _standardized(x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    return (x - mu[:, :, None, None]) / sigma[:, :, None, None]
