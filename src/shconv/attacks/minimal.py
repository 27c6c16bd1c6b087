"""What the attacks share that look for the nearest image that fools: no budget, the distance reached is the result."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index as as_integer
from typing import SupportsIndex

import torch
from torch import Tensor

from shconv.attacks.base import Attack, AttackResult, Model, borrowed
from shconv.attacks.budget import distances
from shconv.attacks.checks import Index, check_inputs
from shconv.attacks.cost import Cost
from shconv.errors import InputError


@dataclass(frozen=True)
class MinimalAttack(Attack):
    """An attack that changes an image as little as it can until the network is wrong.

    An image that is misclassified from the start, and one that the attack does not fool, come back as they were. So an
    image is right in the end or its distance says how far it had to go: `shconv.results.Results.curve` draws that.
    """

    def run(
        self, model: Model, images: Tensor, labels: Tensor, *, index: Index | None = None, seed: SupportsIndex = 0
    ) -> AttackResult:
        with borrowed(model):
            x, y, places = check_inputs(images, labels, index, seed)
            if x.dtype not in (torch.float32, torch.float64):
                raise InputError(f"images: got {x.dtype}; want float32 or float64, in which distances are exact enough")
            x = x.contiguous()  # so that sums round alike in any layout
            found, y_t, queries = self.nearest(model, x, y, places, as_integer(seed))
        return AttackResult(found, y_t, queries, distances(found, x))

    @abstractmethod
    def nearest(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """From checked x (N, C, H, W), y (N,): the images, y_t or None, int64 (N,) forward passes spent on each."""

    @property
    @abstractmethod
    def cost(self) -> Cost:
        """Passes over one image, at most."""
