"""Shares and differences in words."""

from shconv.numbers import in_points


def of(k: int, n: int) -> str:
    """17 of 50 (34.0 %)"""
    return f"{k} of {n} ({percent(k / n)})" if n else "0 of 0"


def percent(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f} %"  # no minus before 0.0


def points(interval: tuple[float, float]) -> str:
    """A difference's 95 % interval, in points."""
    return f"95 % interval {in_points(interval[0])} to {in_points(interval[1])} points"
