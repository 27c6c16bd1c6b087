"""The stored state of an unfinished training: the last one and the one before it, each with its checksum.

A state that a power cut or a bad disk spoilt is recognised, and the one before it is taken."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from shconv.errors import InputError, first_line
from shconv.files import replace_file

STATE, PREVIOUS = "state.pt", "state.previous.pt"
HEAD = b"shconv training state, sha256 "  # then 64 hexadecimal digits and a line feed, then what torch.save wrote

State = dict[str, Any]


def save_state(folder: Path, state: State) -> None:
    """All that is needed to continue, in one file; the one that was there becomes the one before it."""
    for path in folder.glob(f"{STATE}.*"):  # a process that was killed left it half written
        path.unlink(missing_ok=True)
    buffer = io.BytesIO()  # torch.save into a file turns a full disk into an unrelated error of its archive writer
    torch.save(state, buffer)
    content = buffer.getbuffer()
    head = HEAD + hashlib.sha256(content).hexdigest().encode() + b"\n"
    replace_file(folder / STATE, head, content, keep=folder / PREVIOUS)


def load_state(folder: Path) -> tuple[State | None, str | None]:
    """The newest whole state, and what has to be said about it; (None, None) where none was ever stored.

    Raises InputError where there is none but damaged ones.
    """
    problem = None
    for path in (folder / STATE, folder / PREVIOUS):
        try:
            state = _read(path)
        except FileNotFoundError:
            problem = problem or (f"{path.name} is missing" if path.name == STATE else None)
        except ValueError as error:
            problem = f"{problem}, {path.name} too" if problem else f"{path.name} is damaged ({error})"
        else:
            return state, f"{problem}: continuing from {path.name}, the previous state" if problem else None
    if problem and any((folder / name).exists() for name in (STATE, PREVIOUS)):
        raise InputError(f"{folder}: {problem}; remove state.* there to train from the start")
    return None, None


def remove_states(folder: Path) -> None:
    """Of a finished training, and what a killed process left half written of one."""
    for path in folder.glob("state.*"):
        path.unlink(missing_ok=True)


def _read(path: Path) -> State:
    """Raises FileNotFoundError, and ValueError for what is damaged or no state."""
    whole = path.read_bytes()
    head, content = whole[: len(HEAD) + 65], memoryview(whole)[len(HEAD) + 65 :]
    if not head.startswith(HEAD):
        raise ValueError("it is no training state")
    if head[len(HEAD) : -1] != hashlib.sha256(content).hexdigest().encode():
        raise ValueError("its checksum differs")
    try:
        state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the archive reader and the unpickler raise anything
        raise ValueError(first_line(error)) from error
    if not isinstance(state, dict) or not state.keys() >= {"run", "history", "learner", "position"}:
        raise ValueError("it holds something else")
    return state
