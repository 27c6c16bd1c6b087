"""Projected gradient descent with restarts, losses and targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from shconv.attacks.ascent import adaptive_ascent, fixed_ascent
from shconv.attacks.ball import Ball
from shconv.attacks.base import Model, generators
from shconv.attacks.budget import Norm
from shconv.attacks.checks import check_choice, check_count, check_flag, check_logits
from shconv.attacks.cost import Cost
from shconv.attacks.losses import Loss, attack_loss, gradient_at, likeliest_wrong
from shconv.attacks.search import SearchAttack, Strongest
from shconv.attacks.spelling import other_names
from shconv.attacks.under_way import spread
from shconv.errors import InputError
from shconv.numbers import read_budgets

STREAM = 11


@other_names
@dataclass(frozen=True)
class PGD(SearchAttack):
    """Projected gradient ascent (Madry et al. 2018): `steps` gradient steps from each of `restarts` starts.

    The result is the strongest of all points that were visited. If a gradient is zero, NaN or absent, the pixel does
    not change, so a network that masks its gradient also stops this attack.

    Example:
        ```python
        adversarial = PGD("8/255", steps=20)(model, images, labels)
        ```

    Args:
        epsilon: the budget, as a number or "8/255"; for norm "l2" a length.
        norm: "linf" or "l2".
        steps: gradient steps from each start.
        restarts: number of starts.
        loss: what the steps increase.
        targets: k > 0 aims at each of the k likeliest wrong classes of the clean image in turn (at most all of them),
            with `restarts` starts each.
        random_start: draw starts uniformly from the ball; else start at the clean image.
        step_size: size of every step. None adapts the step and adds momentum (Auto-PGD, Croce and Hein 2020).
        samples: average logits and gradients over this many passes, for random networks (expectation over
            transformation, Athalye et al. 2018).
        until_broken: keep an image at its first misclassified point, and end when all are broken. This is cheaper.

    Each start takes steps + 1 forward passes; the clean image takes one more.
    """

    aims: ClassVar[bool] = True
    epsilon: float
    norm: Norm = "linf"
    steps: int = 50
    restarts: int = 1
    loss: Loss = "cross_entropy"
    targets: int = 0
    random_start: bool = True
    step_size: float | None = None
    samples: int = 1
    until_broken: bool = False

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, Norm)
        read_budgets(self, "epsilon", "step_size", norm=self.norm)
        check_count("steps", self.steps, 1)
        check_count("restarts", self.restarts, 1)
        check_choice("loss", self.loss, Loss)
        check_count("targets", self.targets, 0)
        check_flag("random_start", self.random_start)
        check_count("samples", self.samples, 1)
        check_flag("until_broken", self.until_broken)
        if self.restarts > 1 and not self.random_start:
            raise InputError(f"restarts: got {self.restarts} without random_start; want 1, they would all be the same")

    @property
    def cost(self) -> Cost:
        climbs = self.restarts * max(1, self.targets)
        return Cost(1 + climbs * (self.steps * self.samples + 1), climbs * self.steps * self.samples)

    def search(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        ball = Ball(x, self.epsilon, self.norm)
        strongest = Strongest(model, x, y, hold=self.until_broken, goal=goal)
        draws = generators(seed, STREAM, index)
        for target in self._aims(strongest.look(x), y, goal):
            for _ in range(self.restarts):
                start = ball.random(draws) if self.random_start else x
                try:
                    strongest.look(self._climb(ball, strongest, start, target))
                except _SettledError:
                    return strongest.images, strongest.queries
        return strongest.images, strongest.queries

    def _aims(self, logits: Tensor, y: Tensor, goal: Tensor | None) -> Iterator[Tensor | None]:
        if goal is not None or self.targets == 0:
            yield goal
        else:
            yield from likeliest_wrong(logits, y, self.targets)

    def _climb(self, ball: Ball, strongest: Strongest, start: Tensor, target: Tensor | None) -> Tensor:
        def slope(x: Tensor) -> tuple[Tensor, Tensor]:
            if strongest.settled:
                raise _SettledError
            return self._slope(strongest, x, target)

        if self.step_size is None:
            return adaptive_ascent(ball, slope, start, self.steps)
        return fixed_ascent(ball, slope, start, self.steps, self.step_size)

    def _slope(self, strongest: Strongest, x: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """The loss (N,) at x and its gradient, 0 where images pass no more; x is offered as a candidate on the way."""
        here = strongest.here
        z, y, aim = x.detach()[here].requires_grad_(), strongest.y[here], None if target is None else target[here]
        gradient, losses, logits = torch.zeros_like(z), [], []
        for _ in range(self.samples):
            logits.append(check_logits(strongest.model(z), y))
            losses.append(attack_loss(self.loss, logits[-1], y, aim))
            gradient += gradient_at(z, losses[-1])
        with torch.no_grad():
            found = torch.stack(logits).mean(0), torch.stack(losses).mean(0), gradient.nan_to_num(0.0)
            seen, loss, slope = (spread(part, here, len(x)) for part in found)
            strongest.offer(x.detach(), seen, self.samples)
            return loss, slope


class _SettledError(Exception):
    """No image can change any more."""
