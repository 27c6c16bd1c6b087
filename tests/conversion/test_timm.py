"""The paper's networks in timm's registry."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tested_networks import photographs
from torch import nn

import shconv.timm
from shconv import SHConv2d
from shconv.errors import InputError


def test_the_papers_networks_are_listed() -> None:
    assert timm.list_models("*_shc") == ["plain10_shc", "resnet18_shc", "resnet50_shc"]
    assert set(shconv.list_models()) <= set(timm.list_models())


@pytest.mark.parametrize("name", ["plain10", "plain10_shc", "resnet18_shc", "resnet50_shc"])
def test_they_take_classes_and_input_channels(name: str) -> None:
    net = timm.create_model(name, num_classes=7, in_chans=1)
    assert net(torch.rand(2, 1, 64, 64)).shape == (2, 7)
    convolutions = {key: m for key, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    assert type(convolutions.pop("conv1")) is nn.Conv2d
    assert all(isinstance(m, SHConv2d) == (m.kernel_size == (3, 3) and "shc" in name) for m in convolutions.values())


def test_pretrained_weights_are_the_vanilla_networks_and_start_at_the_identity(tmp_path: Path) -> None:
    vanilla = timm.create_model("resnet18", num_classes=5, zero_init_last=False)
    torch.save(vanilla.state_dict(), tmp_path / "weights.pth")
    source = {"file": str(tmp_path / "weights.pth"), "num_classes": 5}
    net = timm.create_model("resnet18_shc", pretrained=True, num_classes=5, pretrained_cfg_overlay=source)
    x = photographs(64)[:2]
    with torch.no_grad():
        expected = vanilla.eval()(x)
        assert expected.std(0).max() > 1e-3 * expected.abs().max()
        torch.testing.assert_close(net.eval()(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_an_shc_checkpoint_loads_by_timms_own_option(tmp_path: Path) -> None:
    net = timm.create_model("plain10_shc", num_classes=5, width=8, stem="small").eval()
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    again = timm.create_model(
        "plain10_shc", num_classes=5, width=8, stem="small", checkpoint_path=str(tmp_path / "weights.pth")
    )
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), net(x))


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"pretrained": True}, "no pretrained weights for plain10_shc"),
        ({"drop_path_rate": 0.1}, "not drop_path_rate=0.1"),
        ({"width": 0}, "width must be at least 1"),
        ({"stem": "deep"}, "stem must be"),
    ],
)
def test_what_plain10_does_not_have_is_refused(argument: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        timm.create_model("plain10_shc", **argument)


# timm's conventions

FIVE = ["plain10", "plain10_shc", "resnet18", "resnet18_shc", "resnet50_shc"]  # resnet18 is timm's own, for comparison
five = pytest.mark.parametrize("name", FIVE)


def built(name: str, **arguments: Any) -> Any:
    """Slim where timm has an argument for it."""
    slim = {"width": 8} if "plain" in name else {}
    return timm.create_model(name, **{**slim, **arguments}).eval()


@five
def test_neutral_arguments_are_taken(name: str) -> None:
    torch.manual_seed(0)
    expected = built(name, num_classes=3).state_dict()
    torch.manual_seed(0)
    neutral = {
        "drop_rate": 0.0,
        "drop_path_rate": 0.0,
        "global_pool": "avg",
        "output_stride": 32,
        "drop_block_rate": None,
    }
    found = built(name, num_classes=3, pretrained=False, scriptable=False, exportable=False, **neutral).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


@five
def test_classifiers_and_features_follow_timms_conventions(name: str) -> None:
    x = torch.rand(2, 3, 64, 64)
    net = built(name, num_classes=7)
    F, hidden = net.num_features, net.head_hidden_size
    assert net.num_classes == 7
    assert net.get_classifier() is net.fc
    assert net.get_classifier(name_only=True) == "fc"
    with torch.no_grad():
        features = net.forward_features(x)
        assert features.shape == (2, F, 2, 2)
        assert net.forward_head(features, pre_logits=True).shape == (2, hidden)
        torch.testing.assert_close(net.forward_head(features), net(x))
        last, between = net.forward_intermediates(x)
        torch.testing.assert_close(last, features)
        assert [(Y.shape[1], 64 // Y.shape[2]) for Y in between] == [
            (each["num_chs"], each["reduction"]) for each in net.feature_info
        ]
        net.reset_classifier(0)
        assert net(x).shape == (2, F)
        net.reset_classifier(4, "catavgmax")
        assert net(x).shape == (2, 4)
        assert net.head_hidden_size == 2 * F
    assert net.pretrained_cfg is net.default_cfg
    assert net.pretrained_cfg["architecture"] == name
    assert timm.data.resolve_model_data_config(net)["input_size"][0] == 3
    groups = timm.models.group_parameters(net, net.group_matcher(coarse=True))
    assert sorted(key for group in groups.values() for key in group) == sorted(key for key, _ in net.named_parameters())


@five
@pytest.mark.parametrize(("pool", "shape"), [("avg", (2, -1)), ("max", (2, -1)), ("", (2, -1, 2, 2))])
def test_no_classes_give_features(name: str, pool: str, shape: tuple[int, ...]) -> None:
    net = built(name, num_classes=0, global_pool=pool)
    expected = tuple(net.num_features if size == -1 else size for size in shape)
    with torch.no_grad():
        assert net(torch.rand(2, 3, 64, 64)).shape == expected


@pytest.mark.parametrize("name", ["plain10", "plain10_shc", "resnet18_shc"])
@pytest.mark.parametrize("how", [{}, {"feature_cls": "getter"}, {"feature_cls": "fx"}, {"feature_cls": "dict"}])
def test_features_only_gives_each_stage(name: str, how: dict[str, str]) -> None:
    torch.manual_seed(0)
    whole = built(name, num_classes=2)
    torch.manual_seed(0)
    net = built(name, num_classes=2, features_only=True, out_indices=(0, 2, 4), **how)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        _, expected = whole.forward_intermediates(x, indices=[0, 2, 4])
        found = net(x)
    found = list(found.values()) if isinstance(found, dict) else found
    assert net.feature_info.channels() == [Y.shape[1] for Y in expected]
    assert net.feature_info.reduction() == [32 // Y.shape[2] for Y in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("how", [{}, {"feature_cls": "getter"}])
def test_the_stem_stays_vanilla_whatever_wraps_the_network(how: dict[str, str]) -> None:
    net = built("plain10_shc", stem="small", features_only=True, **how)
    assert sum(isinstance(module, SHConv2d) for module in net.modules()) == 8
    assert [module.in_channels for module in net.modules() if type(module) is nn.Conv2d] == [3]


def test_plain10s_weights_are_those_of_create_model() -> None:
    torch.manual_seed(0)
    net = built("plain10_shc", num_classes=3)
    torch.manual_seed(0)
    ours = shconv.create_model("plain10_shc", num_classes=3, width=8).eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(net(x), ours(x))
    ours.load_state_dict(net.state_dict())


def test_dropout_and_checkpointing_work_on_plain10() -> None:
    net, x = built("plain10_shc", num_classes=3, drop_rate=0.5), torch.rand(2, 3, 32, 32)
    assert torch.equal(net(x), net(x))
    results = []
    for checkpointing in (False, True):
        net.set_grad_checkpointing(checkpointing)
        leaf = x.clone().requires_grad_()
        with shconv.gradient_route(net, "hypernetwork"):
            logits = net(leaf)
        logits.sum().backward()
        results.append(leaf.grad)
    torch.testing.assert_close(*results)
    net.train()
    assert not torch.equal(net(x), net(x))
