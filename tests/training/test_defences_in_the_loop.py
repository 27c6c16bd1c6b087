"""Training with a defence: what it leaves on disk, and that an interruption changes nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loop_toys import Training, batches_of, outcome
from torch import nn

from shconv.errors import InputError
from shconv.training import Defence, ModelConfig, holds_another, load_checkpoint
from shconv.training.defences import (
    FGSMRS,
    PGD,
    TRADES,
    Detector,
    Distillation,
    Ensemble,
    Goodfellow,
    NoiseModel,
    Plain,
    Source,
    Stability,
)

pytestmark = pytest.mark.usefixtures("toy_network")

DEFENCES = [
    "goodfellow",
    "fgsm-rs",
    "pgd",
    "ensemble",
    "stability",
    "trades",
    "distillation",
    "detector",
    "noise-model",
]
LEARNING = ["distillation", "detector"]  # from networks that are trained first


def toy_defence(name: str) -> Defence:
    if name == "ensemble":
        torch.manual_seed(9)
        other = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval().requires_grad_(False)
        return Ensemble((Source(other, ModelConfig("other", 3), ("red", "green", "blue"), 9, "abc"),), eps=0.1)
    toys = [Goodfellow(eps=0.1), FGSMRS(0.1), PGD(0.1, steps=2), Stability(), TRADES(0.1, steps=2), Distillation(2.0)]
    toys += [Detector(0.1, steps=2, layer="conv"), NoiseModel(0.05)]
    return next(each for each in toys if each.name == name)


@pytest.mark.parametrize("name", DEFENCES)
def test_interrupted_and_continued_nothing_is_different(tmp_path: Path, training: Training, name: str) -> None:
    def trained(folder: str) -> None:
        training.run(folder, defence=toy_defence(name))

    trained("whole")
    with pytest.MonkeyPatch.context() as patch:
        batches_of(patch, 11)
        with pytest.raises(KeyboardInterrupt):
            trained("stopped")
    torch.rand(11)  # another process has another random state
    trained("stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("name", LEARNING)
def test_what_a_defence_learns_from_is_trained_once_and_a_stop_after_it_changes_nothing(
    tmp_path: Path, training: Training, name: str
) -> None:
    def trained(folder: Path) -> None:
        training.run(folder, defence=toy_defence(name))

    whole = tmp_path / "whole"
    trained(whole)
    (first,) = toy_defence(name).first(0)
    for at in (12, 19):  # of 12 batches for either network
        stopped = tmp_path / f"stopped{at}"
        with pytest.MonkeyPatch.context() as patch:
            batches_of(patch, at)
            with pytest.raises(KeyboardInterrupt):
                trained(stopped)
        before = (stopped / first / "model.safetensors").stat().st_mtime_ns
        trained(stopped)
        assert (stopped / first / "model.safetensors").stat().st_mtime_ns == before
        for part in (".", first):
            assert outcome(stopped / part) == outcome(whole / part), at


@pytest.mark.parametrize("name", LEARNING)
def test_a_folder_of_another_training_is_refused_before_anything_is_trained(
    tmp_path: Path, training: Training, name: str
) -> None:
    for folder, defence in (("plain", Plain()), ("first", toy_defence(name))):
        with pytest.MonkeyPatch.context() as patch:
            batches_of(patch, 6)
            with pytest.raises(KeyboardInterrupt):
                training.run(folder, defence=defence)
    with pytest.raises(InputError, match=r"plain holds a training with (defence|model.wrapper) = null"):
        training.run("plain", defence=toy_defence(name))
    assert not (tmp_path / "plain" / next(iter(toy_defence(name).first(0)))).exists()
    for folder, seed, another in (("plain", 0, True), ("first", 0, False), ("first", 1, True), ("new", 0, False)):
        assert (
            holds_another(tmp_path / folder, training.config, training.data, training.recipe, seed, toy_defence(name))
            == another
        )


def test_its_random_numbers_depend_on_the_seed_and_leave_the_rest_of_the_randomness_alone(
    training: Training, toy_network: Callable[..., None]
) -> None:
    toy_network(lambda classes, width: nn.Sequential(nn.Flatten(), nn.Linear(192, classes)))
    still = training.but(epochs=1, learning_rate=1e-30, weight_decay=0.0, warmup_epochs=0)
    trained = {
        (seed, defence.name): still.run(f"{seed}{defence.name}", defence=defence, seed=seed)
        for seed in (0, 1)
        for defence in (Plain(), FGSMRS(0.1))
    }
    for seed in (0, 1):  # the same initial weights with and without
        plain, defended = (trained[seed, name].model.state_dict() for name in ("none", "fgsm-rs"))
        assert all(torch.equal(plain[key], defended[key]) for key in plain)
    losses = {key: result.history[0]["loss"] for key, result in trained.items()}
    assert len(set(losses.values())) == 4


@pytest.mark.parametrize("name", DEFENCES)
def test_the_checkpoint_says_how_it_was_trained_and_the_log_how_it_went(
    tmp_path: Path, training: Training, name: str
) -> None:
    result = training.run(defence=toy_defence(name))
    _, _, info = load_checkpoint(tmp_path)
    assert (
        info["defence"]
        == {
            "goodfellow": {"name": "goodfellow", "alpha": 0.5, "eps": 0.1},
            "trades": {"name": "trades", "eps": 0.1, "beta": 6.0, "step_size": 0.007 / 0.031, "steps": 2},
            "distillation": {"name": "distillation", "temperature": 2.0, "teacher": "trained first"},
            "detector": {
                "name": "detector",
                "eps": 0.1,
                "step_size": 0.25,
                "steps": 2,
                "adversary": "dynamic",
                "layer": "conv",
                "classifier": "trained first",
            },
            "noise-model": {"name": "noise-model", "sigma": 0.05},
            "fgsm-rs": {"name": "fgsm-rs", "eps": 0.1, "step_size": 1.25},
            "pgd": {"name": "pgd", "eps": 0.1, "step_size": 0.25, "steps": 2},
            "ensemble": {"name": "ensemble", "eps": 0.1, "sources": [{"model": "other", "seed": 9, "weights": "abc"}]},
            "stability": {"name": "stability", "alpha": 1.0, "sigma": 0.1},
        }[name]
    )
    plain = {"epoch", "loss", "train_accuracy", "test_accuracy", "images_per_second", "seconds", "learning_rate"}
    attacked = {"adversarial_accuracy"} | ({"pgd_accuracy", "warning"} if toy_defence(name).watched else set())
    for row in result.history:
        assert set(row) == plain | (attacked if toy_defence(name).eps is not None else set())
        if name in ("fgsm-rs", "pgd"):
            assert row["train_accuracy"] == row["adversarial_accuracy"]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == list(result.history)


def test_a_plain_checkpoint_says_so_and_older_ones_said_nothing(tmp_path: Path, training: Training) -> None:
    training.run()
    path = tmp_path / "config.json"
    info = json.loads(path.read_text())
    assert info.pop("defence") is None
    path.write_text(json.dumps(info))
    training.run(defence=Plain())
    with pytest.raises(InputError, match=r'holds a training with defence = null, asked for is \{"name": "fgsm-rs"'):
        training.run(defence=FGSMRS())


def test_another_defences_folder_is_refused(training: Training) -> None:
    with pytest.MonkeyPatch.context() as patch:
        batches_of(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            training.run(defence=FGSMRS(0.1))
    with pytest.raises(InputError, match=r"defence.eps = 0.1, asked for is 0.2"):
        training.run(defence=FGSMRS(0.2), progress=True)
    with pytest.raises(InputError, match=r'defence = \{"name": "fgsm-rs".*, asked for is null'):
        training.run(progress=True)


def test_a_source_of_other_classes_is_refused_before_anything_is_written(tmp_path: Path, training: Training) -> None:
    other = replace(training.data, classes=("red", "green", "lime"))
    wanted = r"trained on 3 classes \(red, green, blue\); wanted: 3 classes \(red, green, lime\)"
    with pytest.raises(InputError, match=wanted):
        replace(training, data=other).run("folder", defence=toy_defence("ensemble"), progress=True)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", DEFENCES)
def test_in_bfloat16_too_the_loss_is_finite_and_falls(training: Training, name: str) -> None:
    training = training.but(epochs=6, precision="bf16")
    changes = {"stability": {"sigma": 0.02}, "distillation": {}, "detector": {}, "noise-model": {}}.get(
        name, {"eps": 0.01}
    )
    defence = replace(toy_defence(name), **changes)  # type: ignore[type-var]
    losses = [row["loss"] for row in training.run(defence=defence).history]
    assert losses[-1] < (1 if name in LEARNING else 0.9) * losses[0]  # the two have little left to learn in six epochs
