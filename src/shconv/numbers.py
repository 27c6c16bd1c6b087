"""Numbers as people give and read them, 0.03 or "8/255" or "3 images", and the one rule for how far a pixel may be
moved: images lie in [0, 1], so that a budget or a step above 1 was meant in grey levels."""

import math
from numbers import Real
from typing import TypeVar

from shconv.errors import InputError

T = TypeVar("T")


def number(name: str, value: object, low: float = 0.0, high: float = math.inf, *, above: bool = False) -> float:
    """A finite number in [low, high], with `above` in (low, high]; a text such as "0.03" or "8/255" is read.

    An int or float of Python comes back as it is. Raises InputError for whatever else `name` was given.
    """
    read = _from_text(value) if isinstance(value, str) else plain(value)
    at = float(read) if type(read) is not bool and isinstance(read, Real) else math.nan
    if not math.isfinite(at) or not low <= at <= high or (above and at == low):
        bounds = f"{'>' if above else '>='} {low:g}" if high == math.inf else f"{'>' if above else 'from'} {low:g}"
        bounds += "" if high == math.inf else f" {'and at most' if above else 'to'} {high:g}"
        raise InputError(f"{name}: got {value!r}; want a number {bounds}, such as 0.03 or 8/255")
    return read if type(read) in (int, float) else at  # type: ignore[return-value]


def fits_int64(value: int) -> bool:
    """Is it an integer that torch and numpy can hold?"""
    return -(2**63) <= value < 2**63


def plain(value: T) -> T:
    """A single number of numpy or torch as Python has it, which can be stored and compared; all else as it is."""
    item = getattr(value, "item", None)
    return item() if item is not None and getattr(value, "ndim", None) == 0 else value


def budget(name: str, value: object, norm: str = "linf", *, above: bool = False) -> float:
    """How far pixels may be moved, read as `number` reads it: at most 1, but for an L2 length, which adds up pixels.

    Raises InputError where it is above that, negative (with `above`: 0) or no number.
    """
    read = number(name, value, above=above)
    if norm != "l2" and read > 1:
        levels = f"{read:g}" if read <= 255 and read == int(read) else "8"
        raise InputError(f"{name}: got {read:g}; want at most 1, as images lie in [0, 1] ({levels}/255, not {levels})")
    return read


def read_numbers(owner: object, *names: str, high: float = math.inf, above: bool = False) -> None:
    """Read fields of a frozen dataclass in place, as `number` does."""
    for name in names:
        object.__setattr__(owner, name, number(name, getattr(owner, name), 0.0, high, above=above))


def read_budgets(owner: object, *names: str, norm: str = "linf", above: bool = False) -> None:
    """The same as `budget` does; a field that is None has no bound and stays so."""
    for name in names:
        if getattr(owner, name) is not None:
            object.__setattr__(owner, name, budget(name, getattr(owner, name), norm, above=above))


def radius_text(value: float) -> str:
    """How far pixels are moved, for people to read: a decimal where a short one is exact, such as 0.02, else 8/255
    where it is whole levels of 255, else four digits."""
    text, levels = f"{value:.4g}", round(255 * value) if math.isfinite(value) else 0
    if float(text) != value and levels and abs(255 * value - levels) < 1e-4:
        return f"{levels}/255"
    return text


def _from_text(text: str) -> float:
    """NaN for what is no number and no fraction of two."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom if slash else 1)
    except (ValueError, ZeroDivisionError):
        return math.nan


def in_points(difference: float) -> str:
    """A difference of two shares in points, with its sign; +0.0 for none."""
    digits = digits_apart(1, 100 * difference, 0.0)
    return f"{round(100 * difference, digits) + 0.0:+.{digits}f}"  # no minus before 0.0


def digits_apart(least: int, *values: float) -> int:
    """Decimals at which values that differ look different, so that words about them stay true: at least so many, and
    up to five more where these are enough."""
    for digits in range(least, least + 6):
        if len({round(value, digits) for value in values}) == len(set(values)):
            return digits
    return least


def counted(n: int, thing: str) -> str:
    """1 image, 1,000 images"""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
