"""What the loop refuses before it writes, and losses that end a training."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_toys import Build, Training, batches_of
from torch import Tensor, nn

from shconv.data.splits import MemorySplit
from shconv.errors import InputError
from shconv.training import Engine, TrainingDiverged, job
from shconv.training.defences import Step, create_defence

pytestmark = pytest.mark.usefixtures("toy_network")


def test_divergence_stops_the_training_and_names_the_batch(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch, toy_network: Callable[[Build], None]
) -> None:
    class Exploding(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            y = super().forward(x.mean((2, 3)))
            return y * math.inf if self.calls == 7 else y

    toy_network(lambda classes, width: Exploding(3, classes))
    seen = batches_of(monkeypatch)
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at epoch 2, step 2, training images \d+") as stopped:
        training.run()
    assert (stopped.value.epoch, stopped.value.step) == (2, 2)  # of four steps an epoch, the seventh
    assert stopped.value.index == seen[6].index.tolist()
    assert len(seen) == 7
    about = json.loads((tmp_path / "diverged.json").read_text())
    assert about == {"epoch": 2, "step": 2, "loss": "nan", "processes": [0], "index": seen[6].index.tolist()}
    assert not (tmp_path / "config.json").exists()


def test_where_losses_are_read_late_the_first_bad_one_is_named(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = batches_of(monkeypatch)
    monkeypatch.setattr(job.Job, "_is_look", lambda self, steps, last: steps == last)
    losses = iter([1.0, math.inf, math.nan, 1.0])
    original = Step.cross_entropy
    monkeypatch.setattr(Step, "cross_entropy", lambda *args: original(*args) * 0 + next(losses))
    with pytest.raises(TrainingDiverged, match="the loss is inf at epoch 1, step 1, training images") as stopped:
        training.run()
    assert len(seen) == 4
    assert stopped.value.index == seen[1].index.tolist()


def test_a_loss_beyond_a_thousand_times_that_of_guessing_has_exploded(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1000 * math.log(3) * share for share in (0.99, 1.01)])
    original = Step.cross_entropy
    monkeypatch.setattr(Step, "cross_entropy", lambda *args: original(*args) * 0 + next(losses))
    with pytest.raises(TrainingDiverged, match=r"the loss is 1109.\d+ at epoch 1, step 1"):
        training.run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, "toy has no training images"),
        ({"train": MemorySplit(torch.empty(0, 3, 8, 8), torch.empty(0), [])}, "toy has no training images"),
        ({"test": MemorySplit(torch.empty(0, 3, 8, 8), torch.empty(0), [])}, "toy has no test images"),
        ({"classes": ("a", "b")}, "the network has 3 classes, toy has 2"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, training: Training, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replace(training, data=replace(training.data, **changes)).run("folder", progress=True)
    assert not (tmp_path / "folder").exists()


def test_other_bad_input_is_refused(tmp_path: Path, training: Training) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; a folder is wanted"):
        training.run("file", progress=True)
    with pytest.raises(InputError, match=r"seed is 9\d+; wanted: an integer >= 0 and below 2\*\*63"):
        training.run(seed=2**63)
    with pytest.raises(InputError, match="seed is -1"):
        training.run(seed=-1, progress=True)
    with pytest.raises(InputError, match="fp16 needs a CUDA device"):
        training.but(precision="fp16").run(progress=True)
    with pytest.raises(InputError, match="a batch of 16 images cannot be divided among 17 micro-batches"):
        training.run(engine=Engine(accumulation=17), progress=True)
    for name, value in (("accumulation", 0), ("save_steps", 0), ("keep_every", 0), ("save_minutes", -1.0)):
        with pytest.raises(InputError, match=f"{name} is {value}"):
            Engine(**{name: value})  # type: ignore[arg-type]


def test_a_detector_that_cannot_be_built_is_refused_before_its_classifier_is_trained(
    tmp_path: Path, training: Training
) -> None:
    with pytest.raises(InputError, match="no layer 'layer9' that gives feature maps"):
        training.run(defence=create_defence("detector", layer="layer9"))
    assert not list(tmp_path.iterdir())
