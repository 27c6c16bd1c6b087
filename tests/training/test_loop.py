"""The loop: it learns, what it leaves and logs, and that a pair sees the same."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_toys import Build, Training, batches_of, outcome
from torch import Tensor, nn

from shconv.data import ImageData
from shconv.data.splits import MemorySplit
from shconv.metrics import is_right
from shconv.training import ModelConfig, Recipe, correct_in, load_checkpoint, loop, train
from shconv.training.schedule import learning_rate
from shconv.training.state import load_state

pytestmark = pytest.mark.usefixtures("toy_network")


def test_a_separable_problem_is_learnt(training: Training) -> None:
    result = training.but(epochs=8).run()
    assert result.test_accuracy > 0.95
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < losses[0] / 2


def test_the_folder_holds_the_network_its_record_and_a_line_an_epoch(training: Training) -> None:
    result = training.run("new/folder", seed=3)
    names = [".lock", "best", "config.json", "log.jsonl", "model.safetensors"]
    assert sorted(p.name for p in result.folder.iterdir()) == names
    info = json.loads((result.folder / "config.json").read_text())
    assert info["model"] == json.loads(json.dumps(vars(training.config)))
    assert info["data"]["name"] == "toy"
    assert info["data"]["classes"] == ["red", "green", "blue"]
    assert info["recipe"]["learning_rate"] == training.recipe.learning_rate
    assert (info["seed"], info["epochs_done"], info["finished"]) == (3, 3, True)
    assert info["test_accuracy"] == result.test_accuracy == result.history[-1]["test_accuracy"]
    rows = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    assert rows == list(result.history)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    fields = ("epoch", "loss", "train_accuracy", "test_accuracy", "images_per_second", "seconds", "learning_rate")
    assert all(set(row) == set(fields) for row in rows)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_logged_accuracy_is_that_of_the_stored_network_in_float32(
    tmp_path: Path, training: Training, precision: Any
) -> None:
    result = training.but(precision=precision).run()
    model, _, _ = load_checkpoint(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert result.test_accuracy == correct_in(model, training.data.test, training.recipe.batch_size, "cpu") / len(
        training.data.test
    )


def test_images_that_lie_on_the_device_train_the_same_network(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training.but(augmentation="crop_flip")
    usual = training.run("usual")
    placed: list[MemorySplit] = []

    def near(split: MemorySplit, device: torch.device, augmentation: str = "none") -> MemorySplit:
        placed.append(split.on(device))
        return placed[-1]

    monkeypatch.setattr(loop, "near", near)
    assert outcome(training.run("placed", workers=2)) == outcome(usual)
    assert [len(split) for split in placed] == [len(training.data.train or ()), len(training.data.test)]


def test_the_losses_logged_are_the_means_over_the_images(
    training: Training, monkeypatch: pytest.MonkeyPatch, toy_network: Callable[[Build], None]
) -> None:
    toy_network(lambda classes, width: nn.Sequential(nn.Flatten(), nn.Linear(192, classes)))
    seen = batches_of(monkeypatch)
    slow = training.but(epochs=1, learning_rate=1e-30, weight_decay=0.0, warmup_epochs=0, precision="float32")
    result = slow.run()
    images, labels = torch.cat([b.images for b in seen]).float() / 255, torch.cat([b.labels for b in seen])
    logits = result.model(images)
    assert result.history[0]["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result.history[0]["train_accuracy"] == (logits.argmax(1) == labels).float().mean().item()


def test_every_step_takes_the_rate_of_its_middle(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: [taken.append(self.param_groups[0]["lr"]), step(self, *a)][1]
    )
    result = training.run()
    steps = len(training.data.train or ()) // training.recipe.batch_size
    assert taken == [learning_rate(training.recipe, (k + 0.5) / steps) for k in range(3 * steps)]
    assert [row["learning_rate"] for row in result.history] == taken[steps - 1 :: steps]


def test_the_outcome_depends_on_the_seed_and_not_on_torchs_random_state(training: Training) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = training.run("1", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert outcome(training.run("2", seed=5)) == outcome(first)
    assert outcome(training.run("3", seed=6))[0] != outcome(first)[0]


def test_a_pair_sees_the_same_batches(
    tmp_path: Path, data: ImageData, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real networks
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    seen = batches_of(monkeypatch)
    for name in ("plain10", "plain10_shc"):
        slim = ModelConfig(name, 3, stem="small", width=2)
        train(slim, data, replace(recipe, epochs=2), tmp_path / name, seed=4, progress=False)
    vanilla, shc = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(vanilla) == len(shc) == 2 * (70 // 16)
    for a, b in zip(vanilla, shc, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(a, b, strict=True))
    assert not torch.equal(vanilla[0].index, vanilla[4].index)  # the second epoch has an order of its own


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["auto", "fp16", "float32"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_on_a_gpu_every_precision_learns_and_can_be_continued(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch, precision: Any, channels_last: bool
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    training = training.but(epochs=8, precision=precision, channels_last=channels_last)
    with monkeypatch.context() as patch:
        batches_of(patch, stop_at=14)
        with pytest.raises(KeyboardInterrupt):
            training.run()
    state, problem = load_state(tmp_path)
    assert (state is None, problem) == (False, None)
    result = training.run()
    assert len(result.history) == 8
    assert result.test_accuracy > 0.95
    assert {p.device.type for p in result.model.parameters()} == {"cpu"}


class Brightness(nn.Module):
    """Class 1 where the mean is above one half; notes the shapes it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        score = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 10, 64])
def test_every_image_is_counted_once_in_one_batch_shape(batch_size: int) -> None:
    images = torch.full((10, 3, 2, 2), 255, dtype=torch.uint8)
    images[:4] = 0  # the padding would be right, too: label 0 is the majority of what follows
    split = MemorySplit(images, torch.tensor([0, 0, 0, 1, 0, 1, 1, 1, 1, 1]), [str(i) for i in range(10)])
    model = Brightness()
    assert correct_in(model, split, batch_size, "cpu") == 8
    assert set(model.shapes) == {(batch_size, 3, 2, 2)}
    assert not model.training


def test_logits_that_are_no_numbers_are_never_right_but_a_class_may_be_ruled_out() -> None:
    logits = torch.tensor([[math.nan, math.nan], [1, 0], [1, -math.inf], [math.inf, 0], [-math.inf] * 2, [1, math.nan]])
    found = is_right(logits, torch.tensor([0, 0, 0, 0, 0, 1]))
    assert found.tolist() == [False, True, True, False, False, False]


def test_without_a_terminal_progress_is_a_plain_line_an_epoch_on_standard_error(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    training.run(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    title, note, few, *lines = err.splitlines()
    assert "12 steps in all may be too few" in few
    assert (title, note) == ("toy, seed 0, on toy: 70 training and 33 test images", "A toy.")
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all(word in lines[-1] for word in ("loss", "train", "test", "images/s", "0:00:00 left"))
    assert "\x1b" not in err


def test_without_progress_nothing_is_printed(training: Training, capfd: pytest.CaptureFixture[str]) -> None:
    training.run()
    assert capfd.readouterr() == ("", "")
