"""A run folder as the experiments fill it: rows appended as they come, per-image outcomes, arrays, what was asked for.
One process at a time; what is there already is not computed again, so the same command goes on where it stopped."""

import io
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import tomli_w
from numpy.typing import NDArray

from shconv.errors import InputError
from shconv.files import replace_file, replace_json
from shconv.training.checkpoint import first_difference

Row = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]


class RunFolder:
    """Open with RunFolder.opened(path). `rows` holds what rows.jsonl holds, by id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        for row in map(json.loads, _whole_lines(path / "rows.jsonl")):
            self.rows[row["id"]] = row

    @staticmethod
    @contextmanager
    def opened(path: Path) -> Iterator["RunFolder"]:
        """Lock the folder, making it if need be. Raises InputError where another process works in it."""
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; wanted a run folder")
        path.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(path / ".lock", timeout=0):
                yield RunFolder(path)
        except filelock.Timeout:
            raise InputError(f"{path} is in use by another process; wait for it or take another folder") from None

    def settle(self, options: Mapping[str, Any], free: tuple[str, ...] = ()) -> None:
        """Store the resolved options as config.toml; those of an earlier command must agree but for the free ones.

        Raises InputError naming the first option that differs.
        """
        path = self.path / "config.toml"
        options = {key: value for key, value in options.items() if value is not None}
        if path.exists():
            stored = tomllib.loads(path.read_text(encoding="utf-8"))
            bound = [key for key in {**stored, **options} if key not in free]
            plain = json.loads(json.dumps({key: options.get(key) for key in bound}))
            difference = first_difference({key: stored.get(key) for key in bound}, plain)
            if difference is not None:
                name, there, here = difference
                raise InputError(
                    f"{self.path} holds a run with {name} = {there!r}, asked for is {here!r}; "
                    "take another --out, or the same option"
                )
        replace_file(path, tomli_w.dumps(json.loads(json.dumps(options))).encode())

    def add(self, row: Row, arrays: Arrays) -> Row:
        """Append a row; its per-image arrays are on disk before it."""
        self.save_arrays(f"outcomes/{file_name(row['id'])}", arrays)
        with (self.path / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows[row["id"]] = row
        return row

    def save_arrays(self, name: str, arrays: Arrays) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / f"{name}.npz", buffer.getvalue())

    def save_json(self, name: str, value: Any) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        replace_json(self.path / name, value)

    def outcomes(self, id: str) -> dict[str, NDArray[Any]]:
        """The per-image arrays of a row that is there."""
        with np.load(self.path / "outcomes" / f"{file_name(id)}.npz", allow_pickle=False) as arrays:
            return dict(arrays)


def file_name(id: str) -> str:
    """A row's id as the name of a file: table1/plain10/seed0/clean -> table1--plain10--seed0--clean."""
    return id.replace("/", "--")


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file; a last one that a stopped run left half written is cut off the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        replace_file(path, whole)
    return whole.decode().splitlines()
