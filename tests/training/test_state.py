"""Stored states: the newest whole one is found, whatever happened to the others."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from shconv.errors import InputError
from shconv.training.state import PREVIOUS, STATE, load_state, remove_states, save_state


def state(number: int) -> dict[str, Any]:
    return {"run": {}, "history": [], "position": {"epoch": number}, "learner": {"weight": torch.ones(300) * number}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of three stored states the last two are there."""
    for number in (1, 2, 3):
        save_state(tmp_path, state(number))
    return tmp_path


def epoch(folder: Path) -> tuple[int, str | None]:
    found, said = load_state(folder)
    assert found is not None
    assert torch.equal(found["learner"]["weight"], torch.ones(300) * found["position"]["epoch"])
    return found["position"]["epoch"], said


def test_the_last_one_comes_back_without_a_word(folder: Path) -> None:
    assert epoch(folder) == (3, None)
    assert sorted(os.listdir(folder)) == [PREVIOUS, STATE]


def test_none_was_ever_stored(tmp_path: Path) -> None:
    assert load_state(tmp_path) == (None, None)
    save_state(tmp_path, state(1))
    assert epoch(tmp_path) == (1, None)


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


SPOILT = {
    "half": lambda whole: whole[: len(whole) // 2],
    "without its end": lambda whole: whole[:-1],
    "with one bit flipped in a weight": lambda whole: flip(whole, len(whole) // 2),
    "with one bit flipped in the head": lambda whole: flip(whole, 40),
    "empty": lambda whole: b"",
    "something else": lambda whole: (
        b"not a state at all, but long enough to be one, if length were all that mattered...."
    ),
    "zeros, as after a power cut": lambda whole: bytes(len(whole)),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_damaged_one_is_recognised_and_the_one_before_it_taken(folder: Path, spoil: Any) -> None:
    whole = (folder / STATE).read_bytes()
    (folder / STATE).write_bytes(spoil(whole))
    number, said = epoch(folder)
    assert number == 2
    assert said is not None
    assert said.startswith("state.pt is damaged (")
    assert said.endswith("): continuing from state.previous.pt, the previous state")
    assert "\n" not in said


def test_a_missing_one_is_said_and_the_one_before_it_taken(folder: Path) -> None:
    (folder / STATE).unlink()
    assert epoch(folder) == (2, "state.pt is missing: continuing from state.previous.pt, the previous state")


def test_where_all_are_damaged_the_error_says_what_to_do(folder: Path) -> None:
    for name in (STATE, PREVIOUS):
        (folder / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"state.pt is damaged .*, state.previous.pt too; remove state.\* there"):
        load_state(folder)


def test_a_damaged_one_is_put_aside_by_the_next(folder: Path) -> None:
    (folder / STATE).write_bytes(b"")
    save_state(folder, state(4))
    assert epoch(folder) == (4, None)


class Evil:
    """Would make a folder if it were unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def test_a_state_can_run_no_code(folder: Path, tmp_path: Path) -> None:
    save_state(folder, {**state(4), "learner": Evil(tmp_path / "made")})
    number, said = epoch(folder)
    assert number == 3
    assert said is not None
    assert not (tmp_path / "made").exists()


def test_what_a_killed_process_left_half_written_is_removed_by_the_next_that_stores(folder: Path) -> None:
    (folder / f"{STATE}.7.tmp").touch()
    save_state(folder, state(4))
    assert sorted(os.listdir(folder)) == [PREVIOUS, STATE]


def test_a_finished_training_needs_none(folder: Path) -> None:
    (folder / f"{STATE}.7.tmp").touch()
    (folder / "model.safetensors").touch()
    remove_states(folder)
    assert os.listdir(folder) == ["model.safetensors"]
