"""torch's FLOP counter sees an SHC network as its twin and two small matrix products a layer, on every path."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import shconv
from shconv import SHConv2d, gradient_route
from shconv.ops.flops import hypernetwork


def counted(call: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def pair(**options: Any) -> tuple[SHConv2d, nn.Conv2d]:
    arguments = {"in_channels": 8, "out_channels": 12, "kernel_size": 3, "padding": 1, **options}
    return SHConv2d(**arguments), nn.Conv2d(**arguments)


def theta(layer: SHConv2d, images: int) -> int:
    return hypernetwork(images, layer.hyper.hidden.weight.shape, layer.hyper.output.weight.shape)


@pytest.mark.parametrize("name", ["plain10", "resnet18"])
def test_a_network_counts_its_twins_flops_and_its_hypernetworks(name: str) -> None:
    twin, network = (shconv.create_model(each, 10, stem="small", width=4) for each in (name, f"{name}_shc"))
    x = torch.rand(2, 3, 16, 16)
    layers = [each for each in network.modules() if isinstance(each, SHConv2d)]
    own = sum(theta(each, 2) for each in layers)
    assert counted(lambda: network(x)) == counted(lambda: twin(x)) + own
    both = [counted(lambda net=net: net(x).sum().backward()) for net in (twin, network)]
    # Backward: every linear layer's weight and input, once each.
    assert both[1] == both[0] + 3 * own


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"bias": False}, {"groups": 4}, {"dilation": 2}], ids=str)
def test_each_gradient_counts_what_torchs_convolution_counts_for_it(options: dict[str, Any]) -> None:
    layer, conv = pair(**options)
    N = 3
    W1, W2 = (each.weight.numel() for each in (layer.hyper.hidden, layer.hyper.output))
    for of_x, of_weight, of_theta in [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 1, 1), (1, 0, 1)]:
        x = torch.randn(N, 8, 6, 6).requires_grad_(bool(of_x))
        for each in (layer, conv):
            each.weight.requires_grad_(bool(of_weight))
        layer.hyper.requires_grad_(bool(of_theta))
        wanted = counted(lambda x=x: conv(x).sum().backward()) + theta(layer, N)
        if of_x or of_theta:
            wanted += 2 * N * (W2 + of_x * W1 + of_theta * (W1 + W2))
        assert counted(lambda x=x: layer(x).sum().backward()) == wanted, (of_x, of_weight, of_theta)
        assert counted(lambda x=x: by_op(layer, x).sum().backward()) == wanted, (of_x, of_weight, of_theta)


def by_op(layer: SHConv2d, x: Tensor) -> Tensor:
    """The fused op, as a compiled graph calls it."""
    numbers = (layer.stride, layer.padding, layer.dilation, layer.groups, (0, 1), layer.hyper.eps)
    Y: Tensor = torch.ops.shconv.layer.default(x, layer.weight, *layer.hyper.parameters(), layer.bias, *numbers)
    return Y


def test_the_gradient_of_the_map_alone_costs_a_convolution() -> None:
    layer, conv = pair()
    x = torch.randn(3, 8, 6, 6)
    layer.weight.requires_grad_(False)
    once = counted(lambda: conv(x))
    assert counted(lambda: layer(x).sum().backward()) >= 2 * once


def test_a_route_and_a_compiled_layer_count_the_same() -> None:
    layer, _ = pair()
    x = torch.randn(3, 8, 6, 6, requires_grad=True)
    forward = counted(lambda: layer(x))
    with gradient_route(layer, "convolution"):
        assert counted(lambda: layer(x)) == forward
    torch._dynamo.reset()
    whole = torch.compile(layer, backend="aot_eager")
    whole(x)
    assert counted(lambda: whole(x)) == forward
