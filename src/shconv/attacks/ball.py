"""Where an attack may go: the images within epsilon of the clean ones, inside [0, 1], exactly so in floating point."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from shconv.attacks.budget import Norm


class Ball:
    """The ball of radius epsilon around each image of x (N, C, H, W), cut with the box.

    Its points are held a few roundings inside, so that the distance of what `project` returns, measured in x's dtype
    or in a wider one, is at most epsilon: about 1e-7 in float32 for L-inf, and 2e-6 relative for L2.
    """

    def __init__(self, x: Tensor, epsilon: float, norm: Norm) -> None:
        self.x, self.norm, self.epsilon = x, norm, float(epsilon)
        # Adding a perturbation to a value of at most 1 errs by at most u / 4 a pixel; the rest is for taking the norm.
        u = torch.finfo(x.dtype).eps
        slack = u / 2 if norm == "linf" else u / 4 * math.sqrt(x[0].numel()) + 16 * u * self.epsilon
        self.radius = max(0.0, self.epsilon - slack)
        self._low, self._high = (x - self.radius).clamp_min(0.0), (x + self.radius).clamp_max(1.0)

    def project(self, z: Tensor) -> Tensor:
        """The nearest points of the ball to z, then of the box: in both, since the box only shrinks a perturbation."""
        if self.norm == "linf":
            return z.maximum(self._low).minimum(self._high)
        delta = z - self.x
        factor = (self.radius / _length(delta).clamp_min(torch.finfo(z.dtype).tiny)).clamp_max(1.0)
        return (self.x + factor * delta).clamp(0.0, 1.0)

    def contains(self, z: Tensor) -> Tensor:
        """bool (N,): whether each image of z is within epsilon of its clean one; z may be many, x one image."""
        delta = (z - self.x).flatten(1)
        length: Tensor = torch.linalg.vector_norm(delta, math.inf if self.norm == "linf" else 2, 1)
        return length <= self.epsilon

    def step(self, z: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """From z by `size` in the direction of steepest ascent, back into the ball. No step where the gradient is 0."""
        if self.norm == "linf":
            return self.project(z + size * gradient.sign())
        # In two divisions, since the square of a small gradient underflows.
        scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        return self.project(z + size * scaled / _length(scaled).clamp_min(1.0))

    def random(self, draws: Sequence[np.random.Generator]) -> Tensor:
        """Points uniform in the ball, cut to the box: one generator an image."""
        shape = tuple(self.x.shape[1:])
        noise = [_in_cube(g, shape) if self.norm == "linf" else _in_unit_ball(g, shape) for g in draws]
        return self.project(self.x + self.radius * torch.from_numpy(np.stack(noise)).to(self.x))


def _length(delta: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return length


def _in_cube(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 2 * generator.random(shape, np.float32) - 1


def _in_unit_ball(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    towards = generator.standard_normal(shape, np.float32)
    return towards * np.float32(generator.random() ** (1 / towards.size) / np.linalg.norm(towards))
