"""Networks of which only the shapes are asked: built on no memory, and without drawing a number."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def shapes_only() -> Iterator[None]:
    """What is built within is on the meta device. Drawing its weights there would change nothing, but bring in torch's
    compiler, which takes seconds."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Initialisations return the tensor as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func.__name__ in ("normal_", "uniform_"):
            return args[0] if args else named["tensor"]
        return func(*args, **named)
