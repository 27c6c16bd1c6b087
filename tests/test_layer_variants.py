"""SHConv2d's options for studies: other statistics, activations, several maps, any module for the hypernetwork."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layer_toys import images, make
from shconv.errors import InputError
from shconv.layers import Hypernetwork, channel_statistics
from shconv.ops.reference import filtered_conv2d
from toys import words


def test_a_statistic_may_be_any_function_of_the_input() -> None:
    def energy(x: Tensor) -> Tensor:
        return x.square().mean((2, 3))

    layer, x = make(statistics=("mean", energy), padding=1), images()
    s = torch.cat([x.mean((2, 3)), energy(x)], 1)
    torch.testing.assert_close(layer.filter_map(x), layer.hyper.maps(s))
    assert channel_statistics(x.bfloat16(), (energy,)).dtype == torch.float32


@pytest.mark.parametrize("wrong", [lambda x: x.mean((1, 2, 3)), lambda x: x.flatten(2)])
def test_a_statistic_of_another_shape_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"to \(N, D\) = \(3, 4\), got"):
        make(statistics=(wrong,))(images())


def test_an_activation_may_look_at_a_whole_map_but_keeps_its_shape() -> None:
    layer = make(activation=lambda z: z.flatten(-2).softmax(-1).view_as(z))
    torch.testing.assert_close(layer.filter_map(images()).sum((1, 2)), torch.ones(3, dtype=torch.float64))
    with pytest.raises(InputError, match=r"keeps the shape \(3, 3, 3\).*got \(3, 3\)"):
        make(activation=lambda z: z.sum(-1))(images())


def test_any_module_can_take_the_hypernetworks_place() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_full((len(x), 3, 3), 0.25)

    layer, x = make(padding=1), images()
    layer.hyper = Constant()
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight / 4, layer.bias, padding=1))


LATER: dict[str, tuple[str, Any]] = {
    "an activation": ("hyper", {"activation": "softplus"}),
    "statistics": ("hyper", {"statistics": ["std", "mean"]}),
    "a method of the hypernetwork": ("hyper", {"maps": lambda s: s.new_full((len(s), 3, 3), 0.25)}),
    "the map": ("", {"filter_map": lambda x: x.new_full((len(x), 3, 3), 0.25)}),
    "the padding": ("", {"padded": lambda x: (F.pad(x, (2, 2, 2, 2)), 0)}),
}


@pytest.mark.parametrize("name", LATER)
def test_what_is_set_on_a_finished_layer_has_its_effect(name: str) -> None:
    layer, x = make(padding=1), images()
    where, changes = LATER[name]
    for attribute, value in changes.items():
        setattr(layer.get_submodule(where), attribute, value)
    M = layer.hyper.maps(channel_statistics(x, layer.hyper.statistics)) if where else layer.filter_map(x)
    X, padding = layer.padded(x)
    torch.testing.assert_close(layer(x), filtered_conv2d(X, layer.weight, M, layer.bias, padding=padding))


def test_no_kernel_takes_the_place_of_a_hypernetwork_that_makes_its_maps_in_another_way() -> None:
    class Quarter(Hypernetwork):
        def maps(self, s: Tensor) -> Tensor:
            return s.new_full((len(s), 3, 3), 0.25)

    assert Hypernetwork(4, (3, 3)).theta() is not None
    assert Quarter(4, (3, 3)).theta() is None


def test_as_many_map_groups_with_one_map_compute_what_one_map_computes() -> None:
    one, four = make(padding=1), make(padding=1, map_groups=4)
    state = one.state_dict()
    for key in ("hyper.output.weight", "hyper.output.bias"):
        state[key] = torch.cat([state[key]] * 4)
    four.load_state_dict(state)
    x = images()
    assert four.filter_map(x).shape == (3, 4, 3, 3)
    torch.testing.assert_close(four(x), one(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [{"map_groups": 2, "statistics": ("max",), "activation": "softplus"}]
    + [
        pytest.param(each, marks=pytest.mark.slow)
        for each in ({"map_groups": 2}, {"statistics": ("max",)}, {"activation": "softplus"})
    ],
    ids=words,
)
def test_the_variants_compile_to_one_graph_and_serve_low_precision(arguments: dict[str, Any]) -> None:
    layer, x = make(padding=1, **arguments), images()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    low, x = make(torch.bfloat16, padding=1, **arguments), images(dtype=torch.bfloat16)
    assert low.filter_map(x).dtype == torch.float32
    assert low(x).dtype == torch.bfloat16
