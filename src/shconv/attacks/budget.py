"""How far an attack may move an image: a norm and a radius, or no bound at all."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from shconv.numbers import radius_text

Norm = Literal["linf", "l2"]
SIGNS: dict[str, str] = {"linf": "L∞", "l2": "L2"}
ROUNDING = 1e-6  # so far outside its ball or the box an image is inside: float32 rounds


class Budget(NamedTuple):
    """Images within `radius` of the clean one in `norm`, and inside [0, 1]. Radius infinity: any image of the box."""

    norm: Norm
    radius: float

    @property
    def title(self) -> str:
        """Such as "L∞ 0.02" or "L∞ 8/255"; "any change" without a bound."""
        return f"{SIGNS[self.norm]} {radius_text(self.radius)}" if math.isfinite(self.radius) else "any change"

    def holds(self, adversarial: Tensor, clean: Tensor) -> Tensor:
        """bool (N,): is each image finite, in the box, and near enough to its clean one; both (N, C, H, W)."""
        low, high = adversarial.flatten(1).aminmax(dim=1)
        inside = (low >= -ROUNDING) & (high <= 1 + ROUNDING)  # False for NaN
        near = distances(adversarial, clean)[self.norm] <= self.radius * (1 + ROUNDING) + ROUNDING
        return inside & near


ANY_CHANGE = Budget("linf", math.inf)


def distances(adversarial: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """L-infinity and L2 distance (N,) of each image (N, C, H, W) from its clean one, in at least float32."""
    wide = torch.float64 if torch.float64 in (adversarial.dtype, clean.dtype) else torch.float32
    delta = (adversarial.to(wide) - clean.to(wide)).flatten(1)
    return {"linf": delta.abs().amax(1), "l2": torch.linalg.vector_norm(delta, dim=1)}
