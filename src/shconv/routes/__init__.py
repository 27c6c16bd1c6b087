"""Which gradients flow through an SHC layer and which maps it uses, as context managers: the back-propagation routes
(section 2.2), frozen kernels (the quasi decision boundary of section 4.1), and a record of the maps."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.reruns import Run, in_backward, runs
from shconv.tracing import as_leaf, traced

ROUTES = ("both", "convolution", "hypernetwork")


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

    def around(self, run: Run) -> Routes:
        """What was in force when the run began: without the contexts that were entered in it."""
        return self.before.around(run) if self.before is not None and run in self.within else self

    def inside(self, run: Run, base: Routes) -> Routes:
        """base, changed by the contexts that were entered in the run."""
        if self.before is None or run not in self.within:
            return base
        return self.before.inside(run, base).changed(self.changes, self.within)


def in_force(layer: Any, x: Tensor) -> Routes:
    """The routes of a layer's pass over x (N, D, H, W); where a forward pass is run again, those it had the first time.

    Raises:
        InputError: the pass is run again in a way that does not say which it had.
    """
    routes: Routes = layer.routes
    if torch.compiler.is_dynamo_compiling() or (routes.before is None and not in_backward()):
        return routes
    return _held(layer, routes, x)


@contextmanager
def gradient_route(model: nn.Module, route: str, hypernetwork_weight: float = 1.0) -> Iterator[None]:
    """Let gradients pass through one route of every SHC layer, or both. The outputs do not change.

    Example:
        ```python
        with shconv.gradient_route(model, "convolution"):
            adversarial = attack(model, images, labels)
        ```

    Args:
        model: a network with SHC layers.
        route: "convolution" holds M constant (the paper's SHC-W). "hypernetwork" holds the convolution's input constant
            (SHC-T). "both" is the whole gradient.
        hypernetwork_weight: factor on the hypernetwork route's part of the gradient, for "both".

    Only the gradient of a layer's input changes; the hypernetwork's own parameters keep theirs. Layers without a
    hypernetwork (1x1 convolutions, shortcuts) pass gradients as usual. What torch.utils.checkpoint runs again during
    backward() has the route of its forward pass, also after the `with` block. Only if a compiled layer is inside an
    eager checkpoint, call backward() inside the block.

    Raises:
        InputError: unknown route; a single route on a network without SHC layers.
    """
    if route not in ROUTES:
        raise InputError(f"unknown gradient route {route!r}, choose from {', '.join(ROUTES)}")
    weights = {
        "both": {"convolution": 1.0, "hypernetwork": float(hypernetwork_weight)},
        "convolution": {"convolution": 1.0, "hypernetwork": 0.0},
        "hypernetwork": {"convolution": 0.0, "hypernetwork": float(hypernetwork_weight)},
    }[route]
    layers = shc_layers(model)
    if not layers and route != "both":
        raise InputError(f"{type(model).__name__} has no SHC layer, so it has no {route} route to single out")
    with _changed(dict.fromkeys(layers.values(), weights)):
        yield


class HypernetworkPaths(nn.Module):
    """A network whose gradient is that of both routes less that of the convolution route: only the paths that pass
    through at least one filter map remain. Its outputs are the network's; a pass costs two of the network's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        if traced(x):
            return as_leaf(self, x)
        logits: Tensor = self.model(x)
        with gradient_route(self.model, "convolution"):
            without: Tensor = self.model(x)
        return logits - without + without.detach()


@contextmanager
def frozen_kernels(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Hold every SHC layer's kernels at those of the images x (N, D, H, W), in eval mode and without gradient.

    Inside, the network is the sub-network F_H of section 4.1. What it predicts for other images shows its quasi
    decision boundary. Only batches of N images are accepted.

    Example:
        ```python
        with shconv.frozen_kernels(model, images):
            adversarial = attack(model, images, labels)
        ```

    Raises:
        InputError: the network has no SHC layer; inside, a batch of another size.
    """
    layers = shc_layers(model)
    if not layers:
        raise InputError(f"{type(model).__name__} has no SHC layer, so it has no kernels to freeze")
    maps: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers.values()}
    recording = {layer: {"recorder": maps[layer].append, "frozen": None} for layer in maps}
    with _changed(recording), eval_mode(model), torch.no_grad():
        model(x)
    frozen = {layer: _FrozenMaps(maps[layer]) for layer in maps if maps[layer]}

    def rewind(*_: Any) -> None:
        for each in frozen.values():
            each.rewind()

    with model.register_forward_pre_hook(rewind), _changed({layer: {"frozen": each} for layer, each in frozen.items()}):
        yield


def holds_a_batch(model: object) -> bool:
    """Whether no part of a batch can pass alone: kernels are frozen for it, or a module has `holds_a_batch = True`."""
    if not isinstance(model, nn.Module):
        return False
    frozen = (layer.routes.frozen for layer in shc_layers(model).values())
    named = (getattr(part, "holds_a_batch", False) for part in model.modules())
    return any(named) or any(isinstance(each, _FrozenMaps) for each in frozen)


@contextmanager
def constant_maps(model: nn.Module, maps: Mapping[str, Tensor]) -> Iterator[None]:
    """Hold the maps of some SHC layers at one value for all images, without gradient; `maps` by the layers' names.

    Each M (S_h, S_w), or with map groups (G, S_h, S_w): such as a layer's mean map, so that what changes is what the
    dependence on the image does. Batches of any size can pass.

    Raises:
        InputError: a name of no SHC layer.
    """
    layers = shc_layers(model)
    if unknown := [name for name in maps if name not in layers]:
        known = ", ".join(layers) or "none"
        raise InputError(f"{type(model).__name__} has no SHC layer {unknown[0]!r}; it has {known}")
    held = {name: M.detach() for name, M in maps.items()}
    with _changed({layers[name]: {"frozen": _constant(M)} for name, M in held.items()}):
        yield


def _constant(M: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: M.to(x.device).expand(len(x), *M.shape).contiguous()


@contextmanager
def record_filter_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that every forward pass fills: layer name -> M (N, S_h, S_w) of its last call, detached.

    Raises:
        InputError: the network has no SHC layer.
    """
    layers = shc_layers(model)
    if not layers:
        raise InputError(f"{type(model).__name__} has no SHC layer, so it has no filter maps to record")
    maps: dict[str, Tensor] = {}

    def recorder(name: str, then: Callable[[Tensor], None] | None) -> Callable[[Tensor], None]:
        def record(M: Tensor) -> None:
            maps[name] = M
            if then is not None:
                then(M)

        return record

    with _changed({layer: {"recorder": recorder(name, layer.routes.recorder)} for name, layer in layers.items()}):
        yield maps


def shc_layers(model: nn.Module) -> dict[str, Any]:
    """The SHC layers of a network by name, in the order of model.named_modules()."""
    return {
        name: module for name, module in model.named_modules() if isinstance(getattr(module, "routes", None), Routes)
    }


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and each one back into its own mode at the end."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself, with its gradient multiplied by factor."""
    if factor == 1:
        return x
    if factor == 0:
        return x.detach()
    scaled: Tensor = _ScaleGradient.apply(x, factor)
    return scaled


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


@contextmanager
def _changed(changes: dict[Any, dict[str, Any]]) -> Iterator[None]:
    """Replace fields of some layers' Routes; put back what was there, also after an exception."""
    before = {layer: layer.routes for layer in changes}
    around = runs()
    within = (*around.first, *([around.again] if around.again else []))
    try:
        for layer, fields in changes.items():
            layer.routes = layer.routes.changed(fields, within)
        yield
    finally:
        for layer, routes in before.items():
            layer.routes = routes


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


_LED: WeakSet[Any] = WeakSet()  # layers that have run inside a context manager


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
        held = outer.frozen is not None and outer.frozen is routes.frozen
        if held and M is None:
            M = routes.frozen(x)  # type: ignore[misc]
        run.notes.setdefault(layer, _Note(outer)).maps.append(M if held else None)
    return routes if M is None else dataclasses.replace(routes, frozen=lambda _: M)


class _FrozenMaps:
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
