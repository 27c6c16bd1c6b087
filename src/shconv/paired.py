"""Small exact statistics: of counted images McNemar's test and the paired difference, of several seeds their mean's
interval. Nothing here needs torch, so that a table can be redrawn where no network can run."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from shconv.intervals import wilson
from shconv.numbers import digits_apart

SIGNIFICANT = 0.05


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar p-value, from the images that only the first and only the second is right on."""
    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    from scipy.special import betainc  # type: ignore[import-untyped]  # here, since few commands need it

    # P(X <= least) of a binomial with even odds, as the regularised incomplete beta function
    return min(1.0, 2 * float(betainc(n - least, least + 1, 0.5)))


def p_cell(p: float) -> str:
    """To three decimals, and more where the 5 % level is nearer."""
    return "< 0.001" if p < 0.001 else f"{p:.{digits_apart(3, p, SIGNIFICANT)}f}"


def p_text(p: float) -> str:
    return f"p {'' if p < 0.001 else '= '}{p_cell(p)}"


@dataclass(frozen=True)
class Paired:
    """How many images both are right on, only the first, only the second, neither. Differences: first minus second."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def of(cls, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> "Paired":
        """From who is right on which image, each (N,)."""
        cells = (first & second, first & ~second, ~first & second, ~first & ~second)
        return cls(*(int(cell.sum()) for cell in cells))

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        return (self.only_first - self.only_second) / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference: Newcombe 1998 (Statistics in Medicine 17, 2635), method 10.

        Wilson's intervals of the two shares, joined by their correlation phi, which is corrected for continuity.
        """
        if not self.n:
            return -1.0, 1.0
        a, b, c, d, n = self.both, self.only_first, self.only_second, self.neither, self.n
        p1, p2 = (a + b) / n, (a + c) / n
        (l1, u1), (l2, u2) = wilson(a + b, n), wilson(a + c, n)
        margins = (a + b) * (c + d) * (a + c) * (b + d)
        excess = a * d - b * c
        phi = (max(excess - n / 2, 0) if excess > 0 else excess) / sqrt(margins) if margins else 0.0
        return (
            self.difference - _joined(p1 - l1, u2 - p2, phi),
            self.difference + _joined(u1 - p1, p2 - l2, phi),
        )

    @property
    def p(self) -> float:
        """McNemar's exact two-sided p-value."""
        return mcnemar(self.only_first, self.only_second)

    @property
    def verdict(self) -> str:
        """ "lower" or "higher" where the first differs from the second at the 5 % level, else "none"."""
        if self.p >= SIGNIFICANT:
            return "none"
        return "lower" if self.only_first < self.only_second else "higher"


def _joined(x: float, y: float, phi: float) -> float:
    return sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of independent values, at least two: Student's t, so one seed more tells a lot."""
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def hull(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """From the lowest to the highest end."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)
