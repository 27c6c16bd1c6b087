"""What others read: cards without places of this machine, tables for notebooks, messages for images of another kind."""

import json
import re
import socket
import time

import pytest
import torch
from torch import nn

import shconv
from shconv.attacks import FGSM, PGD, GaussianNoise, LocSearchAdv, Square
from shconv.errors import InputError
from shconv.pretrained import network, save_pretrained
from shconv.pretrained.card import without_places
from shconv.pretrained.converted import create_vanilla

PLACES = {
    "folder:/home/me/my birds": "folder:my birds",
    "/home/me/weights.pt": "weights.pt",
    "imagenet:C:\\data\\in": "imagenet:in",
    "D:\\nets\\a.pt": "a.pt",
    "folder:birds": "folder:birds",
    "timm:resnet18.a1_in1k": "timm:resnet18.a1_in1k",
    "https://example.org/a": "https://example.org/a",
    "a / b": "a / b",
    "none": "none",
}


@pytest.mark.parametrize(("given", "kept"), PLACES.items())
def test_of_an_absolute_path_the_last_part_is_left(given, kept):
    assert without_places({"a": [given, 3], "b": {"c": given}}) == {"a": [kept, 3], "b": {"c": kept}}


def test_a_shared_folder_tells_nothing_of_where_its_images_were(tmp_path):
    model = shconv.create_model("plain10_shc", 3, stem="small", width=2)
    place = tmp_path / "private" / "my birds"
    facts = {"data": {"name": f"folder:{place}", "classes": ["a", "b", "c"], "image_size": 8}, "weights": str(place)}
    save_pretrained(model, tmp_path / "shared", facts=facts)
    card, config = ((tmp_path / "shared" / name).read_text() for name in ("README.md", "config.json"))
    assert "folder:my birds, 3 classes" in card
    assert json.loads(config)["weights"] == "my birds"
    assert str(tmp_path) not in card + config


def test_models_are_listed_by_pattern():
    assert shconv.list_models("*shc*") == ["plain10_shc", "resnet18_shc", "resnet50_shc"]
    assert shconv.list_models("resnet18") == ["resnet18"]
    assert shconv.list_models("resnet5?*") == ["resnet50", "resnet50_shc"]
    assert shconv.list_models("vgg*") == []
    assert len(shconv.list_models()) == 6


def test_a_conversion_report_is_a_table_in_a_notebook():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    model.add_module("<b>", nn.Conv2d(4, 4, 3))
    report = shconv.conversion_report(shconv.to_shc(model, start="random"))
    shown = report._repr_html_()
    assert shown.count("<tr") == 4
    assert shown.count("bold") == 2
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "2 of 3 convolutions are SHC" in re.sub(r"\s+", " ", shown)
    assert str(report).endswith(report.total)


# ---- images that a network cannot take

WRONG = {
    "grey": (torch.zeros(2, 1, 16, 16), r"\(2, 1, 16, 16\); this network wants .*\(N, 3, H, W\).*expand"),
    "8-bit": (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), r"torch.uint8 .*images.float\(\) / 255"),
    "one image": (torch.zeros(3, 16, 16), r"shape \(3, 16, 16\); this network wants"),
    "four channels": (torch.zeros(2, 4, 16, 16), r"\(2, 4, 16, 16\); this network wants"),
    "channels last": (torch.zeros(2, 16, 16, 3), r"\(2, 16, 16, 3\); this network wants"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("name", ["plain10", "plain10_shc", "resnet18_shc"])
def test_a_network_says_what_it_wants(name, case):
    images, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        shconv.create_model(name, 3, stem="small", width=2, normalize="imagenet").eval()(images)


ATTACKS = [FGSM(), PGD(0.1, steps=1), Square(0.1, queries=2), LocSearchAdv(steps=1, max_probes=10)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_an_attack_on_anybodys_network_names_the_channels(attack):
    theirs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="images: got 1 channels; want 3, which the network takes"):
        attack(theirs, torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match=r"images.float\(\) / 255"):
        attack(theirs, torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))


def test_other_errors_of_a_network_stay_what_they_are():
    def broken(x):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        FGSM()(broken, torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))


def test_noise_needs_no_network_and_takes_any_channels():
    assert GaussianNoise(0.1)(nn.Identity(), torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)).shape[1] == 1


# ---- weights without a connection


@pytest.fixture
def unconnected(monkeypatch, tmp_path):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def nobody(*address: object) -> list[object]:
        asked.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    return asked


@pytest.mark.parametrize("source", ["timm:resnet18.a1_in1k", "torchvision:resnet18"])
def test_weights_that_cannot_be_had_are_given_up_at_once_with_the_whole_reason(unconnected, source):
    with pytest.raises(InputError) as error:
        create_vanilla(source, pretrained=True)
    said = str(error.value)
    assert said.startswith(f"the weights of {source} could not be loaded: ")
    assert said.endswith(f"Without a connection give a file of weights: --from FILE --arch {source}")
    assert "try again or make sure your Internet connection is on" in said or "Name or service not known" in said
    assert len(unconnected) <= 2
    assert socket.getdefaulttimeout() is None


def test_with_a_connection_nothing_is_changed(monkeypatch):
    hub = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    for connected in (True, False):
        monkeypatch.setattr(network, "_answers", lambda url, answer=connected: answer)
        with network.at_once("timm"):
            assert (hub.HF_HUB_OFFLINE, socket.getdefaulttimeout()) == ((False, None) if connected else (True, 5.0))
        assert (hub.HF_HUB_OFFLINE, socket.getdefaulttimeout()) == (False, None)
