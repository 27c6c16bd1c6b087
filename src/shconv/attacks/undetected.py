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
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        index: Index | None = None,
        seed: SupportsIndex = 0,
        targeted: Tensor | None = None,
    ) -> AttackResult:
        if not hasattr(model, "joint"):
            return super().run(model, images, labels, index=index, seed=seed, targeted=targeted)
        if targeted is not None:
            raise InputError(f"{type(self).__name__} cannot aim at given classes where a network has a detector")
        x, y, places = self.checked(images, labels, index, seed)
        found, queries = x.clone(), torch.zeros_like(y)
        for label in y.unique().tolist():
            at = (y == label).nonzero()[:, 0]
            result = super().run(Joint(model, label), x[at], y[at], index=[places[i] for i in at.tolist()], seed=seed)
            found[at], queries[at] = result.images, result.queries
        return AttackResult(found, None, queries, distances(found, x))


@other_names
@dataclass(frozen=True)
class UndetectedPGD(Undetected, PGD):
    """PGD past the detector: each step climbs the loss of whichever of the two is still to be fooled."""
