"""Names that other libraries give to hyper-parameters: eps for epsilon, alpha for step_size.
One mechanism for constructors and `create_attack`."""

from collections.abc import Mapping
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

from shconv.errors import InputError
from shconv.numbers import plain

OTHER_NAMES = {"eps": "epsilon", "alpha": "step_size"}
T = TypeVar("T")


def other_names(cls: type[T]) -> type[T]:
    """Above a dataclass: its constructor takes the other libraries' names too, and numbers of numpy and torch."""
    init: Any = cls.__init__
    positional = [field.name for field in fields(cls) if field.init and not field.kw_only]  # type: ignore[arg-type]

    @wraps(init)
    def spelt(self: T, *args: Any, **given: Any) -> None:
        own = our_names(cls, given, positional[: len(args)])
        init(self, *map(plain, args), **{name: plain(value) for name, value in own.items()})

    vars_of: Any = cls
    vars_of.__init__ = spelt
    return cls


def our_names(cls: type[Any], given: Mapping[str, Any], positional: list[str] | None = None) -> dict[str, Any]:
    """Keyword arguments of a dataclass under its own names. Raises InputError where one is given under both.

    A name that the dataclass itself has stays: RandFGSM's alpha is the length of its random step.
    """
    own = {field.name for field in fields(cls)}
    spelt = dict(given)
    for other, ours in OTHER_NAMES.items():
        if other not in spelt or other in own or ours not in own:
            continue
        if ours in spelt or ours in (positional or ()):
            raise InputError(f"{cls.__name__}: got {other} and {ours}, which are the same; want one of them")
        spelt[ours] = spelt.pop(other)
    return spelt
