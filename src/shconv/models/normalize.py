"""Mean / std normalisation as the network's own first step, so that every attack acts on images in [0, 1].
Its constants are no part of the state_dict: weights with and without it have the same names."""

from typing import Literal

import torch
from torch import Tensor, nn

from shconv.errors import InputError

Normalization = None | Literal["imagenet"] | tuple[tuple[float, ...], tuple[float, ...]]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalize(nn.Module):
    """(x - mean) / std by channel: (N, D, H, W) -> (N, D, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


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
