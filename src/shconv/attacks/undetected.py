"""Attacks that fool a classifier and its detector together (Carlini and Wagner 2017): any attack of ours, on logits in
which an image is misclassified only where the detector does not reject it."""

from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from shconv.attacks.base import AttackResult, Model
from shconv.attacks.budget import distances
from shconv.attacks.checks import Index
from shconv.attacks.pgd import PGD
from shconv.attacks.search import SearchAttack
from shconv.attacks.spelling import other_names
from shconv.errors import InputError


class Joint(nn.Module):
    """A network that has a method joint(x, y), as its attacks see it for images of one class y."""

    def __init__(self, network: Any, y: int) -> None:
        super().__init__()
        self.network, self.y = network, y

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network.joint(x, self.y)
        return logits


@dataclass(frozen=True)
class Undetected(SearchAttack):
    """Before the class of an attack that searches: past the detector of a network that has one, else itself.

    A network with a detector has a method joint(x, y): the logits (N, K) for images x whose true class is y, wrong
    where classifier and detector are both fooled. Images are attacked class by class, as y is no part of an image.
    """

    def run(
        self, model: Model, images: Tensor, labels: Tensor, *, index: Index | None = None, seed: SupportsIndex = 0
    ) -> AttackResult:
        if not hasattr(model, "joint"):
            return super().run(model, images, labels, index=index, seed=seed)
        x, y, places = self.checked(images, labels, index, seed)
        found, target, queries = x.clone(), torch.full_like(y, -1), torch.zeros_like(y)
        for label in y.unique().tolist():
            at = (y == label).nonzero()[:, 0]
            own = [places[i] for i in at.tolist()]
            result = super().run(Joint(model, label), x[at], y[at], index=own, seed=seed)
            found[at], queries[at] = result.images, result.queries
            if result.target is not None:
                target[at] = result.target
        return AttackResult(found, target if bool((target >= 0).all()) else None, queries, distances(found, x))

    def run_towards(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        targeted: Tensor,
        *,
        index: Index | None = None,
        seed: SupportsIndex = 0,
    ) -> AttackResult:
        """Only where there is no detector: past one there is no aim at given classes."""
        if hasattr(model, "joint"):
            raise InputError(f"{type(self).__name__} cannot aim at given classes where a network has a detector")
        return super().run_towards(model, images, labels, targeted, index=index, seed=seed)


@other_names
@dataclass(frozen=True)
class UndetectedPGD(Undetected, PGD):
    """PGD past the detector: each step climbs the loss of whichever of the two is still to be fooled."""
