"""The paper's networks in timm's registry."""

from pathlib import Path

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


def test_timms_interface_works_on_the_resnets() -> None:
    x = torch.rand(1, 3, 64, 64)
    net = timm.create_model("resnet18_shc", num_classes=7)
    net.reset_classifier(3)
    assert net(x).shape == (1, 3)
    assert net.forward_features(x).shape == (1, 512, 2, 2)
    features = timm.create_model("resnet18_shc", features_only=True, out_indices=(2, 4))
    assert [tuple(Y.shape[1:]) for Y in features(x)] == [(128, 8, 8), (512, 2, 2)]
    assert sum(isinstance(module, SHConv2d) for module in features.modules()) == 16


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
    ("argument", "said"), [("features_only", "takes num_classes"), ("pretrained", "no pretrained")]
)
def test_what_plain10_does_not_have_is_refused(argument: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        timm.create_model("plain10_shc", **{argument: True})
