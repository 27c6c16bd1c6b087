"""One field of a decoded line, checked. What is wrong is a ValueError that names the field; who reads adds the line."""

import math
from collections.abc import Mapping
from typing import Any

from shconv.intervals import wilson


def typed(record: Mapping[str, Any], key: str, kind: type) -> Any:
    value = record.get(key)
    if not isinstance(value, kind):
        raise ValueError(f'"{key}" is {"missing" if key not in record else repr(value)}, not a {kind.__name__}')
    return value


def optional(record: Mapping[str, Any], key: str, kind: type) -> Any:
    """As ``typed``; None where the field is missing or null."""
    return None if record.get(key) is None else typed(record, key, kind)


def number(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'"{key}" is {value!r}, not a number')
    return float(value)


def whole(record: Mapping[str, Any], key: str) -> int | None:
    value = number(record, key)
    if value is not None and (not math.isfinite(value) or value != int(value) or value < 0):
        raise ValueError(f'"{key}" is {value}, not a count')
    return None if value is None else int(value)


def share(record: Mapping[str, Any], key: str) -> float | None:
    value = number(record, key)
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f'"{key}" is {value}, not a share in 0..1')
    return value


def ends(record: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    """The two ends of an interval."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(end, int | float) for end in value):
        raise ValueError(f'"{key}" is {value!r}, not two numbers')
    return float(value[0]), float(value[1])


def interval(record: Mapping[str, Any], accuracy: float, n: int) -> tuple[float, float]:
    """The interval of an accuracy over n images: the stored one, else Wilson's."""
    return ends(record, "interval") or wilson(round(accuracy * n), n)
