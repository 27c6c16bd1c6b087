"""What the attacks share that look for the nearest image that fools: no budget, the distance reached is the result."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from shconv.attacks.base import CheckedAttack, Model
from shconv.attacks.budget import ANY_CHANGE, Budget, Norm, distances
from shconv.attacks.cost import Cost
from shconv.numbers import read_budgets


@dataclass(frozen=True)
class MinimalAttack(CheckedAttack):
    """An attack that changes an image as little as it can until the network is wrong.

    An image that is misclassified from the start, and one that the attack does not fool, come back as they were. So an
    image is right in the end or its distance says how far it had to go: `shconv.results.Results.curve` draws that.
    With epsilon, an image that had to go further, in the attack's norm (L2 where it has none), comes back too.
    """

    contiguous: ClassVar[bool] = True
    epsilon: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        read_budgets(self, "epsilon", norm=self._norm)

    def _made(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        found, y_t, queries = self.nearest(model, x, y, index, seed)
        if self.epsilon is not None:
            far = distances(found, x)[self._norm] > self.epsilon * (1 + 1e-6)
            found = torch.where(far[:, None, None, None], x, found)
        return found, y_t, queries

    @property
    def budget(self) -> Budget:
        return ANY_CHANGE if self.epsilon is None else Budget(self._norm, float(self.epsilon))

    @property
    def exact(self) -> bool:
        return True

    @property
    def _norm(self) -> Norm:
        return getattr(self, "norm", "l2")

    @abstractmethod
    def nearest(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """From checked x (N, C, H, W), y (N,): the images, y_t or None, int64 (N,) forward passes spent on each."""

    @property
    @abstractmethod
    def cost(self) -> Cost:
        """Passes over one image, at most."""
