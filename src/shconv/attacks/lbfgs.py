"""The box-constrained L-BFGS attack (Szegedy et al. 2013; Tabacof and Valle 2016)."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks.aims import Aim, Goal, aims, reached
from shconv.attacks.base import Model, generators
from shconv.attacks.checks import check_choice, check_count, check_logits
from shconv.attacks.cost import Cost
from shconv.attacks.minimal import MinimalAttack
from shconv.attacks.spelling import other_names
from shconv.numbers import read_numbers

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
    the result's target. One image goes through the network at a time, so kernels frozen for a batch cannot be used.
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
        found, y_t, queries = x.clone(), torch.zeros_like(y), torch.ones_like(y)
        for i, draw in enumerate(generators(seed, STREAM, index)):
            one, label = x[i : i + 1], y[i : i + 1]
            with torch.no_grad():
                logits = check_logits(model(one), label)
            classes = aims(self.aim, self.targets, logits, label, [draw])
            y_t[i] = classes[0]
            if bool(logits.argmax(1) != label):
                continue
            best: _Search | None = None
            for target in classes:
                search = _Search(model, one, label, target, self.goal, self.iterations)
                self._line_search(search)
                queries[i] += search.queries
                best = search if best is None or search.distance < best.distance else best
            if best is not None and best.found is not None:
                found[i], y_t[i] = best.found[0], best.target
        return found, y_t, queries

    def _line_search(self, search: "_Search") -> None:
        c, fooled, right = self.c, 0.0, np.inf  # the largest c that fools, the smallest that does not
        for _ in range(self.searches):
            if search.minimise(c):
                fooled = max(fooled, c)
            else:
                right = min(right, c)
            c = 10 * c if right == np.inf else right / 10 if fooled == 0 else float(np.sqrt(fooled * right))


class _SpentError(Exception):
    """A minimisation has had its passes."""


class _Search:
    """The nearest fooled image around one x (1, C, H, W) towards one target (1,), and the passes spent on it."""

    def __init__(self, model: Model, x: Tensor, y: Tensor, target: Tensor, goal: Goal, passes: int) -> None:
        self.model, self.x, self.y, self.target, self.goal, self.passes = model, x, y, target, goal, passes
        self.clean = x.double().flatten().cpu().numpy()
        self.found: Tensor | None = None
        self.distance, self.queries = np.inf, 0
        self._c, self._left, self._hit, self._lowest = 0.0, 0, False, np.inf

    def minimise(self, c: float) -> bool:
        """One minimisation from the nearest image so far, or x; whether the lowest point that it met is fooled."""
        from scipy.optimize import minimize  # type: ignore[import-untyped]

        self._c, self._left, self._hit, self._lowest = c, self.passes, False, np.inf
        start = self.clean if self.found is None else self.found.double().flatten().cpu().numpy()
        with suppress(_SpentError):
            bounds = [(0.0, 1.0)] * len(start)
            minimize(self._value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=TO_THE_END)
        return self._hit

    def _value(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """c ||r||^2 + CE and its gradient, in float64; the point is kept where it is the nearest fooled one."""
        if self._left == 0:
            raise _SpentError
        self._left -= 1
        self.queries += 1
        z = torch.from_numpy(flat).to(self.x).view_as(self.x).clamp(0.0, 1.0).requires_grad_()
        logits = check_logits(self.model(z), self.y)
        loss = F.cross_entropy(logits.double(), self.target)
        slope = torch.autograd.grad(loss, z, allow_unused=True)[0] if loss.requires_grad else None
        r = z.detach().double().flatten().cpu().numpy() - self.clean
        value = self._c * float(r @ r) + float(loss.detach())
        fooled = bool(reached(self.goal, logits, self.y, self.target))
        if value < self._lowest:
            self._lowest, self._hit = value, fooled
        if fooled and (distance := float(np.linalg.norm(r))) < self.distance:
            self.found, self.distance = z.detach(), distance
        gradient = 0.0 if slope is None else slope.double().nan_to_num(0.0).flatten().cpu().numpy()
        return value, 2 * self._c * r + gradient
