"""The identity start: every map is held at one constant and the kernel made up for it, so that a converted network
computes, at first, what it computed before."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.layers import Hypernetwork, SHConv2d
from shconv.variants import activate


@torch.no_grad()
def start_at_identity(layers: Iterable[SHConv2d]) -> None:
    """Zero the last layer of every hypernetwork and divide the weight by the map that this gives: 1/2 with the sigmoid.

    A weight that several layers share is divided once; a layer with a gain takes the factor there.

    Raises:
        InputError: an activation of zero that is not one positive number in every tap.
    """
    scaled: set[Tensor] = set()
    for layer in layers:
        factor = 1 / _at_zero(layer.hyper)
        nn.init.zeros_(layer.hyper.output.weight)
        nn.init.zeros_(layer.hyper.output.bias)
        if layer.hyper.gain is not None:
            layer.hyper.gain.fill_(factor)
        elif layer.weight not in scaled:
            layer.weight.mul_(factor)
            scaled.add(layer.weight)


@torch.no_grad()
def resting_level(layer: SHConv2d) -> float:
    """What every tap of the map is where the last layer of its hypernetwork gives zero; with the gain, if there is one.

    Raises InputError as start_at_identity does, and where the hypernetwork is a module of somebody else's.
    """
    level, gain = _at_zero(layer.hyper), layer.hyper.gain
    return level if gain is None or gain.is_meta else level * float(gain)


def _at_zero(hyper: nn.Module) -> float:
    if not isinstance(hyper, Hypernetwork):
        raise InputError(
            f"a {type(hyper).__name__} in the hypernetwork's place has maps without a known starting value"
        )
    M = activate(hyper.activation, torch.zeros(1, *hyper.map_size, dtype=torch.float64, device="cpu"))
    level = float(M.flatten()[0])
    if M.unique().numel() > 1 or not 0 < level < float("inf"):
        raise InputError(
            f"an identity start needs an activation that is one positive number at zero, got {M.flatten().tolist()}"
        )
    return level
