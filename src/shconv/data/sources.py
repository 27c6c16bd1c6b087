"""Encoded images by index, wherever they lie: the interface, and files in folders.
Nothing stays open between reads, so any number of threads and of forked or spawned workers may read at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol, Self, overload

import numpy as np

from shconv.errors import InputError


class ImageFiles(Protocol):
    """The encoded images of one split, in a fixed order. folder / names[i] is how messages call image i."""

    @property
    def folder(self) -> Path: ...

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Image `index` as it is stored, such as a JPEG file's bytes. Raises InputError where that cannot be read."""
        ...

    def take(self, kept: Sequence[int]) -> Self:
        """The same with the images at these places only."""
        ...


class Names(Sequence[str]):
    """Strings in one buffer. A list of a million of them is a million objects whose reference counts are written to
    whenever one is touched, so that each forked worker ends up with a copy of its own."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._text = b"".join(encoded)
        self._ends = np.array([0, *accumulate(map(len, encoded))])  # name i lies between ends i and i + 1

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self._text[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogateescape")

    def take(self, kept: Sequence[int]) -> "Names":
        return Names(self[i] for i in kept)


@dataclass(frozen=True, eq=False)
class FolderFiles:
    """One file an image."""

    folder: Path
    names: Names  # paths below folder

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        path = self.folder / self.names[index]
        try:
            return path.read_bytes()
        except OSError as error:
            raise cannot_read(path, error) from error

    def take(self, kept: Sequence[int]) -> "FolderFiles":
        return replace(self, names=self.names.take(kept))


def read_part(path: Path, start: int, size: int) -> bytes:
    """`size` bytes of a file from `start` on. Raises InputError where it has no such."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(data) < size:
        raise InputError(f"{path}: ends at byte {start + len(data)}; wanted {size} bytes from {start} on")
    return data


def cannot_read(path: Path, error: Exception) -> InputError:
    """The InputError for a file that the system refuses."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return InputError(f"{path}: cannot be read ({reason})")
