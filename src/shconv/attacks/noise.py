"""Gaussian noise, truncated: equation 1 of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from shconv.attacks.base import BatchAttack, Model, generators
from shconv.attacks.checks import check_choice, check_flag
from shconv.attacks.cost import Cost
from shconv.attacks.spelling import other_names
from shconv.numbers import budget, read_budgets

Truncation = Literal["clip", "resample"]
STREAM = 1


@other_names
@dataclass(frozen=True)
class GaussianNoise(BatchAttack):
    """x + clip(N(0, sigma), -epsilon, epsilon), then clipped to [0, 1] (eq 1).

    The paper uses sigma 0.1, 0.2 and 0.4 and does not give epsilon. The default 0.1 is our inference, because its
    accuracies are not possible with untruncated noise. It makes no forward pass and does not use `labels`.

    Args:
        sigma: standard deviation of the noise.
        epsilon: the bound; None does not truncate. `two_sigma` sets it to 2 sigma.
        truncation: "clip", or "resample", which draws from the normal distribution restricted to [-epsilon, epsilon].
    """

    sigma: float
    epsilon: float | None = 0.1
    truncation: Truncation = "clip"
    clip: bool = True

    def __post_init__(self) -> None:
        read_budgets(self, "sigma", "epsilon")
        check_choice("truncation", self.truncation, Truncation)
        check_flag("clip", self.clip)

    @property
    def cost(self) -> Cost:
        return Cost(0)

    @classmethod
    def two_sigma(cls, sigma: float) -> Self:
        """Noise truncated at two standard deviations, and at 1, beyond which a pixel has nowhere to go."""
        sigma = budget("sigma", sigma)
        return cls(sigma, epsilon=min(1.0, 2 * sigma))

    def perturb(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, int]:
        draw = self._restricted if self.truncation == "resample" and self.epsilon is not None else self._normal
        noise = np.empty(tuple(x.shape), np.float32)
        for generator, one in zip(generators(seed, STREAM, index), noise, strict=True):
            draw(generator, one)
        noisy = x + torch.from_numpy(noise).to(x)
        return (noisy.clamp(0.0, 1.0) if self.clip else noisy), None, 0

    def _normal(self, generator: np.random.Generator, out: np.ndarray) -> None:
        generator.standard_normal(dtype=np.float32, out=out)
        out *= self.sigma
        if self.epsilon is not None:
            np.clip(out, -self.epsilon, self.epsilon, out=out)

    def _restricted(self, generator: np.random.Generator, out: np.ndarray) -> None:
        """Normal given |noise| <= epsilon, by inverting its distribution: what rejection gives, in one draw."""
        if not self.epsilon or not self.sigma:
            out[:] = 0
            return
        u = torch.from_numpy(generator.random(out.shape))
        ends = torch.special.ndtr(torch.tensor([-1.0, 1.0], dtype=u.dtype) * (self.epsilon / self.sigma))
        noise = self.sigma * torch.special.ndtri(torch.lerp(ends[0], ends[1], u))
        out[:] = noise.clamp(-self.epsilon, self.epsilon)
