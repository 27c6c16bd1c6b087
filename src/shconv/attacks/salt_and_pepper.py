"""Salt-and-pepper noise: a share of the pixels set to white or black."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shconv.attacks.base import Model, generators
from shconv.attacks.checks import check_count
from shconv.attacks.cost import Cost
from shconv.attacks.growing import cost_of, disturbed
from shconv.attacks.minimal import MinimalAttack
from shconv.attacks.spelling import other_names
from shconv.numbers import number

STREAM = 18


@other_names
@dataclass(frozen=True)
class SaltAndPepper(MinimalAttack):
    """Sets random pixels to 0 or 1, all channels of a pixel alike, each with probability 1/2.

    share=None looks for the smallest share of the pixels that fools, in `levels` steps up to all of them; the pixels of
    a smaller share are among those of a larger. A number sets that share, whether it fools or not, without a look.
    """

    share: float | None = None
    levels: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share is not None:
            object.__setattr__(self, "share", number("share", self.share, high=1))
        check_count("levels", self.levels, 1)

    @property
    def cost(self) -> Cost:
        return cost_of(self.share, self.levels)

    def nearest(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        pixels = x.shape[2] * x.shape[3]
        drawn = [(g.permutation(pixels), g.integers(0, 2, pixels)) for g in generators(seed, STREAM, index)]
        turn, white = (
            torch.from_numpy(np.stack(each)).to(x.device).view(len(x), 1, *x.shape[2:])
            for each in zip(*drawn, strict=True)
        )

        def disturb(share: Tensor) -> Tensor:
            return torch.where(turn < (share * pixels).round()[:, None, None, None], white.to(x), x)

        return disturbed(model, x, y, disturb, self.share, 1.0, self.levels)
