"""Mean / std normalisation as the network's own first step, so that every attack acts on images in [0, 1].
Its constants are no part of the state_dict: weights with and without it have the same names."""

import functools
from typing import Literal

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.ops.modes import transforming
from shconv.tracing import as_leaf, traced

Normalization = None | Literal["imagenet"] | tuple[tuple[float, ...], tuple[float, ...]]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalize(nn.Module):
    """(x - mean) / std by channel: (N, D, H, W) -> (N, D, H, W), in x's dtype.

    The constants are numbers and no buffers: whatever replaces a network's tensors (meta devices, to_empty, deferred
    initialisation) leaves them be.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)

    def forward(self, x: Tensor) -> Tensor:
        if traced(x):
            return as_leaf(self, x)
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return (x - _by_channel(self.mean, dtype, x)) / _by_channel(self.std, dtype, x)

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"


def _by_channel(values: tuple[float, ...], dtype: torch.dtype, x: Tensor) -> Tensor:
    """The values as (D, 1, 1) beside x; a copy to an accelerator is made once, as each would wait for it."""
    if x.device.type == "cpu" or type(x) is not Tensor or torch.compiler.is_compiling() or transforming():
        return torch.tensor(values, dtype=dtype, device=x.device).view(-1, 1, 1)
    return _kept(values, dtype, x.device)


@functools.lru_cache(maxsize=64)
def _kept(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # one made in inference mode could not serve a gradient later
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def make_normalize(normalize: Normalization, in_channels: int) -> nn.Module:
    """None: nothing (the paper's [0, 1] input); "imagenet": ImageNet's constants; or (mean, std) by channel.

    Raises:
        InputError: another name, or not one positive std and one mean for each channel.
    """
    if normalize is None:
        return nn.Identity()
    if isinstance(normalize, str):
        if normalize != "imagenet":
            raise InputError(f'normalize must be None, "imagenet" or (mean, std), got {normalize!r}')
        normalize = _IMAGENET
    try:
        mean, std = (tuple(float(value) for value in values) for values in normalize)
    except (TypeError, ValueError):
        raise InputError(f"normalize wants (mean, std), each a number for every channel, got {normalize!r}") from None
    if len(mean) != in_channels or len(std) != in_channels or min(std) <= 0:
        raise InputError(f"normalize wants {in_channels} means and {in_channels} positive stds, got {mean} and {std}")
    return Normalize(mean, std)
