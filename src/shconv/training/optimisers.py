"""What moves the weights: SGD with momentum, as the paper has it, or AdamW; and the exponential mean of the weights."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from shconv.training.recipe import Recipe


def create_optimizer(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's, over parameter groups that each say their weight decay."""
    on_cuda = groups[0]["params"][0].device.type == "cuda"
    fused: dict[str, Any] = {"fused": True} if on_cuda else {}  # one kernel for all; on a CPU it rounds otherwise
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, recipe.learning_rate, **fused)
    return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum, nesterov=recipe.nesterov, **fused)


class WeightMean:
    """The exponential mean of a network's weights and running statistics over the steps of a training.

    After step t = 1, 2, ... the mean moves to the weights by 1 - min(decay, (1 + t) / (10 + t)): the first steps, whose
    weights are nearly random, are soon forgotten, in a short training too.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0
        self._means, self._counts = _parts(self.network)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Takes in the weights after a step. `network` has the tensors of the one that the mean began with."""
        self.steps += 1
        weights, counts = _parts(network)
        move = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._means, weights, move)
        for own, given in zip(self._counts, counts, strict=True):
            own.copy_(given)

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "model": self.network.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.steps = int(state["steps"])
        self.network.load_state_dict(state["model"])


def _parts(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """(parameters and buffers that have a mean, those that count)."""
    tensors = [*network.parameters(), *network.buffers()]
    return [each for each in tensors if each.is_floating_point()], [
        each for each in tensors if not each.is_floating_point()
    ]
