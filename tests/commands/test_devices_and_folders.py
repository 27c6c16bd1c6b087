"""--device, and where a second training with other settings goes."""

import json
from pathlib import Path

import pytest
import torch

from shconv import devices
from shconv.devices import device_named
from shconv.errors import InputError
from shconv.processes import Processes
from toys import colour_folder

pytestmark = pytest.mark.usefixtures("undrawn")

COMPUTING = {
    "train": ["train"],
    "reproduce": ["reproduce"],
    "evaluate": ["evaluate", "CHECKPOINT"],
    "audit": ["audit", "CHECKPOINT"],
    "finetune": ["finetune", "--from", "torchvision:resnet18"],
    "plan": ["plan", "--data", "cifar10"],
    "bench": ["bench", "op"],
}


@pytest.mark.parametrize("arguments", COMPUTING.values(), ids=COMPUTING)
@pytest.mark.parametrize(("name", "said"), [("cuda:7", "cuda:7 is not there: torch finds cpu"), ("gpu", "got 'gpu'")])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(shconv, finished, arguments, name, said):
    checkpoint = finished / "models" / "plain10-seed0"
    filled = [checkpoint if each == "CHECKPOINT" else each for each in arguments]
    assert said in shconv(*filled, "--device", name).message
    assert list(Path.cwd().iterdir()) == []


def test_the_cpu_can_be_asked_for_where_there_is_an_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert Processes.found(device="cpu").device == torch.device("cpu")


def test_an_accelerator_is_taken_by_its_number_and_made_the_current_one(monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: ["cpu", "cuda", "cuda:0", "cuda:1"])
    chosen = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    assert (device_named("cuda:1"), chosen) == (torch.device("cuda", 1), [1])
    assert (device_named("cuda"), device_named(None), chosen) == (torch.device("cuda"), None, [1])
    with pytest.raises(InputError, match="cuda:2 is not there: torch finds cpu, cuda, cuda:0, cuda:1 on this machine"):
        device_named("cuda:2")
    with pytest.raises(InputError, match="mps is not there"):
        device_named("mps")


TINY = ("train", "--width", 2, "--epochs", 1, "--batch-size", 12, "--device", "cpu")


def test_a_training_with_other_settings_has_a_folder_of_its_own_and_each_is_found_again(shconv, pictures):
    data = ("--data", f"folder:{pictures}")
    assert shconv(*TINY, *data).code == 0
    for width, place in ((3, "plain10_shc-seed0-2"), (4, "plain10_shc-seed0-3")):
        for attempt in range(2):  # the same command again finds its own, finished
            ended = shconv(*TINY, *data, "--width", width)
            assert ended.code == 0
            assert (
                f"plain10_shc-seed0 holds a training with other settings: this one goes to runs/train/{place}"
                in ended.err
            )
            assert ("epoch 1/1" in ended.err) == (attempt == 0)
            assert json.loads(Path(f"runs/train/{place}/config.json").read_text())["model"]["width"] == width
    ended = shconv(*TINY, *data)
    assert "holds a training" not in ended.err
    assert ended.out.rstrip().endswith("runs/train/plain10_shc-seed0")
    assert len(list(Path("runs/train").iterdir())) == 3


def test_a_folder_that_was_asked_for_is_kept_to(shconv, pictures):
    data = ("--data", f"folder:{pictures}", "--out", "mine")
    assert shconv(*TINY, *data).code == 0
    assert "mine holds a training with model.width = 2, asked for is 3" in shconv(*TINY, *data, "--width", 3).message


def test_a_run_with_other_options_has_a_folder_of_its_own(shconv, finished, tmp_path):
    data = colour_folder(tmp_path / "data")
    run = ("evaluate", finished / "models" / "plain10_shc-seed0", "--data", f"folder:{data}", "--tables", 1)
    for batch, place in ((8, ""), (6, "-2"), (8, "")):
        ended = shconv(*run, "--batch-size", batch)
        assert ended.code == 0, ended.err
        assert ("holds another run: this one goes to" in ended.err) == bool(place)
    assert len(list(Path("runs").iterdir())) == 2
