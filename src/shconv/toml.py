"""Options as TOML, in which names that are not UTF-8 come back as they were: TOML itself has no bytes."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from shconv.files import escaped, unescaped


def to_toml(values: Mapping[str, Any]) -> str:
    """Text that can be encoded."""
    return tomli_w.dumps(_texts(dict(values), escaped))


def read_toml(path: Path) -> dict[str, Any]:
    """What to_toml wrote. Raises OSError, and ValueError for what is no TOML."""
    options: dict[str, Any] = _texts(tomllib.loads(path.read_text(encoding="utf-8-sig")), unescaped)
    return options


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every text changed, those in lists and tables too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _texts(each, change) for name, each in value.items()}
    return [_texts(each, change) for each in value] if isinstance(value, list | tuple) else value
