"""A training that was stopped or is finished: the same command goes on to the same end, another one is refused."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_toys import Training, batches_of, outcome

from shconv.errors import InputError

pytestmark = pytest.mark.usefixtures("toy_network")


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_stopped_between_epochs_and_continued_nothing_is_different(
    tmp_path: Path, training: Training, schedule: Any, epoch: int
) -> None:
    training = training.but(schedule=schedule, patience=1, learning_rate=0.5)

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.run("stopped", on_epoch=stop)
    assert (tmp_path / "stopped" / "state.pt").exists()
    torch.rand(epoch)  # another process has another random state
    continued = training.run("stopped")
    assert outcome(continued) == outcome(training.run("whole"))


@pytest.mark.parametrize("at", [0, 2, 5, 11])
def test_interrupted_anywhere_and_continued_nothing_is_different(
    training: Training, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patch:
        batches_of(patch, stop_at=at)
        with pytest.raises(KeyboardInterrupt):
            training.run("stopped")
    continued = training.run("stopped")
    assert outcome(continued) == outcome(training.run("whole"))


def test_a_full_disk_at_any_write_leaves_a_training_that_can_be_continued(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training.but(epochs=2)
    original = os.replace
    written: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda old, new: [written.append(Path(new).name), original(old, new)])
        whole = training.run("whole")
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
                training.run(folder)
        assert full.value.filename is not None
        assert not list(folder.glob("*.tmp"))
        assert outcome(training.run(folder)) == outcome(whole)


def test_a_finished_training_comes_back_without_training(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = training.run()
    written = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    (tmp_path / "state.previous.pt").touch()  # a kill at the very end leaves it
    seen = batches_of(monkeypatch)
    again = training.run()
    assert seen == []
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == written
    assert (again.history, again.test_accuracy, again.config) == (first.history, first.test_accuracy, training.config)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    assert not again.model.training
    assert not first.model.training


@pytest.mark.parametrize("finished", [True, False])
def test_another_trainings_folder_is_refused(tmp_path: Path, training: Training, finished: bool) -> None:
    def stop(row: dict[str, Any]) -> None:
        if not finished:
            raise KeyboardInterrupt

    if finished:
        training.run()
    else:
        with pytest.raises(KeyboardInterrupt):
            training.run(on_epoch=stop)
    held = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with pytest.raises(InputError, match=r"recipe\.momentum = 0\.9, asked for is 0\.8"):
        training.but(momentum=0.8).run(progress=True)
    with pytest.raises(InputError, match="seed = 0, asked for is 1"):
        training.run(seed=1, progress=True)
    with pytest.raises(InputError, match=r"model\.width = 6, asked for is 7"):
        replace(training, config=replace(training.config, width=7)).run(progress=True)
    with pytest.raises(InputError, match=r'data\.name = "toy", asked for is "other"'):
        replace(training, data=replace(training.data, name="other")).run(progress=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == held


def test_a_finished_training_without_its_log_is_an_error(tmp_path: Path, training: Training) -> None:
    training.run()
    (tmp_path / "log.jsonl").unlink()
    with pytest.raises(InputError, match="its log or result is damaged"):
        training.run()
