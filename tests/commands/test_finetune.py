"""`shconv finetune`: a network with weights becomes an SHC network that computes the same, then learns."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from shconv.commands.finetune import Finetune
from shconv.errors import InputError
from shconv.pretrained import ConvertedConfig, from_pretrained, save_pretrained
from shconv.pretrained.finetune import fine_tune, parameter_groups, set_training
from shconv.pretrained.own import network_of, shc_of
from shconv.routes import shc_layers
from shconv.training import ModelConfig, Recipe, save_checkpoint
from toys import colour_data, colour_folder, colour_networks

ARCH = "timm:test_resnet"
OUT = "stored"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Weights of four classes, as a training script would store them."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "trained.pth"
    torch.save({"state_dict": ConvertedConfig(ARCH, 4).vanilla().state_dict()}, file)
    return file


def test_the_whole_way_converted_equal_tuned_stored_and_loaded(shconv, pictures, weights):
    tuned = ("--epochs", 6, "--batch-size", 12, "--learning-rate", 0.02, "--hyper-learning-rate", 0.1)
    ended = shconv("finetune", "--from", weights, "--arch", ARCH, "--data", f"folder:{pictures}", "--out", OUT, *tuned)
    assert ended.code == 0, ended.err
    assert "the head is new" in ended.err
    assert "epoch 6: loss" in ended.err
    accuracies = re.findall(r"(\S+ the [\w-]+): ([\d.]+)% of 18 test images \(95 % interval", ended.out)
    assert [moment for moment, _ in accuracies] == [
        "before the conversion",
        "after the conversion",
        "after the fine-tuning",
    ]
    before, after, tuned_to = (float(share) for _, share in accuracies)
    assert before == after < tuned_to
    assert "10 of 15 convolutions are SHC" in ended.out
    stored = json.loads(Path(OUT, "config.json").read_text())
    assert stored["converted"]["source"] == ARCH
    assert stored["largest_difference"] < 1e-4
    assert f"{tuned_to:.2f}% of 18 test images" in Path(OUT, "README.md").read_text()
    model = from_pretrained(OUT)
    images = colour_data().test
    right = (model(images.images.float().div(255)).argmax(1) == images.labels).double().mean()
    assert right > 0.5
    assert any(layer.hyper.output.weight.any() for layer in shc_layers(model).values())  # theta has moved

    some = ("--data", f"folder:{pictures}", "--image-size", 16, "--tables", 1, "--table1-images", 12)
    assert shconv("evaluate", OUT, *some, "--out", "evaluated").code == 0
    rows = [json.loads(line) for line in Path("evaluated/rows.jsonl").read_text().splitlines()]
    assert {row["model"] for row in rows} == {f"{ARCH} with SHC"}


REFUSED = {
    "a file without its network": ([__file__], "its network is wanted too, --arch timm:NAME"),
    "no such file": (["nowhere.pth", "--arch", ARCH], "there is no file nowhere.pth"),
    "no such network": (["timm:resnet18", "--arch", ARCH], "--arch is for a file of weights"),
    "a path for a name": (["timm:/etc/passwd"], "names no network"),
    "no epochs": (["timm:resnet18", "--epochs", "-1"], "epochs must be at least 0"),
    "no rate": (["timm:resnet18", "--hyper-learning-rate", "nan"], "hyper_learning_rate is nan; wanted: a finite"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_a_line_or_two_and_nothing_is_written(shconv, arguments, message):
    assert message in shconv("finetune", "--from", *arguments).message
    assert list(Path.cwd().iterdir()) == []


def test_trackers_are_told_of_it_and_the_hub_gets_it(shconv, pictures, weights, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "training" / "trackers")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    wandb = importlib.import_module("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)  # taken out again at the end
    pushed = []
    monkeypatch.setattr("shconv.commands.options.check_hub", pushed.append)
    monkeypatch.setattr("shconv.commands.options.push_to_hub", lambda *given: pushed.append(given) or "an address")
    command = ("finetune", "--from", weights, "--arch", ARCH, "--data", f"folder:{pictures}", "--out", OUT)
    command += ("--epochs", 2, "--batch-size", 12, "--log", "wandb", "--push-to-hub", "me/net")
    with monkeypatch.context() as patch:
        patch.setattr("shconv.commands.finetune.save_pretrained", interrupted)
        assert shconv(*command).code == 130
    ended = shconv(*command)
    assert ended.code == 0, ended.err
    assert ended.out.endswith("On Hugging Face: an address\n")
    assert pushed == ["me/net", "me/net", (Path(OUT), "me/net")]
    (run,) = wandb.runs.values()
    assert (run.name, run.opened, run.closed, len(run.settings)) == (OUT, 2, 2, 1)
    steps = 36 // 12
    assert [step for step, _ in run.rows] == [0, steps, 2 * steps]
    assert set(run.rows[0][1]) == {"accuracy/before the conversion", "accuracy/after the conversion"}
    stored = json.loads(Path(OUT, "config.json").read_text())
    assert run.rows[-1][1]["epoch/test_accuracy"] == stored["test_accuracy"]
    assert run.rows[-1][1]["epoch/loss"] < run.rows[1][1]["epoch/loss"]


@pytest.mark.parametrize("out", [("--out", OUT), ()], ids=["a folder asked for", "the usual folder"])
def test_a_fine_tuning_stopped_in_its_last_evaluation_is_completed(shconv, pictures, weights, monkeypatch, out):
    command = ("finetune", "--from", weights, "--arch", ARCH, "--data", f"folder:{pictures}", "--batch-size", 12, *out)
    tuned = ("--epochs", 1, "--learning-rate", 0.02)
    correct, calls = Finetune._correct, []

    def stopped(*given):
        calls.append(given)
        return interrupted() if len(calls) == 3 else correct(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Finetune, "_correct", stopped)
        assert shconv(*command, *tuned).code == 130
    folder = Path(OUT) if out else Path("runs/finetune/timm-test_resnet")
    before = Path(folder, "model.safetensors").read_bytes()
    assert json.loads(Path(folder, "config.json").read_text())["test_accuracy"] is None
    other = shconv(*command, "--epochs", 1, "--seed", 1)
    assert "other settings" in other.err if out else other.code == 0
    with monkeypatch.context() as patch:
        patch.setattr("shconv.commands.finetune.fine_tune", None)
        ended = shconv(*command, *tuned)
    assert ended.code == 0, ended.err
    assert "after the fine-tuning: " in ended.out
    assert before == Path(folder, "model.safetensors").read_bytes()
    assert json.loads(Path(folder, "config.json").read_text())["test_accuracy"] is not None
    assert (not Path(f"{folder}-2").exists()) == bool(out)
    config = Path(folder, "config.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr("shconv.commands.finetune.fine_tune", None)
        again = shconv(*command, *tuned)  # of a finished one
    assert again.out == ended.out
    assert Path(folder, "config.json").read_text() == config


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_options_may_come_from_a_file(shconv, tmp_path):
    (tmp_path / "options.toml").write_text('source = "timm:/etc/passwd"\nepochs = 1\nwhere = ["3", "5"]\n')
    assert "names no network" in shconv("finetune", "--config", tmp_path / "options.toml").message


def test_a_folder_that_holds_something_is_left_alone(shconv):
    Path(OUT).mkdir()
    Path(OUT, "mine").touch()
    assert "not empty" in shconv("finetune", "--from", "timm:resnet18", "--out", OUT).message


def test_the_hypernetworks_have_their_own_rate_and_a_rate_of_zero_keeps_them():
    _, network = colour_networks()
    recipe = Recipe(1, 7, 0.01, schedule="cosine", augmentation="none", precision="float32", weight_decay=0.1)
    others, theta = parameter_groups(network, recipe, 0.05)
    assert theta["scale"] == pytest.approx(5)
    assert len(theta["params"]) == 8  # two layers of two linear maps, each with a bias
    assert len(others["params"]) + 8 == len(list(network.parameters()))
    old = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    fine_tune(network, colour_data().test, recipe, 0.0, torch.device("cpu"))
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, old[name]) == (".hyper." in name), name


def test_frozen_batch_norms_keep_their_statistics_but_not_their_scales():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 8), nn.Dropout(), nn.Flatten())
    recipe = Recipe(1, 7, 0.1, schedule="cosine", augmentation="none", precision="float32")
    fine_tune(network, colour_data().test, recipe, 0.1, torch.device("cpu"))
    assert not network[0].running_mean.any()
    assert (network[0].weight != 1).any()
    set_training(network, freeze_batch_norm=True)
    assert [module.training for module in network] == [False, True, True, True]
    fine_tune(network, colour_data().test, recipe, 0.1, torch.device("cpu"), freeze_batch_norm=False)
    assert network[0].running_mean.any()


@pytest.mark.parametrize("name", ["plain10", "plain10_shc"])
def test_a_checkpoint_of_ours_says_how_it_is_built_and_sees(shconv, pictures, name):
    """Trained at 12 px with ImageNet's normalisation: fine-tuned, and evaluated, as that."""
    data = ("--data", f"folder:{pictures}")
    small = ("--model", name, "--width", 4, "--epochs", 2, "--batch-size", 12, "--image-size", 12)
    assert shconv("train", *data, *small, "--normalize", "imagenet", "--out", "trained").code == 0
    ended = shconv("finetune", "--from", "trained", *data, "--epochs", 1, "--batch-size", 12, "--out", OUT)
    assert ended.code == 0, ended.err
    before, after = re.findall(r"(?:before|after) the conversion: ([\d.]+)%", ended.out)
    assert before == after
    stored = json.loads(Path(OUT, "config.json").read_text())
    assert stored["model"]["name"] == "plain10_shc"
    assert stored["model"]["normalize"] == "imagenet"
    assert stored["data"]["image_size"] == 12
    assert shc_layers(from_pretrained(OUT))
    refused = shconv("finetune", "--from", "trained", *data, "--normalize", "none")
    assert "trained is a checkpoint of shconv: leave out --normalize, the checkpoint says it" in refused.message


def test_a_checkpoint_of_ours_for_other_classes_gets_a_new_head(shconv, pictures, tmp_path):
    data = ("--data", f"folder:{pictures}")
    small = ("--model", "plain10", "--width", 4, "--epochs", 1, "--batch-size", 12)
    assert shconv("train", *data, *small, "--out", "trained").code == 0
    more = colour_folder(tmp_path / "four", classes=("blue", "green", "red", "rust"))
    ended = shconv("finetune", "--from", "trained", "--data", f"folder:{more}", "--epochs", 0, "--out", OUT)
    assert ended.code == 0, ended.err
    assert "3 outputs, 4 classes: the head is new, with random weights" in ended.err
    assert json.loads(Path(OUT, "config.json").read_text())["model"]["num_classes"] == 4


@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("wrapper", ["noise-model:0.1", "detector:layer2"])
def test_what_a_defence_put_around_a_network_of_ours_stays_or_goes_and_the_twin_can_be_stored(
    tmp_path, wrapper, classes
):
    config = ModelConfig("plain10", 3, stem="small", width=2, wrapper=wrapper)
    save_checkpoint(tmp_path, config.build(), {"model": vars(config)})
    said, images = [], torch.rand(4, 3, 8, 8)
    before, built = network_of(tmp_path, classes, 3, said.append)
    twin, built = shc_of(before, built, images)
    assert built.wrapper == (None if "detector" in wrapper else wrapper)
    assert [("detector" in each, "head is new" in each) for each in said] == [
        *[(True, False)] * ("detector" in wrapper),
        *[(False, True)] * (classes == 4),
    ]
    assert len(shc_layers(twin)) == 8  # all but the stem
    torch.testing.assert_close(twin(images), before(images))
    assert before(images).shape == (4, classes)
    again = from_pretrained(save_pretrained(twin, tmp_path / "again", config=built))
    assert torch.equal(again(images), twin(images))


@pytest.mark.parametrize("name", ["plain10_matched", "plain10_se"])
def test_a_network_without_an_shc_counterpart_is_refused_before_it_is_trained(tmp_path, name):
    config = ModelConfig(name, 3, stem="small", width=2)
    save_checkpoint(tmp_path, config.build(), {"model": vars(config)})
    with pytest.raises(InputError, match=f"is a {name}, which has no SHC counterpart; wanted: plain10, say"):
        network_of(tmp_path, 3, 3, print)
