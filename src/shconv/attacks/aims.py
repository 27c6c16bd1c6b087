"""Which wrong classes a targeted attack aims at: random ones, or the likeliest of the clean image."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from shconv.attacks.losses import likeliest_wrong

Aim = Literal["random", "likeliest"]
Goal = Literal["targeted", "untargeted"]  # the image has to be classified as its target; any wrong class counts


def aims(aim: Aim, count: int, logits: Tensor, y: Tensor, draws: Sequence[np.random.Generator]) -> list[Tensor]:
    """min(count, K - 1) different wrong classes of each image in turn, each int64 (N,), from clean logits (N, K).

    The likeliest first; or random ones, one generator an image.
    """
    if aim == "likeliest":
        return likeliest_wrong(logits, y, count)
    classes = logits.shape[1]
    shifts = [1 + g.permutation(classes - 1)[:count] for g in draws]  # from y on, so never y itself
    drawn = (y[:, None] + torch.from_numpy(np.stack(shifts)).to(y)) % classes
    return list(drawn.unbind(1))


def reached(goal: Goal, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """bool (N,): whether the network is fooled as the goal has it."""
    prediction = logits.argmax(1)
    return prediction == target if goal == "targeted" else prediction != y
