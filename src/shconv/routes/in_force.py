"""Which routes a layer's pass has: those on the layer, or where torch runs the pass again, those that it had the first
time."""

from __future__ import annotations

import dataclasses
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from shconv.errors import InputError
from shconv.routes.record import FrozenMaps, Routes
from shconv.routes.reruns import Run, in_backward, runs

_LED: WeakSet[Any] = WeakSet()  # layers that have run inside a context manager


def in_force(layer: Any, x: Tensor) -> Routes:
    """The routes of a layer's pass over x (N, D, H, W); where a forward pass is run again, those it had the first time.

    Raises:
        InputError: the pass is run again in a way that does not say which it had.
    """
    routes: Routes = layer.routes
    if torch.compiler.is_dynamo_compiling() or (routes.before is None and not in_backward()):
        return routes
    return _held(layer, routes, x)


def _held(layer: Any, routes: Routes, x: Tensor) -> Routes:
    around = runs()
    if around.unknown and routes.before is None and layer in _LED:
        raise InputError(
            "an SHC layer runs again during backward(), and it is not known along which gradient route and with which "
            "kernels it ran before: torch.utils.checkpoint records this, other ways to run a layer again do not. Call "
            'backward() inside the `with` block of gradient_route or frozen_kernels; gradient_route(model, "both") '
            "says that it was neither"
        )
    if around.again is not None:
        note = around.again.notes.get(layer)
        routes = routes.inside(around.again, Routes() if note is None else note.again())
    if routes.before is None:
        return routes
    _LED.add(layer)
    return _noted(layer, routes, x, around.first)


def _noted(layer: Any, routes: Routes, x: Tensor, first: list[Run]) -> Routes:
    """The routes, noted in the runs that they are around: each may be run again after their context has ended."""
    M: Tensor | None = None
    for run in first:
        outer = routes.around(run)
        if outer.before is None:
            continue
        held = isinstance(outer.frozen, FrozenMaps) and outer.frozen is routes.frozen  # others are functions of x
        if held and M is None:
            M = routes.frozen(x)  # type: ignore[misc]
        run.notes.setdefault(layer, _Note(outer)).maps.append(M if held else None)
    return routes if M is None else dataclasses.replace(routes, frozen=lambda _: M)


@dataclasses.dataclass
class _Note:
    """What a layer is to do when a run is run again: the routes around the run, and its frozen maps call by call."""

    routes: Routes
    maps: list[Tensor | None] = dataclasses.field(default_factory=list)
    task: int = -1  # the backward pass that it was last run again in, and the calls since
    calls: int = 0

    def again(self) -> Routes:
        task = torch._C._current_graph_task_id()
        self.calls = self.calls + 1 if task == self.task else 1
        self.task = task
        M = self.maps[(self.calls - 1) % len(self.maps)]
        frozen = self.routes.frozen if M is None else lambda _: M
        recorder = None if self.routes.recorder is None else _unheard  # the layer takes the way that it took
        return dataclasses.replace(self.routes, recorder=recorder, frozen=frozen)


def _unheard(M: Tensor) -> None:
    """In a recorder's place where a run is run again: the maps were recorded the first time."""
