"""Small exact statistics: of counted images McNemar's test and the paired difference, of several seeds their mean's
interval. Nothing here needs torch, so that a table can be redrawn where no network can run."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from shconv.intervals import Z

SIGNIFICANT = 0.05


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar p-value, from the images that only the first and only the second is right on."""
    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    from scipy.special import betainc  # type: ignore[import-untyped]  # here, since few commands need it

    # P(X <= least) of a binomial with even odds, as the regularised incomplete beta function
    return min(1.0, 2 * float(betainc(n - least, least + 1, 0.5)))


@dataclass(frozen=True)
class Paired:
    """Two results on the same ``n`` images; differences are second minus first, in shares of 1."""

    n: int
    only_first: int
    only_second: int

    @property
    def difference(self) -> float:
        return (self.only_second - self.only_first) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference: Wald's with half an image added to each cell (Agresti and Min 2005)."""
        n, b, c = self.n + 2, self.only_first + 0.5, self.only_second + 0.5
        half = Z * sqrt(b + c - (c - b) ** 2 / n) / n
        return max(-1.0, (c - b) / n - half), min(1.0, (c - b) / n + half)

    @property
    def p(self) -> float:
        return mcnemar(self.only_first, self.only_second)

    @property
    def verdict(self) -> str:
        """ "lower" or "higher" where the second differs from the first at the 5 % level, else "none"."""
        if self.p >= SIGNIFICANT:
            return "none"
        return "lower" if self.only_second < self.only_first else "higher"


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of independent values, at least two: Student's t, so one seed more tells a lot."""
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))
    return fmean(values) - half, fmean(values) + half
