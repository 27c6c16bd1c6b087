"""What a check finds, a verdict on one way in which robustness can be only apparent; and what one attack did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Finding:
    """One check's result. `alarm` True speaks against the robustness, None says nothing either way."""

    check: int
    name: str
    alarm: bool | None
    text: str  # one or two sentences with the numbers
    numbers: Mapping[str, Any] = field(default_factory=dict)  # plain JSON values
    source: str = ""  # paper, year
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # for a figure
    seconds: float = 0.0  # set by the audit
    not_run: str = ""  # why, where it was left out
    figure: str = ""  # name of the arrays' file: "budget", "routes", "surface", "gradients"; "" takes the check's


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one attack did to the audit's N images, judged by the whole network in a fresh forward pass."""

    attempted: Flags  # (N,)
    success: Flags  # (N,): misclassified, inside the ball and the box
    queries: NDArray[np.int64]  # (N,), forward passes
    adversarial: (
        Tensor | None
    )  # the attempted images in their order; None where resumed or above a gigabyte, and not kept
    seconds: float
    complete: bool  # False where the time ran out before every image was attempted
