"""Ensemble adversarial training: Tramer et al. 2017. Many of the examples come from other, static networks, so that the
trained one gains nothing by giving gradients that point nowhere."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.numbers import read_budgets
from shconv.training.defences.base import Defence, Step, Trained, ascent, crafting
from shconv.training.defences.source import Source


@dataclass(frozen=True, eq=False)
class Ensemble(Defence):
    """Trains on clean and attacked images, half and half: one step of eps whose gradient is that of the network itself
    or of a source, drawn anew for every batch with even odds.

    As in the authors' code the step climbs the cross-entropy of the class that the attacked network predicts: from the
    true one an image's label could be read off its perturbation. Both halves pass the network as one batch.
    eps is a share of 1. Raises InputError for one out of range, and without sources.
    """

    name, needs_sources = "ensemble", True
    sources: tuple[Source, ...]
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        read_budgets(self, "eps", above=True)
        if not self.sources:
            raise InputError("defence ensemble takes gradients from trained networks: give at least one as its source")

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        drawn = int(torch.randint(len(self.sources) + 1, (), generator=step.generator, device=x.device))
        network = model if drawn == 0 else self.sources[drawn - 1].network.to(x.device)
        attacked = self._attacked(network, x, step)
        logits = step.logits(model, torch.cat([x, attacked]))  # (2 B, K)
        return Trained(step.cross_entropy(logits, y.repeat(2)), *logits.chunk(2))

    def _attacked(self, network: nn.Module, x: Tensor, step: Step) -> Tensor:
        with crafting(network):
            with torch.no_grad():
                predicted = step.logits(network, x).argmax(1)
            return (x + self.eps * ascent(network, x, predicted, step)).clamp(0, 1)

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "eps": self.eps, "sources": [each.record() for each in self.sources]}
