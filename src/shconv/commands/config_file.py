"""Options from a TOML file and back: what --config reads, what a run folder keeps."""

import math
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from shconv.errors import InputError, near
from shconv.numbers import fits_int64, number
from shconv.toml import read_toml

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", Path: "a path"}


def from_toml(kind: type[Any], command: str, path: Path, base: Any | None) -> Any:
    """A command's options from a TOML file; what it leaves out is base's, or has to be given otherwise.

    Raises InputError for a missing or damaged file, another command's, an unknown option or a wrong type.
    """
    stored = _read(path)
    if str(stored.pop("command", command)).partition(" ")[0] != command:
        raise InputError(f"--config {path} holds options of another command than {command}")
    hints = get_type_hints(kind)
    types = {field.name: hints[field.name] for field in fields(kind)}
    if unknown := [name for name in stored if name not in types]:
        hint = near(unknown[0], sorted(types))
        raise InputError(f"--config {path} has unknown options {', '.join(unknown)}; {hint}")
    values: dict[str, Any] = {} if base is None else {field.name: getattr(base, field.name) for field in fields(kind)}
    for name, value in stored.items():
        if not _fits(value, types[name]):
            raise InputError(f"--config {path}: {name} = {value!r}; wanted {_words(types[name])}")
        values[name] = _converted(value, types[name])
    required = {field.name for field in fields(kind) if field.default is MISSING}
    return kind(**{name: MISSING for name in required if name not in values}, **values)


def plain(options: Any) -> dict[str, Any]:
    """Options as TOML takes them: paths as text, nothing that is None."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: _as_text(value) for name, value in values.items() if value is not None}


def usual(options: Any) -> dict[str, Any]:
    """The same of the options' defaults."""
    values = {field.name: field.default for field in fields(options) if field.default is not MISSING}
    return {name: _as_text(value) for name, value in values.items() if value is not None}


def _as_text(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_text(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except OSError as error:
        raise InputError(f"--config {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"--config {path} is no TOML file: {error}") from error


def _fits(value: Any, kind: Any) -> bool:
    """Is a TOML value one of a type that options have?"""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return value in inner
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):  # a path alone, as files of earlier versions have it
            return inner[0] is Path and isinstance(value, str)
        return all(_fits(each, inner[0]) for each in value)
    if kind is float and isinstance(value, str):  # "8/255"
        with suppress(InputError):
            return math.isfinite(number("", value, low=-math.inf))
    if type(value) is int and not fits_int64(value):
        return False
    return type(value) in {float: (float, int), Path: (str,)}.get(kind, (kind,))


def _converted(value: Any, kind: Any) -> Any:
    """A TOML value that fits, as the options hold it: a text may be a path, or a number such as 8/255."""
    if get_origin(kind) is tuple:
        listed = value if isinstance(value, list) else [value]
        return tuple(_converted(each, get_args(kind)[0]) for each in listed)
    kinds = (kind, *get_args(kind))
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    if isinstance(value, str) and float in kinds and str not in kinds:
        return number("", value, low=-math.inf)
    return value


def _words(kind: Any) -> str:
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, inner))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_words(each) for each in inner if each is not type(None))
    return f"a list, in it {_words(inner[0])} each" if get_origin(kind) is tuple else _WORDS[kind]
