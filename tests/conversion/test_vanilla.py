"""Back to vanilla networks, and vanilla weights into SHC networks."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from tested_networks import photographs
from torch import Tensor, nn

import shconv
from shconv import SHConv2d, create_model, load_vanilla, record_filter_maps, to_shc, to_vanilla
from shconv.errors import InputError
from toys import scrambled


def learnt(map_groups: int = 1) -> nn.Sequential:
    """A network whose maps are its images' own."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2), nn.Flatten())
    return to_shc(net.double(), start="random", map_groups=map_groups, where=[3] if map_groups == 1 else "2")


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 3, 9, 9, dtype=torch.float64)


def test_without_images_every_map_rests_at_one_half(x: Tensor) -> None:
    net = learnt()
    back = to_vanilla(net)
    for layer in net.modules():
        if isinstance(layer, SHConv2d):
            nn.init.zeros_(layer.hyper.output.weight), nn.init.zeros_(layer.hyper.output.bias)
    assert not any(isinstance(module, SHConv2d) for module in back.modules())
    torch.testing.assert_close(back(x), net(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("map_groups", [1, 4])
def test_with_images_every_map_is_its_mean_over_them(map_groups: int, x: Tensor) -> None:
    net = learnt(map_groups)
    with record_filter_maps(net) as maps:
        net(x)
    back = to_vanilla(net, images=x)
    for name, M in maps.items():
        layer = net.get_submodule(name)
        layer.routes = shconv.routes.Routes(frozen=lambda x, M=M: M.mean(0).expand(len(x), *M.shape[1:]))
    torch.testing.assert_close(back(x), net(x), rtol=1e-12, atol=1e-12)
    assert not any(hasattr(module, "hyper") for module in back.modules())


def test_one_image_gives_a_network_that_computes_the_same_on_it(x: Tensor) -> None:
    net = learnt()
    torch.testing.assert_close(to_vanilla(net, images=x[:1])(x[:1]), net(x[:1]), rtol=1e-12, atol=1e-12)


def test_inplace_and_a_layer_by_itself(x: Tensor) -> None:
    net = learnt()
    assert to_vanilla(net, inplace=True) is net
    assert type(net[0]) is nn.Conv2d
    layer = SHConv2d(3, 4, 3, stride=2, padding=1).double()
    assert torch.equal(to_vanilla(layer).weight, layer.weight / 2)
    assert to_vanilla(layer, inplace=True) is layer
    assert type(layer) is nn.Conv2d


def test_the_papers_networks_become_their_twins() -> None:
    vanilla, back = create_model("resnet18", width=8), to_vanilla(create_model("resnet18_shc", width=8))
    assert list(back.state_dict()) == list(vanilla.state_dict())
    assert [type(module) for module in back.modules()] == [type(module) for module in vanilla.modules()]


def test_a_weight_tied_to_a_layer_left_alone_converts_and_comes_back(x: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Tanh(), nn.Conv2d(3, 3, 3)).double()
    net[2].weight = net[0].weight
    converted = to_shc(net, where="0")
    assert converted[2].weight is converted[0].weight
    torch.testing.assert_close(converted(x), net(x), rtol=1e-12, atol=1e-12)
    assert torch.equal(to_vanilla(converted)(x), net(x))
    with pytest.raises(InputError, match="0 shares its weight with a module that has no map"):
        to_vanilla(to_shc(net, where="0", start="random"), images=x)


def test_tied_layers_take_in_one_map_but_not_two(x: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Tanh(), nn.Conv2d(3, 3, 3)).double()
    net[2].weight = net[0].weight
    assert torch.equal(to_vanilla(to_shc(net))(x), net(x))
    with pytest.raises(InputError, match="2 shares its weight with a layer of another mean map"):
        to_vanilla(to_shc(net, start="random"), images=x)


def test_what_cannot_go_back_is_said(x: Tensor) -> None:
    with pytest.raises(InputError, match="Sequential has no SHC layer"):
        to_vanilla(nn.Sequential(nn.Conv2d(3, 3, 3)))
    net = learnt()
    net.add_module("aside", SHConv2d(3, 3, 3))
    net.forward = lambda x: net[2](net[0](x))
    with pytest.raises(InputError, match="do not reach aside"):
        to_vanilla(net, images=x)


def test_a_module_in_the_hypernetworks_place_goes_back_by_images_only(x: Tensor) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_full((len(x), 3, 3), 0.3)

    layer = SHConv2d(3, 4, 3).double()
    layer.hyper = Constant()
    with pytest.raises(InputError, match="a Constant in the hypernetwork's place"):
        to_vanilla(layer)
    torch.testing.assert_close(to_vanilla(layer, images=x)(x), layer(x), rtol=1e-12, atol=1e-12)


# vanilla weights in


LIBRARIES: dict[str, Any] = {
    "torchvision": torchvision.models.get_model,
    "timm": timm.create_model,
}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_resnet_weights_of_both_libraries_load_and_compute_the_same(library: str, name: str) -> None:
    theirs = scrambled(LIBRARIES[library](name, num_classes=7))
    ours = create_model(f"{name}_shc", num_classes=7).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert unexpected == []
    assert all(".hyper." in key for key in missing)
    load_vanilla(ours, theirs.state_dict())
    x = photographs(64)[:2]
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std(0).max() > 1e-3 * expected.abs().max()
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_random_start_takes_the_weights_as_they_are() -> None:
    theirs, ours = create_model("plain10", 5, width=4), create_model("plain10_shc", 5, width=4)
    before = ours.layer1.conv1.hyper.output.weight.clone()
    load_vanilla(ours, theirs.state_dict(), start="random")
    assert torch.equal(ours.layer1.conv1.weight, theirs.layer1.conv1.weight)
    assert torch.equal(ours.layer1.conv1.hyper.output.weight, before)
    assert before.any()


def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded() -> None:
    ours = create_model("plain10_shc", 5, width=4)
    state = create_model("plain10", 5, width=4).state_dict()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    short = {key: value for key, value in state.items() if key != "fc.bias"}
    for wrong, said in (
        (short, "missing: fc.bias"),
        ({**state, "head.weight": state["fc.weight"]}, "unexpected: head.weight"),
        (create_model("plain10", 6, width=4).state_dict(), "of another shape: fc.weight, fc.bias"),
        (before, r"an SHC network's \(layer1.conv1.hyper.hidden.weight and .*load_state_dict takes them"),
    ):
        with pytest.raises(InputError, match=said):
            load_vanilla(ours, wrong)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
    with pytest.raises(InputError, match='"identity" or "random"'):
        load_vanilla(ours, state, start="half")  # type: ignore[arg-type]
