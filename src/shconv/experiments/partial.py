"""Outcomes of a row under way: every unit of images is a file of its own, written as it is done, until the row is in.
A file that a stop, a full disk or a power cut left torn counts as none, and its unit is computed again."""

import io
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.errors import InputError
from shconv.files import named

Columns = dict[str, NDArray[Any]]  # per image, each (n, ...)


@dataclass(frozen=True)
class Partial:
    """What is known of `index` so far, in units of `size` images, whichever process did them."""

    folder: Path
    index: NDArray[np.int64]  # (n,), the images' places in the test split
    size: int

    @property
    def units(self) -> int:
        return -(-len(self.index) // self.size)

    def places(self, unit: int) -> slice:
        """Where the unit's images stand in `index`; the last unit may be short."""
        return slice(unit * self.size, min((unit + 1) * self.size, len(self.index)))

    def done(self) -> set[int]:
        """The units that are stored."""
        return {unit for unit in range(self.units) if self._read(unit)}

    def add(self, unit: int, columns: Columns, seconds: float) -> None:
        """Store a unit and the time that it took."""
        buffer = io.BytesIO()
        np.savez(buffer, seconds=np.array([seconds]), **columns)  # type: ignore[arg-type]
        content, path = buffer.getvalue(), self._path(unit)
        for folder in (self.folder.parent, self.folder):  # where the run's own was removed it is not made again
            folder.mkdir(exist_ok=True)
        with named(path):
            path.write_bytes(_checksum(content) + content)

    def joined(self) -> tuple[Columns, float]:
        """The columns over all images, in the order of `index` ({} where there is none), and the seconds of all units.

        Raises InputError where a unit is missing or about other images.
        """
        parts = [self._read(unit) for unit in range(self.units)]
        if missing := parts.count({}):
            raise InputError(
                f"{self.folder} lacks {missing} of {self.units} batches; wanted a run folder that all processes can "
                "access"
            )
        columns = {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
        if parts and not np.array_equal(columns["index"], self.index):
            raise InputError(f"{self.folder} is about other images; remove it to compute these")
        return columns, float(columns.pop("seconds", np.zeros(0)).sum())

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, unit: int) -> Path:
        return self.folder / f"{unit}.part"

    def _read(self, unit: int) -> Columns:
        """A unit's columns; {} where there is no file of them, or a torn one. Raises InputError for other content."""
        path = self._path(unit)
        stored = path.read_bytes() if path.exists() else b""
        if stored[:4] != _checksum(stored[4:]):
            return {}
        try:
            with np.load(io.BytesIO(stored[4:]), allow_pickle=False) as columns:
                return dict(columns)
        except ValueError as error:
            raise InputError(f"{path} holds unknown content ({error}); remove it") from error


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content, 1).to_bytes(4, "big")
