"""SHC networks whose filter maps ignore some or all of their image's statistics, with the same weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shconv.audit.checks.side import Batch
from shconv.layers import Hypernetwork, channel_statistics
from shconv.routes import frozen_kernels, shc_layers
from shconv.routes.record import changed

Maps = Callable[[Tensor], Tensor]  # a layer's input (N, D, H, W) -> M (N, S_h, S_w)


class Means(NamedTuple):
    """Of one layer, over images."""

    map: Tensor  # M (S_h, S_w)
    statistics: Tensor  # (D * len(statistics),)


@torch.no_grad()
def layer_means(model: nn.Module, batches: Iterator[Batch]) -> dict[str, Means]:
    """By layer, the means of its filter maps and of its statistics over the images."""
    sums: dict[str, Means] = {}
    counts = dict.fromkeys(shc_layers(model), 0)

    def add(name: str, hyper: nn.Module, x: Tensor, M: Tensor) -> None:
        s = x.new_zeros(len(x), 0)  # of another module in the hypernetwork's place
        if isinstance(hyper, Hypernetwork):
            s = channel_statistics(x, hyper.statistics, hyper.eps)
        now = Means(M.sum(0), s.sum(0))
        sums[name] = Means(*(a + b for a, b in zip(sums[name], now, strict=True))) if name in sums else now
        counts[name] += len(x)

    with ExitStack() as hooks:
        for name, layer in shc_layers(model).items():
            note = layer.hyper.register_forward_hook(lambda hyper, inputs, M, name=name: add(name, hyper, inputs[0], M))
            hooks.enter_context(note)
        for batch in batches:
            model(batch.x)
    return {name: Means(*(total / counts[name] for total in each)) for name, each in sums.items()}


def only(model: nn.Module, statistic: str, means: Mapping[str, Means]) -> AbstractContextManager[None]:
    """Inside, the hypernetworks see one of "mean" and "std" of their image; the other is held at its mean."""

    def of(hyper: Hypernetwork, held: Tensor) -> Maps:
        def maps(x: Tensor) -> Tensor:
            s = channel_statistics(x, hyper.statistics, hyper.eps).unflatten(1, (len(hyper.statistics), -1))
            own = torch.tensor([name == statistic for name in hyper.statistics], device=x.device)
            return hyper.maps(torch.where(own[:, None], s, held.view(s.shape[1:])).flatten(1))

        return maps

    layers = shc_layers(model)
    maps = {name: of(layers[name].hyper, each.statistics) for name, each in means.items()}
    return changed({layers[name]: {"frozen": each} for name, each in maps.items()})


def shuffled_maps(model: nn.Module, x: Tensor) -> AbstractContextManager[None]:
    """Inside, each image of the batch x (N, C, H, W) has the maps of its neighbour in the batch."""
    return frozen_kernels(model, x.roll(1, 0))
