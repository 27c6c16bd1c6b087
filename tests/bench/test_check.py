"""What counts as rounding, and what as a wrong result."""

from typing import Any

import pytest
import torch
from torch import Tensor

import shconv
import shconv.bench.check as check
from shconv import create_model
from shconv.bench.check import defined, deviation, layers_deviation, results
from shconv.ops import filtered_conv2d
from shconv.ops import layer as layer_op
from shconv.ops.geometry import Geometry

GEOMETRY = Geometry((2, 2), (1, 1), (1, 1), 1)
DTYPES = [torch.float32, torch.bfloat16]


def tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, weight, dY = (torch.randn(size).to(dtype) for size in ((3, 5, 9, 9), (7, 5, 3, 3), (3, 7, 5, 5)))
    return x, weight, torch.rand(3, 3, 3), dY


def convolution(x: Tensor, weight: Tensor, M: Tensor) -> Tensor:
    return filtered_conv2d(x, weight, M, None, *GEOMETRY)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_right_result_passes(dtype: torch.dtype) -> None:
    given = tensors(dtype)
    assert deviation(results(convolution, *given), defined(*given, GEOMETRY), given[1]) == ""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["Y", "dX", "dW", "dM"])
@pytest.mark.parametrize("spoil", ["one element", "NaN"])
def test_one_wrong_element_of_any_result_is_named(dtype: torch.dtype, name: str, spoil: str) -> None:
    given = tensors(dtype)
    got = results(convolution, *given)
    got[name].view(-1)[4] += torch.nan if spoil == "NaN" else 0.1 * got[name].abs().max()
    assert deviation(got, defined(*given, GEOMETRY), given[1]).startswith(f"wrong {name}: off by ")


def test_float32_allows_less_than_a_thousandth() -> None:
    given = tensors(torch.float32)
    got = results(convolution, *given)
    got["Y"] *= 1.001
    assert deviation(got, defined(*given, GEOMETRY), given[1]).startswith("wrong Y")


def test_a_networks_layers_are_compared_and_the_network_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model("plain10_shc", 3, stem="small", width=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(2, 3, 16, 16)
    assert layers_deviation(network, images) == ""
    monkeypatch.setattr(check, "filtered_conv2d", lambda *given: filtered_conv2d(*given).relu())
    assert layers_deviation(network, images).startswith("wrong Y")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_wrong_gradient_of_one_kind_of_layer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor, weight: Tensor, M: Tensor, bias: None, stride: tuple[int, int], *rest: object) -> Tensor:
        M = M.detach() + 0 * M if stride == (2, 2) and len(weight) == 16 else M
        return filtered_conv2d(x, weight, M, bias, stride, *rest)

    network = create_model("plain10_shc", 3, stem="small", width=2)
    monkeypatch.setattr(check, "filtered_conv2d", wrong)
    assert layers_deviation(network, torch.rand(2, 3, 16, 16)).startswith("wrong dM: off by 1.0e+00")


def test_nothing_but_zeros_is_right_where_the_definition_gives_zeros() -> None:
    x, weight, M, dY = tensors(torch.float32)
    given = 0 * x, weight, M, dY
    wanted = defined(*given, GEOMETRY)
    assert deviation(results(convolution, *given), wanted, weight) == ""
    assert deviation({"Y": torch.full((3, 7, 5, 5), 1e-9)}, wanted, weight).startswith("wrong Y: off by inf")


def test_a_layer_with_a_wrong_filter_map_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 only: the float64 copy that it is compared with is right."""
    network = create_model("plain10_shc", 3, stem="small", width=2)
    plain = shconv.SHConv2d.filter_map
    monkeypatch.setattr(
        shconv.SHConv2d, "filter_map", lambda layer, x: plain(layer, x) * (1 + 0.01 * (x.element_size() == 4))
    )
    assert layers_deviation(network, torch.rand(2, 3, 16, 16)).startswith("wrong filter map: off by ")


@pytest.mark.parametrize("wrong", ["forward", "backward"])
def test_a_layer_that_is_wrong_as_one_op_only_is_found(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model("plain10_shc", 10, stem="small", width=4)
    right = layer_op.shc_conv2d

    def spoiled(x: Tensor, *rest: Any) -> Tensor:
        Y: Tensor = right(x, *rest)
        return Y + 0.1 if wrong == "forward" else Y + (x.sum() - x.sum().detach())

    monkeypatch.setattr(layer_op, "shc_conv2d", spoiled)
    said = layers_deviation(network, torch.rand(2, 3, 16, 16))
    assert said.startswith("wrong Y of the whole layer" if wrong == "forward" else "wrong dX of the whole layer")
