"""Semi-random noise: the nearest boundary within a random subspace (Fawzi et al. 2016)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shconv.attacks.base import Model, generators
from shconv.attacks.deepfool import BoundaryDescent
from shconv.attacks.spelling import other_names
from shconv.errors import InputError
from shconv.numbers import read_numbers

STREAM = 19


@other_names
@dataclass(frozen=True)
class SemiRandom(BoundaryDescent):
    """DeepFool whose L2 steps lie in a random subspace of the share `share` of all dimensions, one for each image.

    share=1 is DeepFool, and a small share random noise of the right length. On a linear network the distance grows as
    1 / sqrt(share). The subspace is spanned by random cosine waves (an orthonormal cosine transform) after random
    changes of sign of the features: as good as random directions and without a matrix of them. The clipping to [0, 1]
    may leave it.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm != "l2":
            raise InputError(f"norm: got {self.norm!r}; want 'l2', since only L2 steps stay in a subspace")
        read_numbers(self, "share", high=1, above=True)

    def nearest(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        subspace = Subspace.drawn(x, self.share, generators(seed, STREAM, index))
        found, queries = self.descend(model, x, y, subspace.project)
        return found, None, queries


@dataclass(frozen=True, eq=False)
class Subspace:
    """One of each image: signs (N, C, H, W) of the features, and bool (N, C, H, W), true for the waves that span it."""

    signs: Tensor
    chosen: Tensor

    @classmethod
    def drawn(cls, x: Tensor, share: float, draws: Sequence[np.random.Generator]) -> "Subspace":
        """Of max(1, round(share n)) dimensions out of the n of an image of x (N, C, H, W)."""
        n = x[0].numel()
        signs = [2 * g.integers(0, 2, n, np.int8) - 1 for g in draws]
        chosen = [g.permutation(n) < max(1, round(share * n)) for g in draws]
        shaped = [torch.from_numpy(np.stack(each)).to(x.device).view(x.shape) for each in (signs, chosen)]
        return cls(shaped[0].double(), shaped[1])

    def project(self, places: Tensor, gradient: Tensor) -> Tensor:
        """The part of a gradient (n, C, H, W) in the subspaces of the images at (n,)."""
        signs = self.signs[places]
        waves = _along(signs * gradient.double(), transposed=False) * self.chosen[places]
        return (signs * _along(waves, transposed=True)).to(gradient.dtype)


def _along(t: Tensor, transposed: bool) -> Tensor:
    """The cosine transform of t (N, C, H, W) along its last three axes, or back."""
    for axis in (1, 2, 3):
        waves = _cosines(t.shape[axis], t.device)
        t = (t.movedim(axis, -1) @ (waves if transposed else waves.T)).movedim(-1, axis)
    return t


def _cosines(n: int, device: torch.device) -> Tensor:
    """(n, n) orthonormal: row k is the wave cos(pi (j + 1/2) k / n)."""
    place = torch.arange(n, dtype=torch.float64, device=device)
    waves = (math.pi / n * place[:, None] * (place + 0.5)).cos() * math.sqrt(2 / n)
    waves[0] /= math.sqrt(2)
    return waves
