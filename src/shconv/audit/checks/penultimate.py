"""The features that a network's last linear layer reads, and a network that reads something else from them."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from shconv.audit.subject import Subject
from shconv.routes import shc_layers


class Features:
    """x (n, C, H, W) -> (n, F): what enters the linear layer that the network calls last, with its graph.

    `missing` says why there is none. A random network's are the mean of its passes.
    """

    def __init__(self, subject: Subject, x: Tensor) -> None:
        self.model, self.missing = subject.model, ""
        self.layer = self._last_called(subject.network, x)
        if self.layer is None:
            self.missing = "it has no linear layer at its end whose features could be read"

    def __call__(self, x: Tensor) -> Tensor:
        taken: list[Tensor] = []
        assert self.layer is not None
        with self.layer.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0])):
            self.model(x)
        return torch.stack(taken).mean(0)

    @property
    def size(self) -> int:
        return 0 if self.layer is None else self.layer.in_features

    @torch.no_grad()
    def _last_called(self, network: nn.Module, x: Tensor) -> nn.Linear | None:
        called: list[tuple[nn.Linear, Tensor]] = []
        inner = {part for layer in shc_layers(network).values() for part in layer.modules()}  # hypernetworks
        with ExitStack() as hooks:
            for layer in network.modules():
                if isinstance(layer, nn.Linear) and layer not in inner:
                    note = layer.register_forward_pre_hook(lambda own, inputs: called.append((own, inputs[0])))
                    hooks.enter_context(note)
            self.model(x)
        if not called or called[-1][1].dim() != 2 or len(called[-1][1]) != len(x):
            return None
        return called[-1][0]


class Binary(nn.Module):
    """Logits (n, 2) of a linear read-out of the features, another one for each image of a batch.

    w (n, F), b (n,): class 1 where <w, f> + b > 0, and as far apart as `scale` (n,) says.
    """

    steady = False  # Python runs at every call, which a replayed graph would leave out
    holds_a_batch = True

    def __init__(self, features: Features, w: Tensor, b: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.network = features.model  # so that its mode and its parameters are taken care of
        self.features, self.w, self.b, self.scale = features, w, b, scale

    def forward(self, x: Tensor) -> Tensor:
        s = self.scale * ((self.features(x) * self.w).sum(1) + self.b)
        return torch.stack([-s, s], 1) / 2
