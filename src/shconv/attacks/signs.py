"""Random sign noise: what no gradient was needed for, gradients should not have missed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from shconv.attacks.ball import Ball
from shconv.attacks.base import Model, generators
from shconv.attacks.checks import check_count
from shconv.attacks.cost import Cost
from shconv.attacks.search import SearchAttack, Strongest
from shconv.attacks.spelling import other_names
from shconv.numbers import read_budgets

STREAM = 13
CHUNK = 64  # draws prepared at once


@other_names
@dataclass(frozen=True)
class RandomSigns(SearchAttack):
    """x + epsilon s with s uniform in {-1, 1}^(C, H, W), `draws` times: random corners of the L-infinity ball.

    An image keeps the first draw that breaks it. A gradient attack must be stronger than this brute force (Carlini et
    al. 2019, section 5).
    """

    aims: ClassVar[bool] = True
    epsilon: float
    draws: int = 10_000

    def __post_init__(self) -> None:
        read_budgets(self, "epsilon")
        check_count("draws", self.draws, 1)

    @property
    def cost(self) -> Cost:
        return Cost(1 + self.draws, 0)

    def search(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        ball, strongest = Ball(x, self.epsilon, "linf"), Strongest(model, x, y, hold=True, goal=goal)
        strongest.look(x)
        sources = generators(seed, STREAM, index)
        for done in range(0, self.draws, CHUNK):
            signs = torch.from_numpy(np.stack([_signs(g, x[0].numel()) for g in sources], 1))  # (CHUNK, N, C H W)
            for s in signs[: self.draws - done]:
                if strongest.settled:
                    return strongest.images, strongest.queries
                strongest.look(ball.project(x + self.epsilon * s.to(x).view_as(x)))
        return strongest.images, strongest.queries


def _signs(generator: np.random.Generator, size: int) -> np.ndarray:
    """int8 (CHUNK, size) of -1 and 1, eight from each random byte."""
    packed = generator.integers(0, 256, (CHUNK, -(-size // 8)), np.uint8)
    return 2 * np.unpackbits(packed, 1, count=size).astype(np.int8) - 1
