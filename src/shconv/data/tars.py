"""WebDataset shards: tar files in which an image and its label share a name, 0017.jpg with 0017.cls or 0017.json.
An uncompressed tar is random access: each image's place is noted once, from the headers, and kept in the cache."""

import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.data.hidden import any_hidden
from shconv.data.sources import UNLABELLED, Names, SingleFiles, cannot_read, read_part
from shconv.data.tar_index import TarIndex, indexed
from shconv.errors import InputError
from shconv.numbers import fits_int64

IMAGES = {"jpg", "jpeg", "png", "webp", "bmp", "ppm"}
USED = IMAGES | {"cls", "json"}
LABEL_KEYS = ("label", "cls")  # where a .json holds the label


@dataclass(frozen=True, eq=False)
class TarFiles(SingleFiles):
    """Images inside uncompressed tar files."""

    folder: Path
    names: Names  # shard/member
    shards: tuple[str, ...]
    members: NDArray[np.int64]  # (N, 3): shard, first byte, number of bytes

    def __len__(self) -> int:
        return len(self.members)

    def read(self, index: int) -> bytes:
        shard, start, size = self.members[index].tolist()
        return read_part(self.folder / self.shards[shard], start, size)

    def take(self, kept: Sequence[int]) -> "TarFiles":
        return replace(self, names=self.names.take(kept), members=self.members[list(kept)])


def index_tars(folder: Path, shards: Sequence[str]) -> tuple[TarFiles, NDArray[np.int64]]:
    """The images of these tar files below `folder` in their order, and their labels, -1 where none is given.

    A file that the cache knows in its present state is not opened. Raises InputError for one that is no uncompressed
    tar, is cut short or holds links or a name twice, and for a label that is no integer.
    """
    names: list[str] = []
    found = [indexed(folder / shard, _walk) for shard in shards]
    for shard, index in zip(shards, found, strict=True):
        names += [f"{shard}/{name}" for name in index.names]
    numbers = np.repeat(np.arange(len(found)), [len(index.names) for index in found])
    members = np.column_stack([numbers, np.concatenate([index.places for index in found])])
    return TarFiles(folder, Names(names), tuple(shards), members), np.concatenate([index.labels for index in found])


def _walk(path: Path) -> TarIndex:
    """The images of one tar file from its headers."""
    samples = _samples(path)
    labelled = _labels(path, samples)
    images = [(key, member) for key, kind, member in samples if kind in IMAGES]
    places = np.array([(member.offset_data, member.size) for _, member in images], np.int64).reshape(-1, 2)
    labels = np.array([labelled.get(key, UNLABELLED) for key, _ in images], np.int64)
    return TarIndex(Names(member.name for _, member in images), places, labels)


def _samples(path: Path) -> list[tuple[str, str, tarfile.TarInfo]]:
    """(key, kind, header) of every image and label in one tar: train/0017.png has the key train/0017, the kind png."""
    samples, seen, end = [], set(), 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, kind = name.partition(".")
                hidden = any_hidden(part for part in member.name.split("/") if part.strip("."))
                if kind.lower() in USED and not hidden and not member.isdir():
                    if member.name in seen or not member.isreg() or member.issparse():
                        said = "is there twice" if member.name in seen else "is a link, or no whole file"
                        raise InputError(f"{path}: {member.name} {said}; wanted every image and label once, as a file")
                    seen.add(member.name)
                    samples.append((f"{folder}/{stem}", kind.lower(), member))
                end = member.offset_data + member.size
        padded = -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        with path.open("rb") as file:
            file.seek(padded)
            rest = file.read(2 * tarfile.RECORDSIZE)
        if len(rest) < tarfile.BLOCKSIZE:  # an empty block ends a tar
            whole = padded + tarfile.BLOCKSIZE
            raise InputError(f"{path}: the tar file is cut short; with what it holds it has at least {whole} bytes")
        if rest.strip(b"\0"):
            raise InputError(f"{path}: more follows its end, as in two tar files put together; wanted one alone")
    except (OSError, tarfile.TarError) as error:
        raise cannot_read(path, error) from error
    return samples


def _labels(path: Path, samples: Sequence[tuple[str, str, tarfile.TarInfo]]) -> dict[str, int]:
    """The label of each key that has one; a .cls goes before a .json."""
    labels: dict[str, int] = {}
    readers: dict[str, Callable[[bytes], int | None]] = {"cls": _whole, "json": _json_label}
    for wanted, read in readers.items():
        for key, kind, member in samples:
            if kind == wanted and key not in labels:
                try:
                    label = read(read_part(path, member.offset_data, member.size))
                except (ValueError, TypeError, RecursionError) as error:
                    raise InputError(f"{path}: {member.name} holds no label; wanted a whole number") from error
                if label is not None:
                    labels[key] = label
    return labels


def _json_label(text: bytes) -> int | None:
    fields = json.loads(text)
    return next((_whole(fields[key]) for key in LABEL_KEYS if key in fields), None)


def _whole(value: Any) -> int:
    """Raises ValueError and TypeError for what is no whole number, or needs more than 64 bits."""
    if (isinstance(value, float) and not value.is_integer()) or not fits_int64(int(value)):
        raise ValueError(f"got {value!r}")
    return int(value)
