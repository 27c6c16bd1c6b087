"""What one attack did to an audit's images, and what a check finds: a verdict on one way in which robustness can be
only apparent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Flags = NDArray[np.bool_]
FACTS = ("question", "outside", "nan", "seconds", "complete")  # of an outcome, beside its arrays


@dataclass(frozen=True, eq=False)
class Finding:
    """One check's result. `alarm` True speaks against the robustness, None says nothing either way."""

    alarm: bool | None
    text: str  # one or two sentences with the numbers
    numbers: Mapping[str, Any] = field(default_factory=dict)  # plain JSON values
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # for a figure
    figure: str = ""  # name of the arrays' file: "budget", "routes", "surface", "gradients"; "" takes the check's
    not_run: str = ""  # why, where it was left out
    check: int = 0  # this and what follows is set by the audit
    name: str = ""
    source: str = ""  # paper, year
    seconds: float = 0.0


@dataclass(eq=False)
class Outcome:
    """What one attack did to the audit's N images, as far as it has come.

    The whole network judged in a fresh forward pass. A success is misclassified, inside the ball and the box.
    """

    question: str  # digest of what was asked: the attack, the images, through which route
    attempted: Flags  # (N,)
    success: Flags  # (N,)
    queries: NDArray[np.int64]  # (N,), forward passes
    outside: int = 0  # misclassified examples that left the ball or the box: they do not count
    nan: int = 0  # examples on which the network returned NaN or infinity
    seconds: float = 0.0
    complete: bool = False  # False where the time ran out before every image was attempted
    adversarial: Tensor | None = None  # the attempted images in their order; None where resumed or above a gigabyte

    @classmethod
    def none(cls, question: str, n: int) -> "Outcome":
        """Before the first of n images."""
        return cls(question, np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, np.int64))

    @property
    def tried(self) -> int:
        return int(self.attempted.sum())

    @property
    def broken(self) -> int:
        return int(self.success.sum())

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"attempted": self.attempted, "success": self.success, "queries": self.queries}

    def facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FACTS}

    def then(self, at: NDArray[np.int64], part: "Outcome") -> "Outcome":
        """With the images at places `at` attempted as `part`, whose arrays are about these images alone, says."""
        after = replace(self, attempted=self.attempted.copy(), success=self.success.copy(), queries=self.queries.copy())
        for name, each in part.arrays().items():
            getattr(after, name)[at] = each
        for name in ("outside", "nan", "seconds"):
            setattr(after, name, getattr(self, name) + getattr(part, name))
        return after


def any_of(flags: Sequence[Flags], n: int) -> Flags:
    """(n,): what at least one of them says."""
    either: Flags = np.logical_or.reduce([np.zeros(n, bool), *flags])
    return either
