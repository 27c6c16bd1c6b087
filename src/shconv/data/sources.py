"""Encoded images by index, wherever they lie: the interface, and files in folders.
Nothing stays open between reads, so any number of threads and of forked or spawned workers may read at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from stat import S_ISREG
from typing import Protocol, Self, overload

import numpy as np
from numpy.typing import NDArray

from shconv.errors import InputError

UNLABELLED = -1  # in place of a label that shards do not give


@dataclass(frozen=True, eq=False)
class Groups:
    """Which images can only be read together, and among how many such groups an epoch is shuffled at any moment."""

    of: NDArray[np.int64]  # (N,) the group of each image, numbered from 0
    open: int  # at a time, in all processes together


class ImageFiles(Protocol):
    """The encoded images of one split, in a fixed order. folder / names[i] is how messages call image i."""

    @property
    def folder(self) -> Path: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def groups(self) -> Groups | None:
        """None where each image is read by itself."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Image `index` as it is stored, such as a JPEG file's bytes. Raises InputError where that cannot be read."""
        ...

    def take(self, kept: Sequence[int]) -> Self:
        """The same with the images at these places only."""
        ...

    def holding(self, groups: int) -> Self:
        """The same, but each process that reads keeps the last so many groups."""
        ...


class Names(Sequence[str]):
    """Strings in one buffer. A list of a million of them is a million objects whose reference counts are written to
    whenever one is touched, so that each forked worker ends up with a copy of its own."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._text = b"".join(encoded)
        self._ends = np.array([0, *accumulate(map(len, encoded))])  # name i lies between ends i and i + 1

    @classmethod
    def of(cls, text: bytes, ends: NDArray[np.int64]) -> Self:
        """From the `parts` of others. Raises ValueError where they cannot be such."""
        if ends.ndim != 1 or ends[:1].tolist() != [0] or ends[-1] != len(text) or (np.diff(ends) < 0).any():
            raise ValueError("the ends of the names are not in order")
        names = cls(())
        names._text, names._ends = text, ends
        return names

    @property
    def parts(self) -> tuple[bytes, NDArray[np.int64]]:
        """(all names one after the other, where the first begins and where each ends)."""
        return self._text, self._ends

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


class SingleFiles:
    """What files have in common in which each image is read by itself."""

    groups: None = None

    def holding(self, groups: int) -> Self:
        return self


@dataclass(frozen=True, eq=False)
class FolderFiles(SingleFiles):
    """One file an image."""

    folder: Path
    names: Names  # paths below folder

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        path = self.folder / self.names[index]
        try:
            if not S_ISREG(path.stat().st_mode):  # a pipe may never give anything, a device never end
                raise InputError(f"{path}: cannot be read (it is no regular file)")
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
