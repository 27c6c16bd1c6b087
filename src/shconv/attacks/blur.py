"""Gaussian blur of a given width, or of the smallest that fools."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from shconv.attacks.base import Model
from shconv.attacks.checks import check_count
from shconv.attacks.cost import Cost
from shconv.attacks.growing import cost_of, disturbed
from shconv.attacks.minimal import MinimalAttack
from shconv.attacks.spelling import other_names
from shconv.numbers import number


@other_names
@dataclass(frozen=True)
class GaussianBlur(MinimalAttack):
    """Blurs every channel with a Gaussian whose standard deviation is `width` pixels.

    width=None looks for the smallest width that fools, in `levels` steps up to half the longer side. A number blurs by
    that width, whether it fools or not, without a look. At the edge the weights inside the image are scaled to sum to
    1, so that a flat image stays as it is.
    """

    width: float | None = None
    levels: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None:
            object.__setattr__(self, "width", number("width", self.width))
        check_count("levels", self.levels, 1)

    @property
    def cost(self) -> Cost:
        return cost_of(self.width, self.levels)

    def nearest(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        return disturbed(model, x, y, partial(blurred, x), self.width, max(x.shape[2:]) / 2, self.levels)


def blurred(x: Tensor, width: Tensor) -> Tensor:
    """x (N, C, H, W), image i blurred by width[i] >= 0 pixels; computed in float64, so that no rounding shows."""
    rows, columns = (_weights(width.double(), side)[:, None] for side in x.shape[2:])
    return (rows @ x.double() @ columns.mT).to(x.dtype).clamp(0.0, 1.0)


def _weights(width: Tensor, side: int) -> Tensor:
    """(N, side, side): row i holds the weights that make pixel i."""
    place = torch.arange(side, dtype=torch.float64, device=width.device)
    apart = (place[:, None] - place).square() / -2
    return (apart / width.clamp_min(1e-3)[:, None, None].square()).softmax(2)
