"""The filter maps of every SHC layer: what they are on some images, how much they differ between images, how near they
are to saturation, how strongly they follow their layer's input, and what is lost where they stop following it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shconv.eval_mode import eval_mode
from shconv.experiments.network import finite
from shconv.experiments.outcomes import predicted
from shconv.layers import Hypernetwork
from shconv.routes import constant_maps, record_filter_maps, shc_layers

LOW, HIGH = 0.05, 0.95  # a sigmoid beyond these hardly moves any more: its slope is below a fifth of the largest


@dataclass(frozen=True, eq=False)
class Recorded:
    """Of one SHC layer on N images: its input X (N, D, H, W) and its maps M (N, S_h, S_w) or (N, G, S_h, S_w)."""

    x: Tensor
    M: Tensor


def recorded(model: nn.Module, x: Tensor) -> dict[str, Recorded]:
    """Inputs and maps by layer name, on images x (N, C, H, W), in eval mode; of a layer called twice the last call.

    Raises InputError for a network without SHC layers.
    """
    with record_filter_maps(model) as maps, _inputs(model) as inputs, eval_mode(model), torch.no_grad():
        model(x)
        return {name: Recorded(inputs[name], M) for name, M in maps.items()}


@contextmanager
def _inputs(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    held: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            held[name] = arguments[0].detach()

        return keep

    with ExitStack() as hooks:
        for name, layer in shc_layers(model).items():
            hooks.enter_context(layer.register_forward_pre_hook(keeper(name)))
        yield held


def mean_maps(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each layer's mean over the images: M (N, ...) -> (...)."""
    return {name: M.mean(0) for name, M in maps.items()}


def spread(M: Tensor) -> float:
    """How much maps (N, ...) differ between images: the standard deviation of a tap, the mean over the taps."""
    return float(M.double().std(0, correction=0).mean())


def saturation(hyper: nn.Module, M: Tensor) -> float | None:
    """The share of taps, over images, at which the sigmoid is below LOW or above HIGH; None where it is no sigmoid."""
    if not isinstance(hyper, Hypernetwork) or hyper.activation != "sigmoid":
        return None
    s = M if hyper.gain is None else M / float(hyper.gain)
    return float(((s < LOW) | (s > HIGH)).double().mean())


@torch.no_grad()
def active_neurons(hyper: nn.Module, x: Tensor) -> Tensor | None:
    """bool (K,): the hidden neurons that are above 0 on some image of x; None where the hypernetwork is another one."""
    if not isinstance(hyper, Hypernetwork):
        return None
    active: list[Tensor] = []
    with hyper.hidden.register_forward_hook(lambda _, __, out: active.append((out > 0).any(0))):
        hyper(x)
    return active[0]


def sensitivity(hyper: nn.Module, x: Tensor) -> Tensor:
    """|dM/dX| (N,): the Frobenius norm of the map's derivative by the layer's input x (N, D, H, W).

    How far M moves at most where x moves by a length of 1. One backward pass through the hypernetwork a tap.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        M = hyper(x).flatten(1)
        squares = x.new_zeros(len(x))
        for tap in range(M.shape[1]):
            (slope,) = torch.autograd.grad(M[:, tap].sum(), x, retain_graph=True, materialize_grads=True)
            squares += slope.flatten(1).square().sum(1)
    return squares.sqrt()


def shifts(model: nn.Module, clean: Mapping[str, Recorded], x: Tensor) -> dict[str, Tensor]:
    """By layer, how far the map of each image (N,) moves in L2 from the clean image's to that of x (N, C, H, W)."""
    with record_filter_maps(model) as maps, eval_mode(model), torch.no_grad():
        model(x)
        return {name: (maps[name] - held.M).flatten(1).norm(dim=1) for name, held in clean.items()}


@torch.no_grad()
def without(model: nn.Module, maps: Mapping[str, Tensor], x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """What holding these maps, by layer name, at one value for all images does to logits (N, K): how far each image's
    move, in L2 over the length of the clean ones about their mean (N,), and the classes then predicted (N,), -1 where
    there is none."""
    with constant_maps(model, maps), eval_mode(model):
        other = model(x)
    about = logits - logits.mean(1, keepdim=True)
    moved = (finite(other) - logits).norm(dim=1) / about.norm(dim=1).clamp_min(torch.finfo(logits.dtype).tiny)
    return moved, predicted(other)
