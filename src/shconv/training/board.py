"""The curves of a training for TensorBoard, beside log.jsonl. The package tensorboard is imported only if asked for."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from shconv.errors import InputError

FOLDER = "tensorboard"
EVERY = 20  # steps between two points of a curve


class Board(Protocol):
    """Where curves go; x: the steps taken since the start of the training."""

    def add_scalar(self, name: str, value: float, step: int) -> object: ...

    def close(self) -> None: ...


class NoBoard:
    """Nowhere."""

    def add_scalar(self, name: str, value: float, step: int) -> None: ...

    def close(self) -> None: ...


def check_tensorboard() -> None:
    """Raises InputError where the package is missing."""
    if find_spec("tensorboard") is None:
        raise InputError("tensorboard = true needs the package tensorboard: pip install tensorboard")


def open_board(folder: Path, step: int) -> Board:
    """Curves in `folder`/tensorboard from `step` on; what an earlier, stopped run wrote of those steps is purged."""
    from torch.utils.tensorboard import SummaryWriter

    board: Board = SummaryWriter(str(folder / FOLDER), purge_step=step)
    return board


def add_row(board: Board, row: Mapping[str, Any], step: int) -> None:
    """The numbers of an epoch at its last step."""
    for name in ("loss", "train_accuracy", "test_accuracy", "adversarial_accuracy", "pgd_accuracy"):
        if name in row:
            board.add_scalar(f"epoch/{name}", row[name], step)
