"""Trainings side by side: the networks are those of one training after the other, and an error is not lost."""

import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from together import DATA, colours

from shconv.errors import InputError
from shconv.files import locked
from shconv.processes import Processes
from shconv.terminal import Lines
from shconv.training import ModelConfig, Recipe, side_by_side, train
from shconv.training.side_by_side import can_be_side_by_side, train_side_by_side
from shconv.training.stored import is_finished

RECIPE = Recipe(1, 35, 0.05)


def tasks(folder: Path) -> list[dict[str, Any]]:
    shared: dict[str, Any] = {"config": ModelConfig("plain10_shc", 3, stem="small", width=4), "data": DATA}
    return [{**shared, "recipe": RECIPE, "folder": folder / str(seed), "seed": seed} for seed in (0, 1)]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_two_at_a_time_have_the_bits_of_one_after_the_other(
    tmp_path: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the user's script, which may have no guard, is not run again by the helper."""
    script, main = tmp_path / "script.py", ModuleType("__main__")
    script.write_text(f"open({str(tmp_path / 'again')!r}, 'w')")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    train_side_by_side(tasks(tmp_path / "together"), Lines(False))
    assert not (tmp_path / "again").exists()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    for alone, together in zip(tasks(tmp_path / "alone"), tasks(tmp_path / "together"), strict=True):
        found = train(**together)
        assert len(found.history) == 1
        for name, values in train(**alone).model.state_dict().items():
            assert torch.equal(values, found.model.state_dict()[name]), name


def test_a_folder_that_stays_in_use_is_an_error_in_the_end(tmp_path: Path) -> None:
    first, second = tasks(tmp_path)
    with locked(first["folder"]), pytest.raises(InputError, match="in use by another process"):
        train_side_by_side([first, second], Lines(False))
    assert (second["folder"] / "model.safetensors").exists()


def test_images_that_shared_memory_has_no_room_for_are_trained_on_one_after_the_other(
    tmp_path: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, fresh = 70 * 3 * 8 * 8, replace(DATA, train=colours(70, 0))
    for free, fits in ((size - 1, False), (size + DATA.test.images.nbytes, True)):
        monkeypatch.setattr(side_by_side, "shared_memory", lambda free=free: (2**30, free))
        assert can_be_side_by_side(fresh, Processes()) == fits

    def full(*_: Any) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", full)
    assert train_side_by_side(tasks(tmp_path), Lines(False)) == set()
    assert all(is_finished(task["folder"]) for task in tasks(tmp_path))


def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    for task in tasks(tmp_path):
        train(**task)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert train_side_by_side(tasks(tmp_path), Lines(False)) == set()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")} == stamps
