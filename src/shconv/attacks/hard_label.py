"""Attacks that see decisions only, no scores and no gradients, through foolbox."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from shconv.attacks.ball import Ball
from shconv.attacks.base import Model
from shconv.attacks.budget import Norm
from shconv.attacks.checks import check_choice, check_count
from shconv.attacks.cost import Cost
from shconv.attacks.search import SearchAttack, own_randomness
from shconv.attacks.spelling import other_names
from shconv.errors import InputError
from shconv.numbers import read_budgets

STREAM = 14
Kind = Literal["boundary", "hop_skip_jump"]
STEPS: dict[Kind, int] = {"boundary": 5000, "hop_skip_jump": 20}  # by default: about 5500 and 7500 queries
NOISES, BLENDS, PEPPERS = 100, 50, 100  # tried as a start


@other_names
@dataclass(frozen=True)
class HardLabel(SearchAttack):
    """The boundary attack (Brendel et al. 2018) or HopSkipJump (Chen et al. 2020). They use only the predicted class.

    Both start from a misclassified image, made by blending in uniform noise or else salt and pepper, and reduce its
    distance. The search of an image ends at the first misclassified point within epsilon; an image without one is
    returned unchanged. The boundary attack reduces the L2 distance, also for an L-infinity budget. Each image is
    searched in its own batches, seeded by (seed, index), so it does not depend on other images. Kernels frozen for a
    batch cannot be used. Needs foolbox.
    """

    together: ClassVar[int | None] = 8  # a batch is no gain: few lose less by a stop

    kind: Kind
    epsilon: float
    norm: Norm = "linf"
    steps: int | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, Kind)
        check_choice("norm", self.norm, Norm)
        read_budgets(self, "epsilon", norm=self.norm)
        if self.steps is not None:
            check_count("steps", self.steps, 1)

    @property
    def _steps(self) -> int:
        return STEPS[self.kind] if self.steps is None else self.steps

    @property
    def cost(self) -> Cost:
        """Also the limit of a search: foolbox's line search has none of its own."""
        starting = 2 + NOISES + BLENDS + 1 + PEPPERS + 2  # the clean image, two starts, and a look at each
        if self.kind == "boundary":
            return Cost(starting + 1 + self._steps + self._steps // 10, 0)
        probes = sum(min(int(100 * math.sqrt(k + 1)), 10_000) for k in range(self._steps))
        return Cost(starting + 60 + probes + 60 * self._steps, 0)

    def search(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        try:
            from shconv.attacks.decisions import Decisions, attack_of_foolbox, search_image
        except ImportError as error:
            raise InputError("HardLabel needs the package foolbox: pip install foolbox") from error
        found, queries = x.clone(), torch.zeros_like(y)
        for i, place in enumerate(index):
            own = int(np.random.SeedSequence([seed, STREAM, place]).generate_state(1, np.uint64)[0])
            ball = Ball(x[i : i + 1], self.epsilon, self.norm)
            decisions = Decisions(model, ball, y[i : i + 1], int(self.cost.forwards))
            with own_randomness(x.device, own), torch.no_grad():
                search_image(decisions, attack_of_foolbox(self.kind, self.norm, self._steps), NOISES, BLENDS, PEPPERS)
            queries[i] = decisions.queries
            if decisions.found is not None:
                found[i] = decisions.found[0]
        return found, queries
