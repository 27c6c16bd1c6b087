"""The box-constrained L-BFGS attack (Szegedy et al. 2013; Tabacof and Valle 2016)."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks.aims import Aim, Goal, aims, reached
from shconv.attacks.base import Model, generators
from shconv.attacks.checks import check_choice, check_count, check_logits
from shconv.attacks.cost import Cost
from shconv.attacks.lockstep import Ask, in_lockstep
from shconv.attacks.losses import gradient_at
from shconv.attacks.minimal import MinimalAttack
from shconv.attacks.spelling import other_names
from shconv.attacks.under_way import passing
from shconv.numbers import read_numbers
from shconv.routes import holds_a_batch

STREAM = 16
TO_THE_END = {"gtol": 0.0, "ftol": 0.0}  # scipy's own take a small gradient, of a large image say, for the end


@other_names
@dataclass(frozen=True)
class LBFGS(MinimalAttack):
    """Minimises c ||r||_2^2 + CE(x + r, y_t) in the box by scipy's L-BFGS-B, for a c that leaves the smallest r.

    The larger c, the nearer the image and the sooner it is not fooled any more. From `c` on, c is divided by 10 until
    the image is fooled (or multiplied by 10 until it is not), then the step between is halved on the scale of log c:
    `searches` minimisations in all, of at most `iterations` passes each, every one from the nearest image found so far.
    Of all points passed, the nearest one that is fooled is kept.
    goal="targeted" wants the class y_t itself, "untargeted" any wrong class. aim says what y_t is, a random wrong class
    or the likeliest one; with targets=k it is each of k classes in turn, the nearest image is kept, and its class is
    the result's target. Every image has a solver of its own, and all their passes are made together as one batch. A
    solver needs about 200 bytes of the host's memory for each value of its image.
    """

    goal: Goal = "targeted"
    aim: Aim = "random"
    targets: int = 1
    c: float = 1.0
    searches: int = 10
    iterations: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("goal", self.goal, Goal)
        check_choice("aim", self.aim, Aim)
        check_count("targets", self.targets, 1)
        read_numbers(self, "c", above=True)
        check_count("searches", self.searches, 1)
        check_count("iterations", self.iterations, 1)

    @property
    def cost(self) -> Cost:
        passes = self.targets * self.searches * self.iterations
        return Cost(1 + passes, passes)

    def nearest(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        with torch.no_grad():
            logits = check_logits(model(x), y)
        right = (logits.argmax(1) == y).nonzero()[:, 0].tolist()
        classes = torch.stack(aims(self.aim, self.targets, logits, y, generators(seed, STREAM, index)))
        searches = {i: _Search(x[i], classes[:, i].tolist(), self) for i in right}
        in_lockstep(
            {i: searches[i].run for i in right}, partial(self._answers, model, x.clone(), y, classes[0].clone())
        )
        found, y_t, queries = x.clone(), classes[0].clone(), torch.ones_like(y)
        for i, search in searches.items():
            queries[i] += search.queries
            if search.best is not None:
                found[i] = torch.from_numpy(search.best.point).view_as(x[i]).to(x)
                y_t[i] = search.best.target
        return found, y_t, queries

    def _answers(
        self, model: Model, held: Tensor, y: Tensor, towards: Tensor, asked: Mapping[int, "_Question"]
    ) -> list["_Answer"]:
        """One pass; images that go with it but that nobody asks about stay at the point held from before."""
        places = torch.tensor(list(asked), device=y.device)
        points = torch.from_numpy(np.stack([question.point for question in asked.values()]))
        held[places] = points.view(-1, *held.shape[1:]).to(held).clamp(0.0, 1.0)
        towards[places] = torch.tensor([question.target for question in asked.values()]).to(towards)
        wanted = torch.zeros_like(y, dtype=torch.bool).index_fill(0, places, True)
        here = passing(wanted, holds_a_batch(model))
        z = held[here].requires_grad_()
        logits = check_logits(model(z), y[here])
        loss = F.cross_entropy(logits.double(), towards[here], reduction="none")
        slope = gradient_at(z, loss).nan_to_num(0.0)
        fooled = reached(self.goal, logits.detach(), y[here], towards[here])
        at, losses, slopes, hits = (part[wanted[here]].cpu() for part in (z.detach(), loss.detach(), slope, fooled))
        rows = zip(_rows(at), losses.tolist(), _rows(slopes), hits.tolist(), strict=True)
        return [_Answer(*row) for row in rows]


def _rows(x: Tensor) -> NDArray[np.float64]:
    """(N, C, H, W) as (N, C H W)."""
    return x.double().flatten(1).numpy()


class _Question(NamedTuple):
    point: NDArray[np.float64]
    target: int


class _Answer(NamedTuple):
    """The point as the network sees it, the cross-entropy there and its slope, and whether the network is fooled."""

    point: NDArray[np.float64]
    loss: float
    slope: NDArray[np.float64]
    fooled: bool


class _Nearest(NamedTuple):
    point: NDArray[np.float64]
    distance: float
    target: int


class _SpentError(Exception):
    """A minimisation has had its passes."""


class _Search:
    """The nearest fooled image around one image (C, H, W) towards any of the targets, and the passes spent on it."""

    def __init__(self, x: Tensor, targets: Sequence[int], attack: LBFGS) -> None:
        self.clean = x.double().flatten().cpu().numpy()
        self.targets, self.attack = targets, attack
        self.best: _Nearest | None = None
        self.queries = 0

    def run(self, ask: Ask[_Question, _Answer]) -> None:
        for target in self.targets:
            own = self._line_search(target, ask)
            if own is not None and (self.best is None or own.distance < self.best.distance):
                self.best = own

    def _line_search(self, target: int, ask: Ask[_Question, _Answer]) -> _Nearest | None:
        c, fooled, right = self.attack.c, 0.0, np.inf  # the largest c that fools, the smallest that does not
        nearest: _Nearest | None = None
        for _ in range(self.attack.searches):
            hit, nearest = self._minimise(c, target, nearest, ask)
            if hit:
                fooled = max(fooled, c)
            else:
                right = min(right, c)
            c = 10 * c if right == np.inf else right / 10 if fooled == 0 else float(np.sqrt(fooled * right))
        return nearest

    def _minimise(
        self, c: float, target: int, nearest: _Nearest | None, ask: Ask[_Question, _Answer]
    ) -> tuple[bool, _Nearest | None]:
        """From the nearest image so far, or x: whether the lowest point that is met is fooled, and the nearest now."""
        from scipy.optimize import Bounds, minimize  # type: ignore[import-untyped]

        lowest, hit, left = np.inf, False, self.attack.iterations

        def value(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            """c ||r||^2 + CE and its gradient, in float64; the point is kept where it is the nearest fooled one."""
            nonlocal lowest, hit, left, nearest
            if left == 0:
                raise _SpentError
            left -= 1
            self.queries += 1
            answer = ask(_Question(point, target))
            r = answer.point - self.clean
            found = c * float(r @ r) + answer.loss
            if found < lowest:
                lowest, hit = found, answer.fooled
            distance = float(np.linalg.norm(r))
            if answer.fooled and (nearest is None or distance < nearest.distance):
                nearest = _Nearest(answer.point, distance, target)
            return found, 2 * c * r + answer.slope

        start = self.clean if nearest is None else nearest.point
        with suppress(_SpentError):
            minimize(value, start, jac=True, method="L-BFGS-B", bounds=Bounds(0.0, 1.0), options=TO_THE_END)
        return hit, nearest
