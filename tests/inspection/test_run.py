"""`shconv.inspection.run` and `shconv inspect`: what they find in networks whose truth is known, what they refuse."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shconv
from shconv.cli import run as command
from shconv.errors import InputError
from shconv.inspection import Inspection, load
from shconv.inspection.attacks import compared, mean_interval
from shconv.inspection.records import verdict
from shconv.report.inspection.tables import grids, masking
from shconv.routes import shc_layers
from toys import CLASSES, colour_folder, colour_networks, colours


class Louder(torch.autograd.Function):
    """M itself; its gradient a thousand times as large, and turned round."""

    @staticmethod
    def forward(ctx: Any, M: Tensor) -> Tensor:
        return M.view_as(M)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -1000 * gradients[0]


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    labels = [i % len(CLASSES) for i in range(60)]
    return colours(labels, least=30).float() / 255, torch.tensor(labels)


def inspected(model: nn.Module, data: Any, **options: Any) -> Inspection:
    return shconv.inspection.run(model, data, progress=False, **{"images": 60, "steps": 3, **options})


@pytest.fixture(scope="module")
def found(data: tuple[Tensor, Tensor]) -> Inspection:
    return inspected(colour_networks()[1], data, eps=0.1)


def test_an_inspection_has_a_record_for_every_layer_and_every_attack_and_route(found: Inspection) -> None:
    assert [each["layer"] for each in found.layers] == ["first", "second"]
    assert len(found.attacks) == 3 * 4
    assert [each["route"] for each in found.linearity] == ["both", "convolution", "hypernetwork", "strict"]
    assert found.images == 60


def test_an_inspection_is_the_same_whatever_the_batch_size(data: tuple[Tensor, Tensor], found: Inspection) -> None:
    other = inspected(colour_networks()[1], data, eps=0.1, batch_size=17)
    for mine, theirs in zip(found.layers, other.layers, strict=True):
        for key in ("spread", "sensitivity", "share", "shift_both", "moved", "difference"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-6), key
    assert [each["correct"] for each in found.attacks] == [each["correct"] for each in other.attacks]


def test_a_network_is_left_as_it_was(data: tuple[Tensor, Tensor]) -> None:
    model = colour_networks()[1].train()
    before = deepcopy(model.state_dict())
    inspected(model, data, images=6, steps=1)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(layer.routes.before is None for layer in shc_layers(model).values())


def test_a_gradient_that_misleads_is_found(data: tuple[Tensor, Tensor]) -> None:
    model = colour_networks()[1]
    for layer in shc_layers(model).values():
        layer.hyper.register_forward_hook(lambda _, __, M: Louder.apply(M))
    found = inspected(model, data, eps=0.1)
    (strongest,) = grids(_held(found))[2].notes
    assert strongest.startswith("The whole gradient misleads: ")
    fgsm = {each["route"]: each for each in found.attacks if each["attack"] == "FGSM"}
    assert fgsm["convolution"]["difference_interval"][1] < 0
    assert fgsm["convolution"]["loss_difference_interval"][0] > 0
    assert found.network["share"] > 0.9


def _held(found: Inspection) -> dict[str, Any]:
    names = ("name", "eps", "images", "network", "layers", "attacks", "linearity")
    return {name: getattr(found, name) for name in names}


def test_an_identity_start_has_only_dead_maps(data: tuple[Tensor, Tensor]) -> None:
    model = shconv.to_shc(colour_networks()[0], start="identity").eval()
    found = inspected(model, data, images=12, steps=1)
    assert {each["verdict"] for each in found.layers} == {"dead"}
    assert found.network["share"] < 1e-6, "dX is rounded in another way where no map's gradient is wanted"
    assert (
        masking(_held(found))
        == "No route breaks significantly more images than both routes together: no sign of masking."
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"spread": 0.0004}, "dead"),
        ({"moved": 0.009, "changed": 0.0}, "idle"),
        ({"moved": 0.009, "changed": 0.1}, "used"),
        ({"difference_interval": [-0.2, -0.1]}, "helps"),
        ({"difference_interval": [0.1, 0.2]}, "harms"),
        ({}, "used"),
    ],
)
def test_a_layers_verdict_goes_by_what_holding_its_map_does(changes: dict[str, Any], word: str) -> None:
    usual = {"spread": 0.1, "mean": 0.5, "moved": 0.5, "changed": 0.2, "difference_interval": [-0.1, 0.1]}
    assert verdict({**usual, **changes}) == word


def test_routes_are_compared_on_the_images_that_are_right_when_clean() -> None:
    clean = np.array([True, True, True, False])
    both = np.array([True, True, False, True]), np.array([0.0, 1.0, 2.0, 9.0])
    other = np.array([False, True, False, True]), np.array([1.0, 1.0, 4.0, 0.0])
    first, second = compared({"both": both, "convolution": other}, clean)
    assert (first["n"], first["correct"], first["difference"], first["loss_difference"]) == (3, 2, 0, 0)
    assert (second["correct"], second["difference"]) == (1, pytest.approx(-1 / 3))
    assert second["loss_difference"] == pytest.approx(1.0)
    assert second["loss_difference_interval"] == pytest.approx(mean_interval(np.array([1.0, 0.0, 2.0])))


def test_no_image_that_is_right_gives_no_number_and_says_so(data: tuple[Tensor, Tensor]) -> None:
    x, _ = data
    wrong = (colour_networks()[1](x).argmax(1) + 1) % 3
    found = inspected(colour_networks()[1], (x[:12], wrong[:12]), images=12, steps=1)
    assert {each["accuracy"] for each in found.attacks} == {None}
    assert masking(_held(found)) == "No image is classified correctly, so there is nothing to attack."
    found.print()


class Blind(nn.Module):
    """A network that gives NaN for images that are darker than a level."""

    def __init__(self, network: nn.Module, level: float) -> None:
        super().__init__()
        self.network, self.level = network, level

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).masked_fill((x.mean((1, 2, 3)) < self.level)[:, None], torch.nan)


def test_images_that_get_nan_are_wrong_and_counted(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    level = float(x.mean((1, 2, 3)).sort().values[20])
    dark = x.mean((1, 2, 3)) < level
    network = colour_networks()[1]
    found = inspected(Blind(network, level), (x, y), steps=1, eps=0.1)
    rest = inspected(network, (x[~dark], y[~dark]), images=40, steps=1, eps=0.1)
    right = int((network(x).argmax(1) == y)[~dark].sum())
    said = [found.network[name] for name in ("n", "unanswered", "correct")]
    assert (found.images, said) == (60, [60, 20, right])
    for mine, other in zip(found.layers, rest.layers, strict=True):
        assert (mine["mean"], mine["share"]) == (pytest.approx(other["mean"]), pytest.approx(other["share"]))
    assert found.attacks[0]["accuracy"] <= rest.attacks[0]["accuracy"]  # an attack may take an image to NaN
    json.dumps(_held(found), allow_nan=False)
    assert "On 20 of 60 images the logits are NaN" in found._repr_html_()
    with pytest.raises(InputError, match="NaN or infinity for every image"):
        inspected(Blind(network, 2.0), (x, y))


def test_without_a_gradient_nothing_is_said_about_masking(
    data: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    class Off(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = colour_networks()[1]

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)

    found = shconv.inspection.run(Off(), data, images=12, steps=1, name="mine")
    assert "mine has a gradient of exactly 0 on 8 of 8 images" in capsys.readouterr().err
    assert masking(_held(found)).startswith("The whole gradient is exactly 0 on 12 of 12 images")


def test_what_is_saved_is_read_again(found: Inspection, tmp_path: Path) -> None:
    place = found.save(tmp_path / "kept")
    assert _held(load(place)) == json.loads(json.dumps(_held(found))) | {
        key: tuple(json.loads(json.dumps(getattr(found, key)))) for key in ("layers", "attacks", "linearity")
    }
    names = {file.name for file in place.iterdir()}
    tables = {
        f"inspection-{name}.{kind}" for name in ("maps", "layers", "routes", "linearity") for kind in ("csv", "md")
    }
    assert names == {"inspection.json", "inspection.svg", "inspection.png", *tables}
    assert "second" in (place / "inspection-layers.md").read_text()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*inspection\.json"):
        load(tmp_path)
    (tmp_path / "inspection.json").write_text('{"name": 1')
    with pytest.raises(InputError, match=r"inspection\.json is damaged"):
        load(tmp_path)


def test_the_tables_are_printed_and_shown_in_a_notebook(found: Inspection, capsys: pytest.CaptureFixture[str]) -> None:
    found.print()
    said = capsys.readouterr().out
    for title in ("Filter maps of model", "What depends on the maps", "Attacks by gradient route", "loss linear"):
        assert title in said
    assert "<h4>What depends on the maps</h4>" in found._repr_html_()


def test_a_network_without_filter_maps_is_refused(data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"has no SHC layer, so it has no filter map to inspect; shconv\.to_shc"):
        inspected(colour_networks()[0], data)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eps": 0}, "eps"),
        ({"eps": "9/8"}, "eps"),
        ({"images": 1}, "images"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"seconds": 0.0, "images": None}, "seconds must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(data: tuple[Tensor, Tensor], options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        inspected(colour_networks()[1], data, **options)


def test_without_a_number_as_many_images_are_taken_as_time_allows(data: tuple[Tensor, Tensor]) -> None:
    found = inspected(colour_networks()[1], data, images=None, seconds=1e-9, steps=1)
    assert found.images == 20
    found = inspected(colour_networks()[1], data, images=None, seconds=1e9, steps=1)
    assert found.images == 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_folder(tmp_path_factory.mktemp("colours"), test=4)


def test_the_command_writes_its_tables_and_picture(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "--model", "plain10_shc", "--width", "4", "--epochs", "1", "--batch-size", "8"]
    assert command([*train, "--data", f"folder:{folder}", "--out", str(tmp_path / "net"), "--device", "cpu"]) == 0
    asked = ["inspect", str(tmp_path / "net"), "--data", f"folder:{folder}", "--images", "8", "--steps", "1"]
    assert command([*asked, "--out", str(tmp_path / "seen"), "--device", "cpu"]) == 0
    assert "Attacks by gradient route" in capfd.readouterr().out
    assert load(tmp_path / "seen").images == 8


def test_the_command_refuses_a_vanilla_network(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from shconv.pretrained import save_pretrained

    save_pretrained(shconv.create_model("plain10", 3, stem="small", width=2), tmp_path / "vanilla")
    asked = ["inspect", str(tmp_path / "vanilla"), "--data", f"folder:{folder}", "--device", "cpu"]
    assert command(asked) == 2
    assert "has no SHC layer" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (2 * x, y), "images: got values"),
        (lambda x, y: (x[:1], y[:1]), "data: got 1 image; want at least 2"),
        (lambda x, y: (x, y[:3]), r"labels: got torch\.int64 of shape \(3,\)"),
        (lambda x, y: (x, y + 7), "labels: got class 9; want classes below 3"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(data: tuple[Tensor, Tensor], change: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        inspected(colour_networks()[1], change(*data), images=12, steps=1)


def test_a_layer_that_is_never_called_is_left_out(data: tuple[Tensor, Tensor]) -> None:
    model = colour_networks()[1]
    model.spare = shconv.SHConv2d(3, 4, 3)
    assert [each["layer"] for each in inspected(model, data, steps=1).layers] == ["first", "second"]
