"""Gradient routes, frozen kernels, recorded maps: what each does to gradients, what none does to outputs or state."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shconv import SHConv2d, frozen_kernels, gradient_route, record_filter_maps
from shconv.errors import InputError
from shconv.ops import reference
from shconv.routes import Routes


class Net(nn.Module):
    """Two SHC layers, the second called twice, batch norm, dropout and a shortcut; float64, in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.first = SHConv2d(4, 4, 3, padding=1, stride=2)
        self.shared = SHConv2d(4, 4, 3, padding=1, groups=2)
        self.bn, self.drop, self.fc = nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Linear(4, 5)
        self.between: Callable[[], Any] = lambda: None
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        y = self.shared(self.bn(x)).relu()
        self.between()
        logits: Tensor = self.fc(self.drop(self.shared(y) + x).mean((2, 3)))
        return logits


CONTEXTS: dict[str, Callable[[nn.Module, Tensor], AbstractContextManager[Any]]] = {
    "gradient_route": lambda model, x: gradient_route(model, "convolution"),
    "frozen_kernels": frozen_kernels,
    "record_filter_maps": lambda model, x: record_filter_maps(model),
}
contexts = pytest.mark.parametrize("context", CONTEXTS.values(), ids=list(CONTEXTS))


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture
def layer() -> SHConv2d:
    return SHConv2d(4, 6, 3, padding=1, dtype=torch.float64)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 3, 9, 8, dtype=torch.float64)


@pytest.fixture
def features() -> Tensor:
    return torch.randn(3, 4, 6, 5, dtype=torch.float64, requires_grad=True)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (result,) = torch.autograd.grad(model(x).square().sum(), x)
    return result


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


# gradient_route


@pytest.mark.parametrize("route", ["both", "convolution", "hypernetwork"])
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0, -3.0])
@pytest.mark.parametrize("training", [True, False])
def test_a_route_never_changes_outputs(net: Net, x: Tensor, route: str, weight: float, training: bool) -> None:
    net.train(training)
    torch.manual_seed(1)
    expected = copy.deepcopy(net)(x)
    torch.manual_seed(1)
    with gradient_route(net, route, weight):
        assert torch.equal(net(x), expected)


def test_each_route_of_a_layer_is_its_gradient_with_the_other_one_detached(layer: SHConv2d, features: Tensor) -> None:
    M = layer.filter_map(features)
    expected = {
        "convolution": reference.filtered_conv2d(features, layer.weight, M.detach(), layer.bias, 1, 1),
        "hypernetwork": reference.filtered_conv2d(features.detach(), layer.weight, M, layer.bias, 1, 1),
    }
    for route, output in expected.items():
        with gradient_route(layer, route):
            actual = gradient(layer, features)
        (wanted,) = torch.autograd.grad(output.square().sum(), features, retain_graph=True)
        assert wanted.any()
        same(actual, wanted)


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0, -2.0])
def test_a_mixture_is_the_convolution_gradient_plus_the_weighted_hypernetwork_gradient(
    layer: SHConv2d, features: Tensor, weight: float
) -> None:
    with gradient_route(layer, "convolution", 7.0):  # this route has no hypernetwork part to weigh
        convolution = gradient(layer, features)
    with gradient_route(layer, "hypernetwork"):
        hypernetwork = gradient(layer, features)
    with gradient_route(layer, "both", weight):
        same(gradient(layer, features), convolution + weight * hypernetwork)
        each = torch.func.vmap(torch.func.grad(lambda x: layer(x).square().sum()))
        same(each(features.detach()), convolution + weight * hypernetwork)
    if weight:  # without either route x is not in the graph
        with gradient_route(layer, "hypernetwork", weight):
            same(gradient(layer, features), weight * hypernetwork)


def test_both_routes_at_weight_one_are_the_gradient_without_a_context(net: Net, x: Tensor) -> None:
    expected = gradient(net, x)
    with gradient_route(net, "both"):
        assert torch.equal(gradient(net, x), expected)


def test_in_a_whole_network_the_convolution_route_is_the_gradient_with_kernels_frozen_at_x(net: Net, x: Tensor) -> None:
    with frozen_kernels(net, x):
        expected = gradient(net, x)
    with gradient_route(net, "convolution"):
        same(gradient(net, x), expected)
    assert not torch.allclose(gradient(net, x), expected)


def test_the_hypernetwork_route_keeps_shortcuts_and_vanilla_layers_open(x: Tensor) -> None:
    class Shortcut(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layer(x)  # type: ignore[no-any-return]

    layer = SHConv2d(3, 3, 3, padding=1, dtype=torch.float64).requires_grad_(False)
    x.requires_grad_()
    with gradient_route(layer, "hypernetwork"):
        (through_layer,) = torch.autograd.grad(layer(x).sum(), x)
        (whole,) = torch.autograd.grad(Shortcut(layer)(x).sum(), x)
    assert through_layer.any()
    same(whole, through_layer + 1)


@pytest.mark.parametrize("route", ["convolution", "hypernetwork"])
def test_weights_keep_their_gradient_on_every_route(layer: SHConv2d, features: Tensor, route: str) -> None:
    expected = torch.autograd.grad(layer(features).square().sum(), layer.weight)[0]
    with gradient_route(layer, route):
        same(torch.autograd.grad(layer(features).square().sum(), layer.weight)[0], expected)


def test_the_inner_route_holds_until_it_ends_and_then_the_outer_one_again(layer: SHConv2d, features: Tensor) -> None:
    by_route = {}
    for route in ("both", "convolution", "hypernetwork"):
        with gradient_route(layer, route):
            by_route[route] = gradient(layer, features)
    with gradient_route(layer, "convolution"):
        for inner in ("hypernetwork", "both"):
            with gradient_route(layer, inner):
                assert torch.equal(gradient(layer, features), by_route[inner])
            assert torch.equal(gradient(layer, features), by_route["convolution"])
    assert torch.equal(gradient(layer, features), by_route["both"])


def test_blocks_that_end_in_another_order_than_they_began_leave_nothing_behind(layer: SHConv2d) -> None:
    outer, middle, inner = (gradient_route(layer, route) for route in ("convolution", "both", "hypernetwork"))
    for each in (outer, middle, inner):
        each.__enter__()
    middle.__exit__(None, None, None)
    assert layer.routes == Routes(0.0, 1.0)
    outer.__exit__(None, None, None)
    assert layer.routes == Routes(0.0, 1.0)
    inner.__exit__(None, None, None)
    assert layer.routes == Routes()
    assert layer.routes.before is None


def test_an_unknown_route_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"'theta'.*both, convolution, hypernetwork"), gradient_route(Net(), "theta"):
        pass


# every context


@contexts
def test_a_context_leaves_routes_hooks_modes_and_buffers_as_they_were(net: Net, x: Tensor, context: Any) -> None:
    net.train()
    net.stem.eval()
    modes = [module.training for module in net.modules()]
    state = copy.deepcopy(net.state_dict())
    with suppress(ZeroDivisionError), context(net, x):
        assert [module.training for module in net.modules()] == modes
        raise ZeroDivisionError
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert getattr(module, "routes", Routes()) == Routes()


@pytest.mark.parametrize("route", ["convolution", "hypernetwork"])
def test_a_single_route_needs_an_shc_layer(route: str) -> None:
    with pytest.raises(InputError, match="Linear has no SHC layer"), gradient_route(nn.Linear(2, 2), route):
        pass


@pytest.mark.parametrize("context", [frozen_kernels, lambda model, x: record_filter_maps(model)])
def test_kernels_and_maps_need_an_shc_layer(context: Any) -> None:
    with pytest.raises(InputError, match="Linear has no SHC layer"), context(nn.Linear(2, 2), torch.zeros(1, 2)):
        pass


def test_both_routes_suit_a_network_without_shc_layers() -> None:
    vanilla, x = nn.Conv2d(3, 2, 3), torch.rand(1, 3, 5, 5)
    with gradient_route(vanilla, "both", 0.5):
        assert gradient(vanilla, x).any()


# frozen_kernels


def test_the_same_images_give_the_same_output(net: Net, x: Tensor) -> None:
    expected = net(x)
    with frozen_kernels(net, x):
        for _ in range(2):
            assert torch.equal(net(x), expected)


def test_freezing_builds_no_graph(net: Net, x: Tensor) -> None:
    building: list[bool] = []
    net.between = lambda: building.append(torch.is_grad_enabled())
    with frozen_kernels(net, x):
        net(x)
    assert building == [False, True]


def test_other_images_meet_the_frozen_kernels(layer: SHConv2d, features: Tensor) -> None:
    other = torch.randn_like(features)
    with frozen_kernels(layer, features):
        expected = reference.filtered_conv2d(other, layer.weight, layer.filter_map(features), layer.bias, 1, 1)
        same(layer(other), expected)
    assert not torch.allclose(layer(other), expected)


def test_kernels_are_those_of_eval_mode(net: Net, x: Tensor) -> None:
    with record_filter_maps(net) as expected:
        net(x)
    net.train()
    with frozen_kernels(net, x), record_filter_maps(net) as maps:
        net(x)
    assert maps.keys() == expected.keys()
    assert all(torch.equal(maps[name], expected[name]) for name in maps)


def test_another_batch_size_is_refused_with_both_numbers(net: Net, x: Tensor) -> None:
    with frozen_kernels(net, x), pytest.raises(InputError, match="3 images, got 2"):
        net(x[:2])
    with frozen_kernels(net, x[:1]), pytest.raises(InputError, match=r"1 images?, got 3"):
        net(x)


def test_no_gradient_reaches_the_hypernetwork_of_frozen_kernels(layer: SHConv2d, features: Tensor) -> None:
    with frozen_kernels(layer, features):
        layer(features).sum().backward()
        assert all(p.grad is None for p in layer.hyper.parameters())
        assert layer.weight.grad is not None
        layer.requires_grad_(False)
        with gradient_route(layer, "hypernetwork"):
            assert not layer(features).requires_grad


def test_a_forward_pass_that_fails_while_freezing_restores_everything(net: Net) -> None:
    net.train()
    with pytest.raises(RuntimeError, match="channels"), frozen_kernels(net, torch.zeros(2, 5, 9, 8).double()):
        pass
    assert net.training
    assert net.first.routes == net.shared.routes == Routes()


def test_frozen_kernels_inside_frozen_kernels_are_those_of_the_inner_images(net: Net, x: Tensor) -> None:
    other, probe = torch.rand_like(x), torch.rand_like(x)
    with frozen_kernels(net, other):
        expected = net(probe)
    with frozen_kernels(net, x):
        outer = net(probe)
        with frozen_kernels(net, other):
            same(net(probe), expected)
        same(net(probe), outer)


def test_a_forward_pass_that_fails_halfway_does_not_mix_up_a_shared_layers_kernels(net: Net, x: Tensor) -> None:
    expected = net(x)

    def fail() -> None:
        raise ZeroDivisionError

    with frozen_kernels(net, x):
        net.between = fail
        with pytest.raises(ZeroDivisionError):
            net(x)
        net.between = lambda: None
        same(net(x), expected)


# record_filter_maps


def test_maps_are_recorded_by_layer_name_at_every_forward_pass(net: Net, x: Tensor) -> None:
    inputs: dict[str, Tensor] = {}
    for name in ("first", "shared"):
        net.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
    with record_filter_maps(net) as maps:
        assert maps == {}
        for images in (x, torch.rand(2, 3, 7, 7, dtype=torch.float64)):
            net(images)
            assert set(maps) == {"first", "shared"}
            for name, M in maps.items():  # the shared layer's is that of its last call
                assert M.shape == (len(images), 3, 3)
                assert not M.requires_grad
                assert torch.equal(M, net.get_submodule(name).filter_map(inputs[name]))
    recorded = dict(maps)
    net(x)
    assert all(maps[name] is recorded[name] for name in recorded)


def test_a_recorder_inside_a_recorder_fills_both(net: Net, x: Tensor) -> None:
    with record_filter_maps(net) as outer:
        with record_filter_maps(net.first) as inner:
            net(x)
        assert set(inner) == {""}
        assert torch.equal(inner[""], outer["first"])


def test_freezing_does_not_pass_for_a_recorded_forward_pass(net: Net, x: Tensor) -> None:
    with record_filter_maps(net) as maps, frozen_kernels(net, x):
        assert maps == {}
        net(torch.rand_like(x))
        assert set(maps) == {"first", "shared"}
