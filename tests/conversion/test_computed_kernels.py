"""Convolutions whose kernel is computed from the weight, or whose padding depends on the input: the map filters what
they would have convolved with, and everything comes back."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from shconv import SHConv2d, to_shc, to_vanilla
from shconv.errors import InputError


class Centred(nn.Module):
    def forward(self, W: Tensor) -> Tensor:
        return W - W.mean((1, 2, 3), keepdim=True)


def centred() -> nn.Module:
    return parametrize.register_parametrization(nn.Conv2d(4, 6, 3, padding=1), "weight", Centred())


KINDS: dict[str, Callable[[], nn.Module]] = {
    "parametrised": centred,
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(4, 6, 3)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 3, groups=2)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Conv2d(4, 6, 3)),
    "spectral norm, old": lambda: nn.utils.spectral_norm(nn.Conv2d(4, 6, 3)),
    "StdConv2d": lambda: timm.layers.StdConv2d(4, 6, 3, stride=2, bias=True),
    "StdConv2dSame": lambda: timm.layers.StdConv2dSame(4, 6, 3, stride=2),
    "ScaledStdConv2d": lambda: timm.layers.ScaledStdConv2d(4, 6, 3, groups=2, gamma=1.7, gain_init=0.6),
    "ScaledStdConv2dSame": lambda: timm.layers.ScaledStdConv2dSame(4, 6, 3, dilation=2),
    "Conv2dSame": lambda: timm.layers.Conv2dSame(4, 8, 3, stride=2, groups=4),
    "Conv2dSame, parametrised": lambda: parametrizations.weight_norm(timm.layers.Conv2dSame(4, 6, 3, stride=(2, 3))),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))


@pytest.fixture(params=[(9, 8), (10, 13)], ids=str)
def x(request: Any) -> Tensor:
    return torch.randn(2, 4, *request.param, dtype=torch.float64)


def network(make: Callable[[], nn.Module]) -> nn.Sequential:
    net = nn.Sequential(nn.Identity(), make(), nn.ReLU()).double()
    with torch.no_grad():
        net.train()(torch.randn(2, 4, 9, 9, dtype=torch.float64))  # an old spectral norm's first kernel comes of a pass
    return net.eval()


def convolved_by(conv: nn.Module, x: Tensor, M: Tensor) -> Tensor:
    """What a vanilla convolution makes of x with M times the kernel that it hands to F.conv2d."""
    kernels, convolve = [], F.conv2d

    def filtered(x: Tensor, W: Tensor, *rest: Any) -> Tensor:
        kernels.append(W)
        return convolve(x, W * M, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "conv2d", filtered)
        Y: Tensor = conv(x)
    assert len(kernels) == 1
    return Y


@kinds
def test_the_identity_start_computes_the_same(make: Any, x: Tensor) -> None:
    net = network(make)
    converted = to_shc(net)
    assert isinstance(converted[1], SHConv2d)
    torch.testing.assert_close(converted(x), net(x), rtol=1e-12, atol=1e-12)


@kinds
def test_with_learnt_maps_it_is_the_effective_kernel_that_is_filtered(make: Any, x: Tensor) -> None:
    net = network(make)
    layer = to_shc(net, start="random")[1]
    for image, M in zip(x, layer.filter_map(x), strict=True):
        expected = convolved_by(net[1], image[None], M)
        torch.testing.assert_close(layer(image[None]), expected, rtol=1e-12, atol=1e-12)


@kinds
def test_undoing_gives_the_same_class_state_and_outputs(make: Any, x: Tensor) -> None:
    net = network(make)
    back = to_vanilla(to_shc(net))
    assert parametrize.type_before_parametrizations(back[1]) is parametrize.type_before_parametrizations(net[1])
    assert not isinstance(back[1], SHConv2d)
    assert list(back.state_dict()) == list(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), net.state_dict().values(), strict=True))
    assert torch.equal(back(x), net(x))


@kinds
def test_copies_and_state_dicts_compute_the_same_and_only_the_hypernetwork_is_new(make: Any, x: Tensor) -> None:
    net = network(make)
    converted = to_shc(net)
    assert torch.equal(copy.deepcopy(converted)(x), converted(x))
    assert all(key.startswith("1.hyper.") for key in converted.state_dict().keys() - net.state_dict().keys())
    loaded = to_shc(network(make), start="random")  # a gain travels with the state
    loaded.load_state_dict(converted.state_dict())
    torch.testing.assert_close(loaded(x), converted(x), rtol=1e-12, atol=1e-12)


@kinds
def test_gradients_reach_every_parameter(make: Any, x: Tensor) -> None:
    net = to_shc(network(make), start="random").train()
    nn.init.ones_(net[1].hyper.hidden.bias)  # so that no hidden neuron is silent
    (net(x) * torch.randn_like(net(x))).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_a_parametrisation_can_still_be_removed() -> None:
    layer = to_shc(nn.Sequential(centred()))[0]
    W = layer.weight.clone()
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is SHConv2d
    assert torch.equal(layer.weight, W)


def test_a_mean_map_does_not_fit_into_a_computed_kernel(x: Tensor) -> None:
    net = to_shc(network(KINDS["StdConv2d"]), start="random")
    with pytest.raises(InputError, match="kernel of 1 is computed from its weight"):
        to_vanilla(net, images=x)
