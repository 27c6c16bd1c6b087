"""Hugging Face's Parquet shards of images, read by index, as far as Parquet allows that: a row group at a time.
A group holds a hundred images or more; the last ones read are kept, and training asks for images of few at a time."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.data.sources import UNLABELLED, Groups, Names, cannot_read
from shconv.errors import InputError

IMAGE, LABEL = "image", "label"  # the columns; an image is a struct of bytes and path
GROUPS_KEPT = 4  # row groups held by each process that reads in order: about 11 MB each for ImageNet
MEMORY = 3.0  # GB of row groups open in training: with ImageNet's, one for each image of the paper's batch of 256


@dataclass(frozen=True, eq=False)
class ParquetFiles:
    """Images in Parquet files."""

    folder: Path
    names: Names  # shard/path, or shard/row where no path is stored
    shards: tuple[str, ...]
    rows: NDArray[np.int64]  # (N, 3): shard, row group, row in it
    open: int  # row groups among which training shuffles at any moment
    kept: int = GROUPS_KEPT

    @property
    def groups(self) -> Groups:
        shard, group, _ = self.rows.T
        return Groups(np.unique(shard << 32 | group, return_inverse=True)[1], self.open)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> bytes:
        shard, group, row = self.rows[index].tolist()
        path = self.folder / self.shards[shard]
        try:
            image: bytes | None = _row_groups(self.kept)(path, path.stat().st_mtime_ns, group)[row].as_py()
        except InputError:
            raise
        except Exception as error:  # a damaged file can make pyarrow raise nearly anything
            raise cannot_read(path, error) from error
        if not image:
            raise InputError(f"{self.folder / self.names[index]}: no bytes are stored for this image")
        return image

    def take(self, kept: Sequence[int]) -> "ParquetFiles":
        return replace(self, names=self.names.take(kept), rows=self.rows[list(kept)])

    def holding(self, groups: int) -> "ParquetFiles":
        return replace(self, kept=groups)


def index_parquet(
    folder: Path, shards: Sequence[str], memory: float = MEMORY
) -> tuple[ParquetFiles, NDArray[np.int64], tuple[str, ...] | None]:
    """The images of these Parquet files below `folder` in their order, their labels (-1 where none is given), and the
    classes' names where the files say them. memory: what all processes of a training hold of them, in GB.

    Raises InputError without pyarrow, and for a file that is cut short or has other columns.
    """
    parquet = _pyarrow_parquet()
    names: list[str] = []
    labels: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int64]] = []
    classes: tuple[str, ...] | None = None
    sizes: list[int] = []  # bytes of each row group
    for number, shard in enumerate(shards):
        path = folder / shard
        try:
            with parquet.ParquetFile(path) as file:
                _check_columns(path, file)
                classes = classes or _class_names(file.schema_arrow.metadata or {})
                table = file.read(columns=[LABEL, f"{IMAGE}.path"], use_threads=False)
                groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
            labels.append(table.column(LABEL).cast("int64").fill_null(UNLABELLED).to_numpy())  # 0.5 is refused
            paths = [image and image["path"] for image in table.column(IMAGE).to_pylist()]
        except InputError:
            raise
        except Exception as error:
            raise cannot_read(path, error) from error
        names += [f"{shard}/{path or row}" for row, path in enumerate(paths)]
        places = [(number, place, row) for place, group in enumerate(groups) for row in range(group.num_rows)]
        rows.append(np.array(places, np.int64).reshape(-1, 3))
        sizes += [group.total_byte_size for group in groups]
    count = max(1, int(memory * 1e9 * len(sizes) / max(1, sum(sizes))))
    files = ParquetFiles(folder, Names(names), tuple(shards), np.concatenate(rows), count)
    return files, np.concatenate(labels), classes


@lru_cache(maxsize=1)  # with another number, those kept so far are let go
def _row_groups(kept: int) -> Callable[[Path, int, int], Any]:
    """_row_group, which keeps the last so many."""
    return lru_cache(maxsize=kept)(_row_group)


def _row_group(path: Path, changed: int, group: int) -> Any:
    """The encoded images of one row group, in an array of pyarrow's. changed: so that no old version is given out."""
    with _pyarrow_parquet().ParquetFile(path, pre_buffer=False) as file:
        table = file.read_row_group(group, columns=[f"{IMAGE}.bytes"], use_threads=False)
    return table.column(IMAGE).combine_chunks().field("bytes")


def _check_columns(path: Path, file: Any) -> None:
    columns = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
    if missing := {f"{IMAGE}.bytes", f"{IMAGE}.path", LABEL} - set(columns):
        raise InputError(f"{path} has the columns {', '.join(columns)}; missing: {', '.join(sorted(missing))}")


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...] | None:
    """The names of the label's classes, from what Hugging Face's datasets writes beside the schema."""
    try:
        return tuple(map(str, json.loads(metadata[b"huggingface"])["info"]["features"][LABEL]["names"]))
    except (KeyError, TypeError, ValueError):
        return None


def _pyarrow_parquet() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError("reading Parquet files needs the package pyarrow: pip install pyarrow") from error
