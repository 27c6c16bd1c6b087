"""Shares and differences in words."""


def of(k: int, n: int) -> str:
    """17 of 50 (34.0 %)"""
    return f"{k} of {n} ({percent(k / n)})" if n else "0 of 0"


def percent(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f} %"  # no minus before 0.0


def points(interval: tuple[float, float]) -> str:
    """A difference's 95 % interval, in points."""
    return f"95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f} points"
