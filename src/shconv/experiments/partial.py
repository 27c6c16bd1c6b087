"""Outcomes of a row under way: every unit of images is appended as it is done, one file a process, until the row is in.
A file cut off in mid-record, as kill -9 or a full disk leaves it, loses that record and no other."""

import io
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shconv.errors import InputError
from shconv.files import named

Columns = dict[str, NDArray[Any]]  # per image, each (n, ...)
Append = Callable[[int, Columns, float], None]

MAGIC = b"SHC1"
HEAD = struct.Struct("<4sIIqd")  # magic, checksum of what follows it, bytes of the body, unit, seconds that it took
CHECKED = struct.calcsize("<4sI")
SYNC_EVERY = 1.0  # seconds between two waits for the disk: a power cut costs no more, kill -9 nothing


class Record(NamedTuple):
    unit: int
    seconds: float
    body: bytes
    end: int  # of the record in its file


@dataclass(frozen=True)
class Partial:
    """What is known of `index` so far, in units of `size` images; the files of any number of processes."""

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
        return {record.unit for path in self._files() for record in _records(path)}

    @contextmanager
    def appending(self, rank: int) -> Iterator[Append]:
        """Yield append(unit, columns, seconds), which stores a unit in this process's file before it returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{rank}.part"
        whole = max((record.end for record in _records(path)), default=0)
        with path.open("ab", buffering=0) as file:  # nothing is left to be written when it is closed
            if file.tell() > whole:
                file.truncate(whole)
            synced = time.monotonic()

            def append(unit: int, columns: Columns, seconds: float) -> None:
                nonlocal synced
                with named(path):
                    left = memoryview(_record(unit, columns, seconds))
                    while left:
                        left = left[file.write(left) :]
                if time.monotonic() - synced >= SYNC_EVERY:
                    os.fsync(file.fileno())
                    synced = time.monotonic()

            yield append

    def joined(self) -> tuple[Columns, float]:
        """The columns over all images, in the order of `index` ({} where there is none), and the seconds of all units.

        Each image comes once, however many files hold it. Raises InputError where a unit is missing or another's.
        """
        table: NDArray[Any] | None = None
        seconds = np.full(self.units, np.nan)
        for path in self._files():
            for record in _records(path):
                part, here = _table(path, record), self.places(record.unit)
                if not 0 <= record.unit < self.units or not np.array_equal(part["index"], self.index[here]):
                    raise InputError(f"{path} is about other images; remove it to compute these")
                table = np.empty(len(self.index), part.dtype) if table is None else table
                table[here], seconds[record.unit] = part, record.seconds
        missing = int(np.isnan(seconds).sum())
        if missing:
            raise InputError(
                f"{self.folder} lacks {missing} of {self.units} batches; wanted a run folder that all processes can "
                "access"
            )
        columns = {} if table is None else {name: table[name].copy() for name in table.dtype.names or ()}
        return columns, float(seconds.sum())

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.part"))


def _record(unit: int, columns: Columns, seconds: float) -> bytes:
    table = np.empty(
        len(columns["index"]), [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    )
    for name, values in columns.items():
        table[name] = values
    body = io.BytesIO()
    np.save(body, table, allow_pickle=False)
    head = HEAD.pack(MAGIC, 0, body.tell(), unit, seconds)
    checksum = zlib.crc32(body.getbuffer(), zlib.crc32(head[CHECKED:]))
    return HEAD.pack(MAGIC, checksum, body.tell(), unit, seconds) + body.getvalue()


def _table(path: Path, record: Record) -> NDArray[Any]:
    try:
        table: NDArray[Any] = np.load(io.BytesIO(record.body), allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path} holds unknown content ({error}); remove it") from error
    return table


def _records(path: Path) -> Iterator[Record]:
    """The whole records of a file up to the first that is torn; of a file that is not there, none."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            magic, checksum, length, unit, seconds = HEAD.unpack(head)
            body = file.read(length)
            if (magic, len(body)) != (MAGIC, length) or zlib.crc32(body, zlib.crc32(head[CHECKED:])) != checksum:
                return
            yield Record(unit, seconds, body, file.tell())
