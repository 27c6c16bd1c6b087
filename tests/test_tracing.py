"""torch.fx: SHC networks are traced as vanilla ones are, each SHC layer as one node, and compute and learn the same."""

import copy
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import shconv
from shconv import SHConv2d, gradient_route, record_filter_maps
from shconv.errors import InputError
from shconv.routes import HypernetworkPaths


def ours(name: str) -> nn.Module:
    return shconv.create_model(name, num_classes=5, stem="small", width=4, normalize="imagenet")


def converted(name: str) -> nn.Module:
    return shconv.to_shc(torchvision.models.get_model(name, num_classes=5), start="random")


NETWORKS: dict[str, Any] = {
    **{name: lambda name=name: ours(name) for name in shconv.list_models() if "50" not in name},
    **{name: lambda name=name: converted(name) for name in ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5")},
}
networks = pytest.mark.parametrize("make", NETWORKS.values(), ids=[f"{k} {i}" for i, k in enumerate(NETWORKS)])


def learnt(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of the parameters."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    logits = model(x)
    logits.square().sum().backward()
    return [logits.detach(), x.grad, *(p.grad for p in model.parameters())]  # type: ignore[list-item]


@networks
def test_a_traced_network_computes_and_learns_what_it_did(make: Any) -> None:
    model, x = make().eval(), torch.rand(2, 3, 48, 48)
    traced = fx.symbolic_trace(copy.deepcopy(model))
    for actual, expected in zip(learnt(traced, x), learnt(model, x), strict=True):
        torch.testing.assert_close(actual, expected)
    layers = [name for name, module in model.named_modules() if isinstance(module, SHConv2d)]
    assert [str(node.target) for node in traced.graph.nodes if str(node.target) in layers] == layers


@pytest.mark.parametrize("name", ["plain10_shc", "resnet18_shc"])
def test_torchvisions_feature_extractor_takes_layers_and_stages(name: str) -> None:
    model, x = ours(name).eval(), torch.rand(2, 3, 16, 16)
    layer = "layer2.conv1" if name == "plain10_shc" else "layer2.0.conv1"
    train, evaluation = get_graph_node_names(model)
    assert layer in train == evaluation if isinstance(train, str) else layer in train and train == evaluation
    seen: dict[str, Tensor] = {}
    model.get_submodule(layer).register_forward_hook(lambda _, __, Y: seen.update({layer: Y}))
    expected = model(x)
    found = create_feature_extractor(model, {layer: "layer", "layer3": "stage", "fc": "logits"})(x)
    torch.testing.assert_close(found["logits"], expected)
    torch.testing.assert_close(found["layer"], seen[layer])
    assert found["stage"].shape[1:] == (16, 4, 4)


def test_routes_and_maps_are_those_of_the_traced_networks_layers() -> None:
    model, x = ours("plain10_shc").eval(), torch.rand(2, 3, 16, 16)
    traced = fx.symbolic_trace(model)
    results = []
    for each in (model, traced):
        with gradient_route(each, "convolution"), record_filter_maps(each) as maps:
            results.append([*learnt(each, x)[:2], *maps.values()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_what_depends_on_contexts_is_a_node_too() -> None:
    model = nn.Sequential(HypernetworkPaths(ours("plain10_shc")), nn.Softmax(1)).eval()
    traced, x = fx.symbolic_trace(copy.deepcopy(model)), torch.rand(2, 3, 16, 16)
    for actual, expected in zip(learnt(traced, x)[:2], learnt(model, x)[:2], strict=True):
        torch.testing.assert_close(actual, expected)


def test_a_hypernetwork_that_a_network_calls_itself_is_a_node() -> None:
    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = SHConv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer.filter_map(x) * 2

    model, x = Maps(), torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(fx.symbolic_trace(model)(x), model(x))


def test_a_layer_by_itself_is_refused_with_a_way_out() -> None:
    layer, x = SHConv2d(3, 4, 3), torch.rand(2, 3, 5, 5)
    with pytest.raises(InputError, match=r"SHConv2d by itself.*nn\.Sequential"):
        fx.symbolic_trace(layer)
    torch.testing.assert_close(fx.symbolic_trace(nn.Sequential(layer))(x), layer(x))
