import errno
import json
import math
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shconv.data import Batch, ImageData
from shconv.data.splits import MemorySplit
from shconv.errors import InputError
from shconv.training import Engine, ModelConfig, Recipe, TrainingDiverged, correct_in, job, load_checkpoint, loop, train
from shconv.training.defences import Step
from shconv.training.loop import TrainingResult
from shconv.training.schedule import learning_rate
from shconv.training.state import load_state

Build = Callable[..., nn.Module]
TIMES = {"seconds": 0, "images_per_second": 0}

pytestmark = pytest.mark.usefixtures("toy_network")


def outcome(result: TrainingResult) -> tuple[bytes, list[dict[str, Any]]]:
    """All that two equal trainings agree in: the weights' file and the log without its times."""
    rows = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    return (result.folder / "model.safetensors").read_bytes(), [row | TIMES for row in rows]


def batches_of(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[Batch]:
    """The batches that the loop gets from now on; KeyboardInterrupt instead of number `stop_at`."""
    seen: list[Batch] = []
    original = job.training_batches

    class Recorded:
        def __init__(self, *args: Any, **settings: Any) -> None:
            self.batches = original(*args, **settings)

        def __len__(self) -> int:
            return len(self.batches)

        def __iter__(self) -> Generator[Batch]:
            for batch in self.batches:
                if len(seen) == stop_at:
                    raise KeyboardInterrupt
                seen.append(batch)
                yield batch

    monkeypatch.setattr(job, "training_batches", Recorded)
    return seen


def test_a_separable_problem_is_learnt(tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe) -> None:
    result = train(config, data, replace(recipe, epochs=8), tmp_path, progress=False)
    assert result.test_accuracy > 0.95
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < losses[0] / 2


def test_the_folder_holds_the_network_its_record_and_a_line_an_epoch(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe
) -> None:
    result = train(config, data, recipe, tmp_path / "new" / "folder", seed=3, progress=False)
    names = [".lock", "best", "config.json", "log.jsonl", "model.safetensors"]
    assert sorted(p.name for p in result.folder.iterdir()) == names
    info = json.loads((result.folder / "config.json").read_text())
    assert info["model"] == json.loads(json.dumps(vars(config)))
    assert info["data"]["name"] == "toy"
    assert info["data"]["classes"] == ["red", "green", "blue"]
    assert info["recipe"]["learning_rate"] == recipe.learning_rate
    assert (info["seed"], info["epochs_done"], info["finished"]) == (3, 3, True)
    assert info["test_accuracy"] == result.test_accuracy == result.history[-1]["test_accuracy"]
    rows = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    assert rows == list(result.history)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    fields = ("epoch", "loss", "train_accuracy", "test_accuracy", "images_per_second", "seconds", "learning_rate")
    assert all(set(row) == set(fields) for row in rows)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_logged_accuracy_is_that_of_the_stored_network_in_float32(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, precision: Any
) -> None:
    result = train(config, data, replace(recipe, precision=precision), tmp_path, progress=False)
    model, _, _ = load_checkpoint(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert result.test_accuracy == correct_in(model, data.test, recipe.batch_size, "cpu") / len(data.test)


def test_images_that_lie_on_the_device_train_the_same_network(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe, augmentation="crop_flip")
    usual = train(config, data, recipe, tmp_path / "usual", progress=False)
    placed: list[MemorySplit] = []

    def near(split: MemorySplit, device: torch.device, augmentation: str = "none") -> MemorySplit:
        placed.append(split.on(device))
        return placed[-1]

    monkeypatch.setattr(loop, "near", near)
    assert outcome(train(config, data, recipe, tmp_path / "placed", workers=2, progress=False)) == outcome(usual)
    assert [len(split) for split in placed] == [len(data.train or ()), len(data.test)]


def test_the_losses_logged_are_the_means_over_the_images(
    tmp_path: Path,
    data: ImageData,
    config: ModelConfig,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    toy_network: Callable[[Build], None],
) -> None:
    toy_network(lambda classes, width: nn.Sequential(nn.Flatten(), nn.Linear(192, classes)))
    seen = batches_of(monkeypatch)
    slow = replace(recipe, epochs=1, learning_rate=1e-30, weight_decay=0.0, warmup_epochs=0, precision="float32")
    result = train(config, data, slow, tmp_path, progress=False)
    images, labels = torch.cat([b.images for b in seen]).float() / 255, torch.cat([b.labels for b in seen])
    logits = result.model(images)
    assert result.history[0]["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result.history[0]["train_accuracy"] == (logits.argmax(1) == labels).float().mean().item()


def test_every_step_takes_the_rate_of_its_middle(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: [taken.append(self.param_groups[0]["lr"]), step(self, *a)][1]
    )
    result = train(config, data, recipe, tmp_path, progress=False)
    steps = len(data.train or ()) // recipe.batch_size
    assert taken == [learning_rate(recipe, (k + 0.5) / steps) for k in range(3 * steps)]
    assert [row["learning_rate"] for row in result.history] == taken[steps - 1 :: steps]


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_stopped_between_epochs_and_continued_nothing_is_different(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, schedule: Any, epoch: int
) -> None:
    recipe = replace(recipe, schedule=schedule, patience=1, learning_rate=0.5)

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data, recipe, tmp_path / "stopped", progress=False, on_epoch=stop)
    assert (tmp_path / "stopped" / "state.pt").exists()
    torch.rand(epoch)  # another process has another random state
    continued = train(config, data, recipe, tmp_path / "stopped", progress=False)
    assert outcome(continued) == outcome(train(config, data, recipe, tmp_path / "whole", progress=False))


@pytest.mark.parametrize("at", [0, 2, 5, 11])
def test_interrupted_anywhere_and_continued_nothing_is_different(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patch:
        batches_of(patch, stop_at=at)
        with pytest.raises(KeyboardInterrupt):
            train(config, data, recipe, tmp_path / "stopped", progress=False)
    continued = train(config, data, recipe, tmp_path / "stopped", progress=False)
    assert outcome(continued) == outcome(train(config, data, recipe, tmp_path / "whole", progress=False))


def test_a_full_disk_at_any_write_leaves_a_training_that_can_be_continued(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe, epochs=2)
    original = os.replace
    written: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda old, new: [written.append(Path(new).name), original(old, new)])
        whole = train(config, data, recipe, tmp_path / "whole", progress=False)
    first = ["model.safetensors", "config.json", "state.pt", "log.jsonl"]  # the best checkpoint's two files first
    assert written == [*first, "state.previous.pt", "state.pt", "log.jsonl", "log.jsonl", *first[:2]]
    for write in range(len(written)):
        count = iter(range(100))

        def fail(old: Path, new: Path, count: Iterator[int] = count, write: int = write) -> None:
            if next(count) == write:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(old, new)

        folder = tmp_path / str(write)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(OSError, match="No space left") as full:
                train(config, data, recipe, folder, progress=False)
        assert full.value.filename is not None
        assert not list(folder.glob("*.tmp"))
        assert outcome(train(config, data, recipe, folder, progress=False)) == outcome(whole)


def test_the_outcome_depends_on_the_seed_and_not_on_torchs_random_state(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(config, data, recipe, tmp_path / "1", seed=5, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert outcome(train(config, data, recipe, tmp_path / "2", seed=5, progress=False)) == outcome(first)
    assert outcome(train(config, data, recipe, tmp_path / "3", seed=6, progress=False))[0] != outcome(first)[0]


def test_a_finished_training_comes_back_without_training(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(config, data, recipe, tmp_path, progress=False)
    written = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    seen = batches_of(monkeypatch)
    again = train(config, data, recipe, tmp_path, progress=False)
    assert seen == []
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == written
    assert (again.history, again.test_accuracy, again.config) == (first.history, first.test_accuracy, config)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    assert not again.model.training
    assert not first.model.training


@pytest.mark.parametrize("finished", [True, False])
def test_another_trainings_folder_is_refused(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, finished: bool
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if not finished:
            raise KeyboardInterrupt

    if finished:
        train(config, data, recipe, tmp_path, progress=False)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(config, data, recipe, tmp_path, progress=False, on_epoch=stop)
    held = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with pytest.raises(InputError, match=r"recipe\.momentum = 0\.9, asked for is 0\.8"):
        train(config, data, replace(recipe, momentum=0.8), tmp_path)
    with pytest.raises(InputError, match="seed = 0, asked for is 1"):
        train(config, data, recipe, tmp_path, seed=1)
    with pytest.raises(InputError, match=r"model\.width = 6, asked for is 7"):
        train(replace(config, width=7), data, recipe, tmp_path)
    with pytest.raises(InputError, match=r'data\.name = "toy", asked for is "other"'):
        train(config, replace(data, name="other"), recipe, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == held


def test_a_finished_training_without_its_log_is_an_error(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe
) -> None:
    train(config, data, recipe, tmp_path, progress=False)
    (tmp_path / "log.jsonl").unlink()
    with pytest.raises(InputError, match="its log or result is damaged"):
        train(config, data, recipe, tmp_path, progress=False)


def test_divergence_stops_the_training_and_names_the_batch(
    tmp_path: Path,
    data: ImageData,
    config: ModelConfig,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    toy_network: Callable[[Build], None],
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
        train(config, data, recipe, tmp_path, progress=False)
    assert (stopped.value.epoch, stopped.value.step) == (2, 2)  # of four steps an epoch, the seventh
    assert stopped.value.index == seen[6].index.tolist()
    assert len(seen) == 7
    about = json.loads((tmp_path / "diverged.json").read_text())
    assert about == {"epoch": 2, "step": 2, "loss": "nan", "processes": [0], "index": seen[6].index.tolist()}
    assert not (tmp_path / "config.json").exists()


def test_where_losses_are_read_late_the_first_bad_one_is_named(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = batches_of(monkeypatch)
    monkeypatch.setattr(job.Job, "_is_look", lambda self, steps, last: steps == last)
    losses = iter([1.0, math.inf, math.nan, 1.0])
    original = Step.cross_entropy
    monkeypatch.setattr(Step, "cross_entropy", lambda *args: original(*args) * 0 + next(losses))
    with pytest.raises(TrainingDiverged, match="the loss is inf at epoch 1, step 1, training images") as stopped:
        train(config, data, recipe, tmp_path, progress=False)
    assert len(seen) == 4
    assert stopped.value.index == seen[1].index.tolist()


def test_a_loss_beyond_a_thousand_times_that_of_guessing_has_exploded(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1000 * math.log(3) * share for share in (0.99, 1.01)])
    original = Step.cross_entropy
    monkeypatch.setattr(Step, "cross_entropy", lambda *args: original(*args) * 0 + next(losses))
    with pytest.raises(TrainingDiverged, match=r"the loss is 1109.\d+ at epoch 1, step 1"):
        train(config, data, recipe, tmp_path, progress=False)


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
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(config, replace(data, **changes), recipe, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_other_bad_input_is_refused(tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; a folder is wanted"):
        train(config, data, recipe, tmp_path / "file")
    with pytest.raises(InputError, match="seed is -1"):
        train(config, data, recipe, tmp_path, seed=-1)
    with pytest.raises(InputError, match="fp16 needs a CUDA device"):
        train(config, data, replace(recipe, precision="fp16"), tmp_path)
    with pytest.raises(InputError, match="a batch of 16 images cannot be divided among 1 processes with 17 micro-"):
        train(config, data, recipe, tmp_path, engine=Engine(accumulation=17))
    for name, value in (("accumulation", 0), ("save_steps", 0), ("keep_every", 0), ("save_minutes", -1.0)):
        with pytest.raises(InputError, match=f"{name} is {value}"):
            Engine(**{name: value})  # type: ignore[arg-type]


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
    tmp_path: Path,
    data: ImageData,
    config: ModelConfig,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    channels_last: bool,
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    recipe = replace(recipe, epochs=8, precision=precision, channels_last=channels_last)
    with monkeypatch.context() as patch:
        batches_of(patch, stop_at=14)
        with pytest.raises(KeyboardInterrupt):
            train(config, data, recipe, tmp_path, progress=False)
    state, problem = load_state(tmp_path)
    assert (state is None, problem) == (False, None)
    result = train(config, data, recipe, tmp_path, progress=False)
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


def test_without_a_terminal_progress_is_a_plain_line_an_epoch_on_standard_error(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config, data, recipe, tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    title, note, few, *lines = err.splitlines()
    assert "12 steps in all may be too few" in few
    assert (title, note) == ("toy, seed 0, on toy: 70 training and 33 test images", "A toy.")
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all(word in lines[-1] for word in ("loss", "train", "test", "images/s", "0:00:00 left"))
    assert "\x1b" not in err


def test_without_progress_nothing_is_printed(
    tmp_path: Path, data: ImageData, config: ModelConfig, recipe: Recipe, capfd: pytest.CaptureFixture[str]
) -> None:
    train(config, data, recipe, tmp_path, progress=False)
    assert capfd.readouterr() == ("", "")
