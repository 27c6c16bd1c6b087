"""Before a network's first step on a GPU: the kernels of its filtered convolutions compile side by side."""

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from shconv.layers import SHConv2d
from shconv.ops.cuda.ahead import begin, wait
from shconv.routes import ROUTES, gradient_route
from shconv.training.checkpoint import ModelConfig
from shconv.training.learner import Learner, autocast_dtype, layout_of
from shconv.training.recipe import Recipe

_IMAGES = 8  # kernels are the same for any number


def begin_compiling(configs: Iterable[ModelConfig], recipe: Recipe, shape: Sequence[int], device: torch.device) -> None:
    """Begins to compile what `compiled_ahead` will wait for, for networks that are trained later, one after the other,
    on images of such a shape (C, H, W). No random state changes."""
    if device.type != "cuda":
        return
    layout = layout_of(recipe)
    with torch.random.fork_rng(devices=[device]):
        networks = _with_maps(config.build().to(device).to(memory_format=layout) for config in configs)
        passes = [_passes(each, autocast_dtype(recipe, device, each), layout, shape, device) for each in networks]
        for runs in zip(*passes, strict=True):  # what is trained with first: it compiles while the rest is collected
            begin(runs, device)


def compiled_ahead(learner: Learner, image: Tensor) -> Callable[[], None]:
    """Compiles what training on such images (C, H, W) launches, and begins with what attacks on the trained network do
    in float32; what is returned waits for that. Neither the network nor a random state changes."""
    device = learner.device
    if device.type != "cuda" or not _with_maps([learner.network]):
        return lambda: None
    own = copy.deepcopy(learner.network)
    with torch.random.fork_rng(devices=[device]):
        trained, attacked = _passes(own, learner.dtype, learner.layout, image.shape, device)
        wait(begin([trained], device))
        rest = begin([attacked], device)
    return lambda: wait(rest)


def _with_maps(networks: Iterable[nn.Module]) -> list[nn.Module]:
    return [each for each in networks if any(isinstance(module, SHConv2d) for module in each.modules())]


def _passes(
    network: nn.Module,
    dtype: torch.dtype | None,
    layout: torch.memory_format,
    shape: Sequence[int],
    device: torch.device,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step and an evaluation; attacks through every route. The network is not the same afterwards."""
    images = torch.zeros(_IMAGES, *shape, device=device).contiguous(memory_format=layout)

    def trained() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = network.train()(images).sum()
        loss.backward()
        with torch.no_grad():
            network.eval()(images)

    def attacked() -> None:
        network.eval().requires_grad_(False)
        for route in ROUTES:
            with gradient_route(network, route):
                network(images.clone().requires_grad_()).sum().backward()

    return trained, attacked
