"""A network -> the same with relatives in it: what where= picks, what is kept, what is refused."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import shconv
from shconv.errors import InputError
from shconv.relatives import RELATIVES, HyperConv2d, Relative, SEConv2d, to_relative

names = pytest.mark.parametrize("name", RELATIVES)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4, bias=False), nn.BatchNorm2d(8))
    return nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), block, nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"))


@names
def test_it_takes_what_where_picks_and_keeps_geometry_weights_and_the_rest(name: str) -> None:
    model = net()
    converted = to_relative(model, name).eval()
    layers = {path: each for path, each in converted.named_modules() if isinstance(each, Relative)}
    assert list(layers) == ["1.0", "2"]
    assert not any(isinstance(each, Relative) for each in model.modules())
    for path, layer in layers.items():
        old = model.get_submodule(path)
        assert type(layer) is RELATIVES[name]
        assert layer.extra_repr() == old.extra_repr()
        if layer.weight is not None:
            assert torch.equal(layer.weight, old.weight)  # type: ignore[arg-type]
        assert not layer.training
    x = torch.rand(2, 3, 8, 8)
    assert converted(x).shape == model(x).shape
    converted(x).sum().backward()
    assert all(parameter.grad is not None for parameter in converted.parameters())


@names
def test_a_layer_built_anew_takes_the_state_of_a_converted_one(name: str) -> None:
    layer = to_relative(nn.Conv2d(4, 6, 3), name)
    fresh = RELATIVES[name](4, 6, 3)
    fresh.load_state_dict(layer.state_dict())
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(fresh(x), layer(x))


def test_where_may_be_a_name_and_options_reach_the_layers() -> None:
    converted = to_relative(net(), "condconv", where=["0", "1.0"], experts=2)
    kinds = {path: len(each.experts) for path, each in converted.named_modules() if isinstance(each, Relative)}
    assert kinds == {"0": 2, "1.0": 2}


def test_a_class_of_ones_own_is_a_kind_and_what_is_converted_is_left_alone() -> None:
    class Own(SEConv2d):
        suffix = "own"

    once = to_relative(net(), Own, where="2")
    twice = to_relative(once, "dfn_local")
    assert {p: type(m).__name__ for p, m in twice.named_modules() if isinstance(m, Relative)} == {
        "1.0": "LocalConv2d",
        "2": "Own",
    }
    with pytest.raises(InputError, match="nothing to convert"):
        to_relative(twice, "dfn_local")


def test_all_layers_of_one_kernel_size_share_one_generator_which_is_counted_once() -> None:
    converted = to_relative(net(), "hypernet", where=[3, 5], embedding=7)
    layers = [each for each in converted.modules() if isinstance(each, HyperConv2d)]
    assert layers[1].generator is layers[2].generator is not layers[0].generator
    own = {name for name, _ in converted.named_parameters() if "generator" in name}
    assert len(own) == 2 * 4
    assert all(layer.embeddings.shape[-1] == layer.generator.embedding == 7 for layer in layers)


REFUSED: dict[str, tuple[Any, str, str]] = {
    "unknown": (net, "condconvs", "unknown relative 'condconvs'; did you mean condconv"),
    "no convolution": (lambda: nn.Sequential(nn.Linear(2, 2)), "se", "picked no module of Sequential"),
    "computed": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 2, 3))), "se", "weight is computed"),
    "shc": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), shconv.SHConv2d(2, 2, 3)), "se", "1 is a SHConv2d already"),
}


@pytest.mark.parametrize(("make", "kind", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted_is_refused_by_name(make: Any, kind: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        to_relative(make(), kind, where=lambda name, module: isinstance(module, nn.Conv2d))


def test_to_shc_refuses_a_relative_by_name() -> None:
    with pytest.raises(InputError, match=r"1.0 is a SEConv2d, an nn.Conv2d with a forward of its own"):
        shconv.to_shc(to_relative(net(), "se"))
