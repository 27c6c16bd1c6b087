"""to_shc: what a converted network computes, keeps and refuses."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest
import timm
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from shconv import SHConv2d, is_3x3, to_shc, to_vanilla
from shconv.errors import InputError
from shconv.relatives import to_relative
from toys import words


class TwoNames(nn.Module):
    """One convolution under two names in one parent, and once more inside a child."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.b = self.a
        self.child = nn.Sequential(nn.ReLU(), self.a)

    def forward(self, x: Tensor) -> Tensor:
        return self.child(self.b(self.a(x)))  # type: ignore[no-any-return]


def tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1, stride=2))
    net[2].weight = net[0].weight
    return net


def nested() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=2, padding=3),
        nn.ModuleDict({"x": nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))})["x"],
        nn.Sequential(nn.Conv2d(8, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"))),
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, bias=False)),
    "grouped, dilated": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 4, 3, groups=2, dilation=2)),
    "strided, circular": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=(2, 1), padding=1, padding_mode="circular")),
    "nested": nested,
    "shared": TwoNames,
    "tied": tied,
    "itself a convolution": lambda: nn.Conv2d(3, 4, 3, stride=2),
}
nets = pytest.mark.parametrize("make", NETS.values(), ids=list(NETS))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 16, 15, dtype=torch.float64)


def shc_layers(net: nn.Module) -> list[SHConv2d]:
    return [module for module in net.modules() if isinstance(module, SHConv2d)]


@nets
@pytest.mark.parametrize("inplace", [False, True])
def test_identity_start_computes_what_the_network_computed(make: Any, inplace: bool, x: Tensor) -> None:
    net = make().double().eval()
    expected = net(x)
    converted = to_shc(net, inplace=inplace)
    assert shc_layers(converted)
    assert not any(is_3x3(name, module) for name, module in converted.named_modules(remove_duplicate=False))
    torch.testing.assert_close(converted(x), expected, rtol=1e-12, atol=1e-12)
    for layer in shc_layers(converted):
        assert torch.equal(layer.filter_map(torch.randn(2, layer.in_channels, 4, 4)), torch.full((2, 3, 3), 0.5))


@nets
def test_random_start_keeps_the_weights_and_draws_a_hypernetwork(make: Any) -> None:
    net = make()
    converted = to_shc(net, start="random")
    state = converted.state_dict()
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert all(".hyper." in f".{name}" for name in state.keys() - net.state_dict().keys())
    assert all(layer.hyper.output.weight.any() for layer in shc_layers(converted))


@pytest.mark.parametrize("start", ["identity", "random"])
@nets
def test_the_original_is_untouched_unless_inplace(make: Any, start: Literal["identity", "random"], x: Tensor) -> None:
    net = make().double().eval()
    before, expected = copy.deepcopy(net.state_dict()), net(x)
    converted = to_shc(net, start=start)
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.add_(1)
    assert not shc_layers(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net(x), expected)


def test_inplace_returns_the_same_network_with_the_same_parameters() -> None:
    net = nested()
    parameters = {id(p) for p in net.parameters()}
    assert to_shc(net, inplace=True) is net
    assert len(shc_layers(net)) == 2
    assert parameters <= {id(p) for p in net.parameters()}


def test_a_convolution_under_several_names_becomes_one_layer_under_all_of_them() -> None:
    net = to_shc(TwoNames())
    assert isinstance(net.a, SHConv2d)
    assert net.a is net.b is net.child[1]


def test_weights_tied_before_are_tied_after() -> None:
    net = to_shc(tied())
    assert net[0].weight is net[2].weight
    assert net[0].hyper is not net[2].hyper


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_dtype_device_mode_and_requires_grad_are_kept(dtype: torch.dtype, device: str) -> None:
    net = nested().to(device=device, dtype=dtype)
    net[1].eval()
    net[1][0].weight.requires_grad_(False)
    converted = to_shc(net)
    frozen, other = shc_layers(converted)
    assert {(p.dtype, p.device.type) for p in converted.parameters()} == {(dtype, device)}
    assert (frozen.training, frozen.hyper.training, other.training) == (False, False, True)
    assert not frozen.weight.requires_grad
    assert other.weight.requires_grad


@pytest.mark.parametrize("name", ["stride", "padding", "dilation", "groups", "padding_mode", "kernel_size"])
def test_the_convolutions_arguments_are_kept(name: str) -> None:
    conv = nn.Conv2d(4, 8, (3, 3), (2, 1), (1, 2), (1, 3), groups=2, padding_mode="replicate")
    assert getattr(to_shc(conv), name) == getattr(conv, name)


@pytest.mark.parametrize("size", [1, 5, (3, 1)])
def test_the_default_takes_3x3_only(size: Any) -> None:
    assert is_3x3("", nn.Conv2d(3, 3, 3))
    assert not is_3x3("", nn.Conv2d(3, 3, size))
    assert not is_3x3("", nn.Conv1d(3, 3, 3))
    assert not is_3x3("", SHConv2d(3, 3, 3))


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(2, 2)),
        nn.Conv2d(3, 3, 5),
        to_shc(nn.Sequential(nn.Conv2d(3, 3, 3))),
    ],
    ids=["no convolution", "no 3x3", "converted already"],
)
def test_nothing_to_convert_is_said(net: nn.Module) -> None:
    with pytest.raises(InputError, match=f"{type(net).__name__}: nothing to convert"):
        to_shc(net)


class Weighted(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.abs(), self.bias)


class Replaced(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(3, 3, 3)
        self.forward = lambda x: x  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Weighted(3, 3, 3), "0.1 is a Weighted, an nn.Conv2d with a forward of its own"),
        (Replaced(), "0.1 is a Replaced whose forward was replaced"),
        (nn.utils.parametrizations.weight_norm(Weighted(3, 3, 3)), "0.1 is a ParametrizedWeighted"),
        (nn.ConvTranspose2d(3, 3, 3), "0.1 is a ConvTranspose2d, not an nn.Conv2d"),
        (nn.LazyConv2d(3, 3), "0.1 is a LazyConv2d, lazy: run the network once"),
        (torch.jit.trace(nn.Conv2d(3, 3, 3), torch.rand(1, 3, 5, 5)), "0.1 is a .*scripted"),
        (torch.ao.nn.quantized.Conv2d(3, 3, 3), "0.1 is a torch.ao.nn.quantized.modules.conv.Conv2d, not an nn.Conv2d"),
        (timm.layers.CondConv2d(3, 3, 3), "0.1 is a CondConv2d"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_no_plain_conv2d_is_refused_by_name_and_nothing_is_changed(module: nn.Module, said: str) -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3), module))
    before = net[0][0].weight.clone()
    with pytest.raises(InputError, match=said):
        to_shc(net, where=lambda name, _: name in ("0.0", "0.1"), inplace=True)
    assert type(net[0][0]) is nn.Conv2d
    assert torch.equal(net[0][0].weight, before)


class Called(nn.Conv2d):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) + 1  # type: ignore[no-any-return]


class Masked(nn.Conv2d):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)  # type: ignore[arg-type]
        self.whole = self._parameters.pop("weight")

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.whole.tril()


@pytest.mark.parametrize("kind", [Called, Masked])
def test_a_class_that_computes_past_its_forward_is_refused(kind: type[nn.Conv2d]) -> None:
    with pytest.raises(InputError, match=f"0 is a {kind.__name__}, an nn.Conv2d with a forward of its own"):
        to_shc(nn.Sequential(kind(3, 3, 3)))


class Listed(nn.Module):
    """Its layers stand in a plain list too, and are called from there."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.layers = [self.a, self.b]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("inplace", [False, True])
def test_whoever_refers_to_a_convolution_has_the_layer_and_afterwards_the_convolution(inplace: bool, x: Tensor) -> None:
    net, kept = Listed().double(), []
    net.a.register_load_state_dict_pre_hook(lambda module, *_: kept.append(type(module)))
    net.b.compile(backend="eager")
    expected = net(x)
    converted = to_shc(net, inplace=inplace)
    assert converted.layers == [converted.a, converted.b]
    torch.testing.assert_close(converted(x), expected, rtol=1e-12, atol=1e-12)
    converted.load_state_dict(converted.state_dict())
    back = to_vanilla(converted, inplace=inplace)
    assert torch.equal(back(x), expected)
    back.load_state_dict(back.state_dict())
    assert kept == [SHConv2d, nn.Conv2d]
    related = to_relative(back, "dfn_local", inplace=inplace)
    torch.testing.assert_close(related(x), expected, rtol=1e-12, atol=1e-12)


def test_a_constant_kernel_is_filtered(x: Tensor) -> None:
    for weight in ("buffer", "attribute"):
        net = nn.Sequential(nn.Conv2d(3, 3, 3, bias=False)).double()
        kernel = net[0]._parameters.pop("weight").detach()  # type: ignore[union-attr]
        if weight == "buffer":
            net[0].register_buffer("weight", kernel)
        else:
            net[0].weight = kernel  # type: ignore[assignment]
        converted = to_shc(net)
        torch.testing.assert_close(converted(x), net(x), rtol=1e-12, atol=1e-12)
        assert converted[0].hyper.output.weight.dtype == torch.float64
        assert torch.equal(to_vanilla(converted)(x), net(x))


def test_a_network_that_processes_share_is_refused() -> None:
    """They would not exchange the gradients of the hypernetworks."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        shared = DistributedDataParallel(nn.Conv2d(3, 3, 3)), fully_shard(nn.Conv2d(3, 3, 3), mesh=mesh)
        for each, kind in zip(shared, ("DistributedDataParallel", "FSDPModule"), strict=True):
            for convert in (to_shc, partial(to_relative, kind="se")):
                with pytest.raises(InputError, match=f"0 is a {kind}, .*: convert the network first"):
                    convert(nn.Sequential(each), inplace=True)
    finally:
        dist.destroy_process_group()


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(InputError, match=r'"identity" or "random".*\'zero\''):
        to_shc(nn.Conv2d(3, 3, 3), start="zero")  # type: ignore[arg-type]


def test_a_scripted_network_is_refused() -> None:
    scripted = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 3, 3)), torch.rand(1, 3, 5, 5))
    with pytest.raises(InputError, match="scripted: convert before scripting"):
        to_shc(scripted)


def test_what_is_shc_already_stays_as_it_is() -> None:
    net = to_shc(nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 5)))
    converted = to_shc(net, where=lambda _, module: isinstance(module, nn.Conv2d))
    assert [layer.kernel_size for layer in shc_layers(converted)] == [(3, 3), (5, 5)]
    assert torch.equal(converted[0].weight, net[0].weight)


def test_a_subclass_that_computes_what_conv2d_does_is_converted_and_hooks_still_run(x: Tensor) -> None:
    class Named(nn.Conv2d):
        pass

    net, calls = nn.Sequential(Named(3, 3, 3)).double(), []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    converted = to_shc(net)
    torch.testing.assert_close(converted(x), net(x), rtol=1e-12, atol=1e-12)
    assert len(calls) == 2


def test_the_new_layers_take_options() -> None:
    net = to_shc(nested(), statistics=("mean", "max"), map_groups=2, hidden_features=3)
    for layer in shc_layers(net):
        assert layer.hyper.statistics == ("mean", "max")
        assert layer.hyper.output.weight.shape == (2 * 9, 3)


@pytest.mark.parametrize("activation", ["sigmoid", "softplus", "identity+1", torch.exp], ids=words)
@pytest.mark.parametrize("map_groups", [1, 2])
def test_the_identity_start_makes_up_for_any_activation(activation: Any, map_groups: int, x: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, groups=2)).double()
    net = to_shc(net, where="1", activation=activation, map_groups=map_groups)
    torch.testing.assert_close(net(x), to_shc(net, where="0", activation=activation)(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", [torch.tanh, lambda z: z.flatten(1).cumsum(1).add(1).view_as(z).sub(2)])
def test_an_activation_without_a_resting_level_has_no_identity_start(activation: Any) -> None:
    with pytest.raises(InputError, match="one positive number at zero"):
        to_shc(nested(), activation=activation)
