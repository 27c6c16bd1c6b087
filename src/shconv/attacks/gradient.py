"""The fast gradient sign method and its two variants: equations 2, 3 and 4 of the paper."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from shconv import numbers
from shconv.attacks.base import BatchAttack, Model, generators
from shconv.attacks.budget import Budget
from shconv.attacks.checks import check_choice, check_count, check_flag
from shconv.attacks.cost import Cost
from shconv.attacks.objective import Objective, Sign, class_gradient, direction, least_likely_class
from shconv.attacks.spelling import other_names
from shconv.numbers import read_budgets

STREAM = 2


@dataclass(frozen=True, kw_only=True)
class GradientAttack(BatchAttack):
    """What the sign methods share: what they step towards, and the box.

    objective="least_likely" (the paper's): y_t = argmin of the clean image's logits, fixed for the whole attack, and
    steps down the cross-entropy of y_t. objective="untargeted": steps up the cross-entropy of the true class. Report
    both. As printed, the equations step the wrong way for either; sign="literal" does that, for study.
    clip=False leaves out the clipping to [0, 1] after every step. sign(0) = 0.
    """

    aims: ClassVar[bool] = True
    objective: Objective = "least_likely"
    sign: Sign = "consistent"
    clip: bool = True

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, Objective)
        check_choice("sign", self.sign, Sign)
        check_flag("clip", self.clip)

    def _made(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Towards given classes it steps down their cross-entropy, whatever `objective` is, without a look for y_t."""
        attack = self if goal is None else replace(self, objective="least_likely")
        adversarial, y_t, queries = attack.perturb(model, x, y, index, seed, goal)
        return adversarial, y_t, torch.full_like(y, queries)

    @abstractmethod
    def perturb(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, y_t: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, int]:
        """As BatchAttack.perturb, towards the classes y_t (N,) where they are given."""

    def _step(self, x: Tensor, gradient: Tensor, size: float) -> Tensor:
        return self._box(x + size * direction(self.objective, self.sign) * gradient.sign())

    def _box(self, x: Tensor) -> Tensor:
        return x.clamp(0.0, 1.0) if self.clip else x


@other_names
@dataclass(frozen=True)
class FGSM(GradientAttack):
    """One step of size epsilon along the sign of the gradient (eq 2); one forward pass.

    FGSM-Heavy is FGSM(epsilon=0.1).

    Args:
        objective: "least_likely", the paper's, steps down the cross-entropy of y_t, the class with the lowest logit for
            the clean image. "untargeted" steps up the cross-entropy of the true class. Report both.
        sign: "literal" steps as the equations are printed, which is the wrong way for both objectives; for study.
        clip: clip to [0, 1] after every step.
        epsilon: how far a pixel moves, as a number or "8/255".
    """

    epsilon: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        read_budgets(self, "epsilon")

    @property
    def cost(self) -> Cost:
        return Cost(1, 1)

    def perturb(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, y_t: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, int]:
        gradient, y_t = class_gradient(model, x, y, y_t, self.objective)
        return self._step(x, gradient, self.epsilon), y_t, 1


@other_names
@dataclass(frozen=True)
class IFGSM(GradientAttack):
    """`steps` steps of step_size, each from the last image and kept within epsilon of the clean one (eq 3).

    The printed equation starts every step from the clean image; we treat this as an error. With the paper's numbers an
    image moves by at most steps * step_size = 0.005, so epsilon has no effect. `kurakin` and `epsilon_over_steps` are
    settings that reach epsilon. Each step takes one forward pass. objective, sign and clip are FGSM's.
    """

    epsilon: float = 0.02
    step_size: float = 0.001
    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        read_budgets(self, "epsilon", "step_size")
        check_count("steps", self.steps, 1)

    @property
    def cost(self) -> Cost:
        return Cost(self.steps, self.steps)

    @classmethod
    def kurakin(cls, epsilon: float = 0.02, *, objective: Objective = "least_likely") -> Self:
        """Kurakin et al. 2016: step_size 1/255, min(e + 4, 1.25 e) steps with e = 255 epsilon.

        A fraction of a step is dropped (theirs is a whole e), unless the edge at epsilon would then be out of reach.
        """
        epsilon = numbers.budget("epsilon", epsilon)
        e = round(255 * epsilon, 9)
        steps = max(math.floor(min(e + 4, 1.25 * e)), math.ceil(e), 1)
        return cls(epsilon, 1 / 255, steps, objective=objective)

    @classmethod
    def epsilon_over_steps(
        cls, epsilon: float = 0.02, steps: int = 5, *, objective: Objective = "least_likely"
    ) -> Self:
        """step_size epsilon / steps, so that the last step just reaches epsilon."""
        epsilon = numbers.budget("epsilon", epsilon)
        check_count("steps", steps, 1)
        return cls(epsilon, epsilon / steps, steps, objective=objective)

    def perturb(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, y_t: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, int]:
        low, high = self._box(x - self.epsilon), self._box(x + self.epsilon)
        for _ in range(self.steps):
            gradient, y_t = class_gradient(model, x, y, y_t, self.objective)
            x = self._step(x, gradient, self.step_size).clamp(low, high)
        return x, y_t, self.steps


@other_names
@dataclass(frozen=True)
class RandFGSM(GradientAttack):
    """x' = x + alpha sign(N(0, 1)), then x' - epsilon sign(grad CE(y_t) at x') (eq 4, Tramer et al. 2017).

    The paper's numbers move a pixel by up to 16/256 in all, as in Tramer et al., although its text says "at most
    8/256". `total` divides one budget between the two steps. y_t is computed on the clean image, which takes one more
    forward pass.
    """

    epsilon: float = 0.03125
    alpha: float = 0.03125

    def __post_init__(self) -> None:
        super().__post_init__()
        read_budgets(self, "epsilon", "alpha")

    @property
    def cost(self) -> Cost:
        return Cost(2 if self.objective == "least_likely" else 1, 1)

    @property
    def budget(self) -> Budget:
        """Of both steps together."""
        return Budget("linf", self.epsilon + self.alpha)

    @classmethod
    def total(cls, budget: float = 8 / 256, *, objective: Objective = "least_likely") -> Self:
        """epsilon = alpha = budget / 2: the text's "at most 8/256" taken for both steps together."""
        half = numbers.budget("budget", budget) / 2
        return cls(half, half, objective=objective)

    def perturb(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, y_t: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, int]:
        looks = y_t is None and self.objective == "least_likely"
        if looks:
            y_t = least_likely_class(model, x, y)
        start = self._box(x + self.alpha * _random_signs(x, index, seed))
        gradient, y_t = class_gradient(model, start, y, y_t, self.objective)
        return self._step(start, gradient, self.epsilon), y_t, 2 if looks else 1


def _random_signs(x: Tensor, index: Sequence[int], seed: int) -> Tensor:
    """sign(N(0, 1)) of x's shape, image by image: -1 or 1 with even odds, drawn as bits."""
    bits = [g.integers(0, 2, tuple(x.shape[1:]), dtype=np.int8) for g in generators(seed, STREAM, index)]
    return torch.from_numpy(2 * np.stack(bits) - 1).to(x)
