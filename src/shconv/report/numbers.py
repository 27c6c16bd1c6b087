"""Numbers as tables, captions and sentences say them, and what they say where there is none."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev
from typing import TypeVar

from shconv import paired
from shconv.numbers import digits_apart

NOT_RUN = "not run"
NO_IMAGES = "no images"
DASH = "–"
MINUS = "\N{MINUS SIGN}"
T = TypeVar("T")


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def deviation(values: Iterable[float | None]) -> float | None:
    """Standard deviation over the seeds (n - 1); None for fewer than two."""
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


def said(value: T | None, show: Callable[[T], str]) -> str:
    """Empty where there is no value."""
    return "" if value is None else show(value)


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}"


def pct(share: float) -> str:
    """In a sentence: with a space that does not break."""
    return pcts(share)[0]


def pcts(*shares: float) -> list[str]:
    """Shares that a sentence compares, in per cent: those that differ look different."""
    digits = digits_apart(1, *(100 * share for share in shares))
    return [f"{percent(share, digits)}\N{NO-BREAK SPACE}%" for share in shares]


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a true minus; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def fixed(value: float) -> str:
    """Two digits, a true minus."""
    return signed(value).removeprefix("+")


def points(value: float) -> str:
    """A difference of shares of 1, in points."""
    return signed(100 * value, digits_apart(1, 100 * value, 0.0))


def span(interval: tuple[float, float]) -> str:
    return f"{percent(interval[0], 1)}–{percent(interval[1], 1)}"


def points_span(interval: tuple[float, float]) -> str:
    """An interval of differences, in points: −1.0 to +3.0."""
    return " to ".join(map(points, interval))


def p_text(p: float) -> str:
    """With spaces that do not break."""
    return paired.p_text(p).replace(" ", "\N{NO-BREAK SPACE}")


def count(value: float) -> str:
    return f"{value:,.0f}"


def between(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return count(low) if low == high else f"{count(low)}–{count(high)}"


def joined(names: Iterable[str]) -> str:
    """As in: one, two and three."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def short(value: float) -> str:
    """About four significant digits."""
    return count(value) if abs(value) >= 1000 else f"{value:.4g}".replace("-", MINUS)
