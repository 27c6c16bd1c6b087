"""Gradients along one of the back-propagation routes of section 2.2, or along both."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from shconv.arguments import checked
from shconv.errors import InputError
from shconv.routes.record import changed, shc_layers
from shconv.tracing import as_leaf, traced

ROUTES = ("both", "convolution", "hypernetwork")


@checked
@contextmanager
def gradient_route(model: nn.Module, route: str, hypernetwork_weight: float = 1.0) -> Iterator[None]:
    """Let gradients pass through one route of every SHC layer, or both. The outputs do not change.

    Example:
        ```python
        with shconv.gradient_route(model, "convolution"):
            adversarial = attack(model, images, labels)
        ```

    Args:
        model: a network with SHC layers.
        route: "convolution" holds M constant (the paper's SHC-W). "hypernetwork" holds the convolution's input constant
            (SHC-T). "both" is the whole gradient.
        hypernetwork_weight: factor on the hypernetwork route's part of the gradient, for "both".

    Only the gradient of a layer's input changes; the hypernetwork's own parameters keep theirs. Layers without a
    hypernetwork (1x1 convolutions, shortcuts) pass gradients as usual. A route holds in all threads.
    What torch.utils.checkpoint runs again during backward() has the route of its forward pass, also after the `with`
    block. Only if a compiled layer is inside an eager checkpoint, call backward() inside the block.

    Raises:
        InputError: unknown route; a single route on a network without SHC layers.
    """
    if route not in ROUTES:
        raise InputError(f"unknown gradient route {route!r}, choose from {', '.join(ROUTES)}")
    weights = {
        "both": {"convolution": 1.0, "hypernetwork": float(hypernetwork_weight)},
        "convolution": {"convolution": 1.0, "hypernetwork": 0.0},
        "hypernetwork": {"convolution": 0.0, "hypernetwork": float(hypernetwork_weight)},
    }[route]
    layers = shc_layers(model)
    if not layers and route != "both":
        raise InputError(f"{type(model).__name__} has no SHC layer, so it has no {route} route to single out")
    with changed(dict.fromkeys(layers.values(), weights)):
        yield


class HypernetworkPaths(nn.Module):
    """A network whose gradient is that of both routes less that of the convolution route: only the paths that pass
    through at least one filter map remain. Its outputs are the network's; a pass costs two of the network's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        if traced(x):
            return as_leaf(self, x)
        logits: Tensor = self.model(x)
        with gradient_route(self.model, "convolution"):
            without: Tensor = self.model(x)
        return logits - without + without.detach()


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself, with its gradient multiplied by factor."""
    if factor == 1:
        return x
    return x.detach() if factor == 0 else torch.lerp(x.detach(), x, factor)
