"""Accuracy over distance: what an attack that looks for the nearest image that fools says of every budget at once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shconv.attacks.budget import Norm
from shconv.experiments.outcomes import Outcomes
from shconv.intervals import wilson


class Point(NamedTuple):
    """The share of n images that nothing found within `distance` fools, with its 95 % interval."""

    distance: float
    n: int
    accuracy: float
    low: float
    high: float


def curve(outcomes: Outcomes, norm: Norm) -> list[Point]:
    """A point at 0 and at every distance at which an image falls; between two points the accuracy stays.

    An image that is wrong without a change has distance 0; one that the attack does not fool never falls.
    """
    reached: NDArray[np.float64] = outcomes.linf if norm == "linf" else outcomes.l2
    falls = np.sort(reached[~outcomes.correct])
    n = len(outcomes.index)
    points = []
    for distance in np.unique(np.concatenate([[0.0], falls])) if n else ():
        left = n - int(np.searchsorted(falls, distance, side="right"))
        points.append(Point(float(distance), n, left / n, *wilson(left, n)))
    return points
