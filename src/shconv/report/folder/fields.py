"""Objects from decoded records: each field of a dataclass is checked as its annotation says.
What is wrong is a ValueError that names the field; ``damaged`` adds the file or the line."""

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from functools import cache, partial
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from shconv.errors import InputError

Share = Annotated[float, "in 0..1"]
Ends = tuple[float, float]  # of an interval
Texts = tuple[str, ...]
Options = Mapping[str, Any]
Counts = Mapping[str, int]
T = TypeVar("T")


def read(kind: type[T], record: Options, **known: Any) -> T:
    """An object of a dataclass from a record; fields that are ``known`` already are not read.

    A field that may be None or has a default may be missing or null. Raises ValueError for any other.
    """
    hints = _hints(kind)  # type: ignore[arg-type]  # a class can be hashed, which mypy does not know of T
    for field in fields(kind):  # type: ignore[arg-type]  # a dataclass, which mypy cannot be told
        hint = hints[field.name]
        choices = get_args(hint)
        if field.name in known:
            continue
        if record.get(field.name) is not None:
            known[field.name] = READERS[choices[0] if NoneType in choices else hint](record, field.name)
        elif field.default is MISSING and field.default_factory is MISSING:
            if NoneType not in choices:
                raise ValueError(f'"{field.name}" is missing')
            known[field.name] = None
    return kind(**known)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def typed(record: Options, key: str, kind: type) -> Any:
    value = record.get(key)
    if not isinstance(value, kind):
        raise ValueError(f'"{key}" is {"missing" if key not in record else repr(value)}, not a {kind.__name__}')
    return value


def optional(record: Options, key: str, kind: type) -> Any:
    """As ``typed``; None where the field is missing or null."""
    return None if record.get(key) is None else typed(record, key, kind)


def measured(record: Options, key: str) -> float | None:
    """A number, where the record has one of that name; NaN is none."""
    value = record.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


def number(record: Options, key: str) -> float:
    value = measured(record, key)
    if value is None:
        raise ValueError(f'"{key}" is {record[key]!r}, not a number')
    return float(value)


def whole(record: Options, key: str) -> int:
    value = number(record, key)
    if not math.isfinite(value) or value != int(value) or value < 0:
        raise ValueError(f'"{key}" is {value}, not a count')
    return int(value)


def share(record: Options, key: str) -> float:
    value = number(record, key)
    if not 0 <= value <= 1:
        raise ValueError(f'"{key}" is {value}, not a share in 0..1')
    return value


def ends(record: Options, key: str) -> Ends:
    value = record[key]
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(end, int | float) and end == end for end in value)
    ):
        raise ValueError(f'"{key}" is {value!r}, not two numbers')
    return float(value[0]), float(value[1])


def texts(record: Options, key: str) -> Texts:
    return tuple(map(str, typed(record, key, list)))


def counts(record: Options, key: str) -> Counts:
    held = typed(record, key, dict)
    return {name: whole(held, name) for name in held}


READERS: Mapping[Any, Callable[[Options, str], Any]] = {
    str: partial(typed, kind=str),
    bool: partial(typed, kind=bool),
    Options: partial(typed, kind=dict),
    int: whole,
    float: number,
    Share: share,
    Ends: ends,
    Texts: texts,
    Counts: counts,
}


@contextmanager
def damaged(what: object) -> Iterator[None]:
    """Raise what goes wrong inside as an InputError that names the file, or the line of it."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{what} is damaged: {error}.") from None
