"""Activation checkpointing: what a forward pass ran with holds when it is run again, wherever backward() is called."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._composable import checkpoint as composable
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from shconv import SHConv2d, frozen_kernels, gradient_route, record_filter_maps
from shconv.errors import InputError
from shconv.routes import HypernetworkPaths, Routes
from shconv.routes.record import changed

Module = Callable[[Tensor], Tensor]


class Again(torch.autograd.Function):
    """A checkpoint of a user's own."""

    @staticmethod
    def forward(ctx: Any, run: Module, x: Tensor) -> Tensor:
        ctx.run = run
        ctx.save_for_backward(x)
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.run(x).backward(gradients[0])
        return None, x.grad


class AgainUnseen(torch.autograd.Function):
    """One whose forward is not given its context."""

    @staticmethod
    def forward(run: Module, x: Tensor) -> Tensor:
        return run(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.run, x = inputs
        ctx.save_for_backward(x)

    backward = Again.backward


reentrant, without = partial(checkpoint, use_reentrant=True), partial(checkpoint, use_reentrant=False)
WAYS: dict[str, Callable[[nn.Module], Module]] = {
    "reentrant": lambda run: partial(reentrant, run),
    "non-reentrant": lambda run: partial(without, run),
    "no early stop": lambda run: partial(without, run, early_stop=False),
    "reentrant in reentrant": lambda run: partial(reentrant, partial(reentrant, run)),
    "non-reentrant in reentrant": lambda run: partial(reentrant, partial(without, run)),
    "reentrant in non-reentrant": lambda run: partial(without, partial(reentrant, run)),
    "non-reentrant in non-reentrant": lambda run: partial(without, partial(without, run)),
    "composable": lambda run: composable(nn.Sequential(run)),
    "a user's own": lambda run: partial(Again.apply, run),  # type: ignore[arg-type]
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


class Twice(nn.Module):
    """Two SHC layers, the second called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (SHConv2d(3, 3, 3, padding=1, hidden_features=8) for _ in range(2))
        self.double()
        for layer in (self.first, self.second):
            nn.init.normal_(layer.hyper.output.weight)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.second(self.first(x)).relu()) + x
        return result


@pytest.fixture
def net() -> Twice:
    return Twice()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 3, 6, 5, dtype=torch.float64)


def loss(run: Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of a pass that begins before the checkpoint, so that x is not its leaf."""
    leaf = x.clone().requires_grad_()
    return leaf, run(leaf * 1.5).square().sum()


def gradients(model: nn.Module, leaf: Tensor, backward: Callable[[], None]) -> list[Tensor]:
    model.zero_grad()
    leaf.grad = None
    backward()
    return [p.grad.clone() for p in (leaf, *model.parameters()) if p.grad is not None]


def same(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected) > 1
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@ways
@pytest.mark.parametrize("route", ["convolution", "hypernetwork", "both"])
def test_a_route_holds_when_backward_is_called_after_its_block(net: Twice, x: Tensor, way: Any, route: str) -> None:
    with gradient_route(net, route, 0.25):
        leaf, L = loss(net, x)
        expected = gradients(net, leaf, L.backward)
        leaf, L = loss(way(net), x)
    same(gradients(net, leaf, L.backward), expected)
    with gradient_route(net, "both"):
        leaf, L = loss(net, x)
    assert not torch.allclose(expected[0], gradients(net, leaf, L.backward)[0])


@ways
def test_backward_inside_the_block_of_another_route_changes_nothing(net: Twice, x: Tensor, way: Any) -> None:
    leaf, L = loss(net, x)
    expected = gradients(net, leaf, L.backward)
    leaf, L = loss(way(net), x)
    with gradient_route(net, "convolution"), frozen_kernels(net, torch.rand_like(x)):
        same(gradients(net, leaf, L.backward), expected)


@ways
def test_two_passes_with_different_routes_keep_their_own_in_one_backward(net: Twice, x: Tensor, way: Any) -> None:
    def both(run: Module) -> tuple[Tensor, Tensor]:
        with gradient_route(net, "hypernetwork"):
            leaf, L = loss(run, x)
        with gradient_route(net, "convolution"):
            L = L - 3 * run(leaf).sum()
        return leaf, L + run(leaf * 0.5).sum()

    leaf, L = both(net)
    expected = gradients(net, leaf, L.backward)
    leaf, L = both(way(net))
    same(gradients(net, leaf, L.backward), expected)


@ways
@pytest.mark.parametrize("outer", ["both", "hypernetwork"])
def test_a_route_set_inside_a_checkpoint_is_set_again(net: Twice, x: Tensor, way: Any, outer: str) -> None:
    paths = HypernetworkPaths(net)
    with gradient_route(net, outer):
        leaf, L = loss(paths, x)
        expected = gradients(net, leaf, L.backward)
        leaf, L = loss(way(paths), x)
    same(gradients(net, leaf, L.backward), expected)


def test_the_paths_through_a_map_of_a_checkpointed_network(net: Twice, x: Tensor) -> None:
    leaf, L = loss(HypernetworkPaths(net), x)
    expected = gradients(net, leaf, L.backward)

    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(net, x, use_reentrant=True)  # type: ignore[no-any-return]

    inside = Inside()
    inside.net = net
    leaf, L = loss(HypernetworkPaths(inside), x)
    same(gradients(net, leaf, L.backward), expected)


@ways
def test_each_call_is_run_again_with_its_own_frozen_map(net: Twice, x: Tensor, way: Any) -> None:
    others = torch.rand_like(x)

    def split(run: Callable[[nn.Module], Module]) -> tuple[Tensor, Tensor]:
        with frozen_kernels(wrapped := nn.Sequential(net), others):
            leaf = x.clone().requires_grad_()
            second = run(net.second)
            y = second(second(run(net.first)(leaf * 1.5)).relu()) + leaf * 1.5
            assert wrapped
            return leaf, y.square().sum()

    leaf, L = split(lambda run: run)
    expected = gradients(net, leaf, L.backward)
    leaf, L = split(way)
    same(gradients(net, leaf, L.backward), expected)
    leaf, L = split(way)
    with frozen_kernels(net, x):
        same(gradients(net, leaf, L.backward), expected)


@ways
def test_maps_that_are_a_function_of_the_input_have_its_gradient(net: Twice, x: Tensor, way: Any) -> None:
    """As in the audit's ablations, which replace hypernetworks by functions."""
    layers = (net.first, net.second)
    with changed({layer: {"frozen": lambda x, of=layer.hyper: of(x).square()} for layer in layers}):
        leaf, L = loss(net, x)
        expected = gradients(net, leaf, L.backward)
        leaf, L = loss(way(net), x)
    same(gradients(net, leaf, L.backward), expected)


@ways
def test_a_pass_that_is_run_again_is_not_recorded_again(net: Twice, x: Tensor, way: Any) -> None:
    seen: list[str] = []
    with record_filter_maps(net) as maps:
        for name, layer in (("first", net.first), ("second", net.second)):
            then = layer.routes.recorder
            change = {"recorder": lambda M, name=name, then=then: (seen.append(name), then(M))}
            layer.routes = layer.routes.changed(change, ())
        leaf, L = loss(way(net), x)
        with torch.no_grad():
            net(torch.rand_like(x))
        last = dict(maps)
        L.backward()
        assert seen == ["first", "second", "second"] * 2
        assert all(maps[name] is last[name] for name in last)
    assert leaf.grad is not None


def test_a_pass_may_be_run_again_more_than_once(net: Twice, x: Tensor) -> None:
    with gradient_route(net, "hypernetwork"), frozen_kernels(net.first, x):
        leaf, L = loss(net, x)
        expected = gradients(net, leaf, L.backward)
        for way in (reentrant, without):
            leaf, L = loss(partial(way, net), x)
            for _ in range(3):
                same(gradients(net, leaf, lambda L=L: L.backward(retain_graph=True)), expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_route_holds_in_checkpoint_sequential(x: Tensor, use_reentrant: bool) -> None:
    net = nn.Sequential(*[SHConv2d(3, 3, 3, padding=1) for _ in range(4)]).double()
    with gradient_route(net, "hypernetwork"):
        leaf, L = loss(net, x)
        expected = gradients(net, leaf, L.backward)
        leaf, L = loss(lambda x: checkpoint_sequential(net, 2, x, use_reentrant=use_reentrant), x)
    same(gradients(net, leaf, L.backward), expected)


def test_nothing_is_left_on_the_layers(net: Twice, x: Tensor) -> None:
    with gradient_route(net, "hypernetwork"):
        _, L = loss(partial(reentrant, net), x)
    L.backward()
    assert net.first.routes == Routes()
    assert net.first.routes.before is None
    with gradient_route(net, "convolution"):
        copied = copy.deepcopy(net)
    assert copied.first.routes == Routes(1.0, 0.0)


def test_a_way_that_does_not_tell_its_routes_is_refused_after_the_block(net: Twice, x: Tensor) -> None:
    leaf, L = loss(partial(AgainUnseen.apply, net), x)
    assert len(gradients(net, leaf, L.backward)) > 1  # no route was ever set
    with gradient_route(net, "hypernetwork"):
        leaf, L = loss(net, x)
        expected = gradients(net, leaf, L.backward)
        leaf, L = loss(partial(AgainUnseen.apply, net), x)
        same(gradients(net, leaf, lambda: L.backward(retain_graph=True)), expected)
    with pytest.raises(InputError, match=r"backward\(\) inside the `with` block of gradient_route"):
        L.backward()


def test_a_hook_of_ones_own_that_runs_a_layer_again_is_refused_after_the_block(net: Twice, x: Tensor) -> None:
    def run(x: Tensor) -> Tensor:
        y = torch.ones_like(x)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t + 0 * net(x)):
            return (y * net(x)).sin()

    with gradient_route(net, "hypernetwork"):
        _, L = loss(run, x)
    with pytest.raises(InputError, match="runs again during backward"):
        L.backward()
