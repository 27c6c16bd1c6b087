"""Arguments of the wrong kind, found by the annotations of a public function before it does anything."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.numbers import plain

P = ParamSpec("P")
T = TypeVar("T")

_WORDS: dict[Any, str] = {
    NoneType: "None",
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    Path: "a path",
    Tensor: "a tensor",
    nn.Module: "a torch.nn.Module",
    Mapping: "a dict",
    Sequence: "a list or tuple",
    Callable: "a function",
}
_MADE = {  # what is often given by its name, and where it comes from
    "Attack": "an attack, such as shconv.attacks.create_attack gives",
    "Defence": "a defence, such as shconv.training.create_defence gives",
    "Engine": "a shconv.training.Engine",
    "ImageData": "an ImageData, such as shconv.data.load_data gives",
    "ModelConfig": "a shconv.training.ModelConfig",
    "Recipe": "a Recipe, such as shconv.training.RECIPES has",
}
_NETWORK = ", such as shconv.create_model or shconv.pretrained.from_pretrained gives"
_SHORT = (NoneType, bool, int, float, str)
_SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which raises InputError for an argument that is not of its annotated kind, and says its name."""
    signature = inspect.signature(function)

    @cache
    def kinds() -> dict[str, list[Any]]:
        hints = get_type_hints(function)
        single = [name for name, each in signature.parameters.items() if each.kind not in _SEVERAL]
        return {name: _kinds(hints[name]) for name in single if name in hints}

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # Python's own words name the function
            return function(*args, **kwargs)
        for name, value in given.items():
            wanted = kinds().get(name, [])
            if wanted and not any(_fits(value, kind) for kind in wanted):
                got = repr(value) if isinstance(value, _SHORT) else type(value).__name__
                *others, last = map(_word, wanted)
                hint = _NETWORK if nn.Module in wanted and isinstance(value, str | PathLike) else ""
                raise InputError(f"{name}: got {got}; want {', '.join(others)}{' or ' * bool(others)}{last}{hint}")
        return function(*args, **kwargs)

    return called


def checked_fields(kind: type[T]) -> type[T]:
    """A dataclass that refuses fields of another kind in the same way."""
    kind.__init__ = checked(kind.__init__)  # type: ignore[method-assign]
    return kind


def _kinds(hint: Any) -> list[Any]:
    """The classes and Literals that a hint allows; none where it allows anything."""
    if isinstance(hint, TypeVar):
        return _kinds(hint.__bound__)
    if get_origin(hint) in (Union, UnionType):
        found = [_kinds(each) for each in get_args(hint)]
        return list(dict.fromkeys(kind for each in found for kind in each)) if all(found) else []
    if get_origin(hint) is Literal:
        return [hint]
    kind = get_origin(hint) or hint
    if kind is tuple:
        return [Sequence]
    return [kind] if isinstance(kind, type) and kind not in (Any, object) else []


def _fits(value: Any, kind: Any) -> bool:
    """Numbers may be those of numpy or torch; which text of a Literal there is says the function."""
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    if kind in (int, float):
        read = plain(value)
        return isinstance(read, int if kind is int else int | float) and not isinstance(read, bool)
    if kind is Sequence:
        return hasattr(value, "__getitem__") and not isinstance(value, str | bytes | Mapping | np.generic)
    return isinstance(value, PathLike) if kind is Path else isinstance(value, kind)


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    name = getattr(kind, "__name__", str(kind))
    return _WORDS.get(kind) or _MADE.get(name, name)
