"""The record on every SHC layer: the factor on each route's gradient, the map's source and who is told of it; and how a
context manager changes it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from shconv.errors import InputError
from shconv.routes.reruns import Run, runs


@dataclasses.dataclass(frozen=True)
class Routes:
    """How one layer treats its input: the factor on each route's gradient, the map's source, and who is told of it."""

    convolution: float = 1.0
    hypernetwork: float = 1.0
    frozen: Callable[[Tensor], Tensor] | None = None  # the layer's input -> M, in the hypernetwork's place
    recorder: Callable[[Tensor], None] | None = None
    # What the innermost context manager changed, what was there before, and the runs it was entered in.
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    before: Routes | None = dataclasses.field(default=None, compare=False, repr=False)
    within: tuple[Run, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def changed(self, changes: Mapping[str, Any], within: tuple[Run, ...]) -> Routes:
        return dataclasses.replace(self, **changes, changes=changes, before=self, within=within)

    def without(self, changes: Mapping[str, Any]) -> Routes:
        """Less what one context manager changed, whether or not others were entered after it."""
        if self.before is None or self.changes is changes:
            return self.before or self
        before = self.before.without(changes)
        return self if before is self.before else before.changed(self.changes, self.within)

    def around(self, run: Run) -> Routes:
        """What was in force when the run began: without the contexts that were entered in it."""
        return self.before.around(run) if self.before is not None and run in self.within else self

    def inside(self, run: Run, base: Routes) -> Routes:
        """base, changed by the contexts that were entered in the run."""
        if self.before is None or run not in self.within:
            return base
        return self.before.inside(run, base).changed(self.changes, self.within)


class FrozenMaps:
    """A layer's maps in the order of its calls: a layer that stands in several places has one for each."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps
        self.rewind()

    def rewind(self) -> None:
        """Start at the first call again: a new forward pass of the network begins."""
        self.following = itertools.cycle(self.maps)

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) != len(self.maps[0]):
            raise InputError(f"the kernels are frozen for a batch of {len(self.maps[0])} images, got {len(x)}")
        return next(self.following)


def shc_layers(model: nn.Module) -> dict[str, Any]:
    """The SHC layers of a network by name, in the order of model.named_modules()."""
    return {
        name: module for name, module in model.named_modules() if isinstance(getattr(module, "routes", None), Routes)
    }


@contextmanager
def changed(changes: dict[Any, dict[str, Any]]) -> Iterator[None]:
    """Replace fields of some layers' Routes until the block ends, also by an exception. Blocks may end in any order, as
    those of generators do."""
    around = runs()
    within = (*around.first, *([around.again] if around.again else []))
    try:
        for layer, fields in changes.items():
            layer.routes = layer.routes.changed(fields, within)
        yield
    finally:
        for layer, fields in changes.items():
            layer.routes = layer.routes.without(fields)
