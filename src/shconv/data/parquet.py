"""Hugging Face's Parquet shards of images, read by index, as far as Parquet allows that: a row group at a time.
A group holds a hundred images or more, so images wanted one after the other come cheaply, shuffled ones do not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.data.sources import Names, cannot_read
from shconv.errors import InputError

IMAGE, LABEL = "image", "label"  # the columns; an image is a struct of bytes and path
GROUPS_KEPT = 4  # row groups held by each process: about 11 MB each for ImageNet


@dataclass(frozen=True, eq=False)
class ParquetFiles:
    """Images in Parquet files."""

    folder: Path
    names: Names  # shard/path, or shard/row where no path is stored
    shards: tuple[str, ...]
    rows: NDArray[np.int64]  # (N, 3): shard, row group, row in it

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> bytes:
        shard, group, row = self.rows[index].tolist()
        path = self.folder / self.shards[shard]
        try:
            image: bytes | None = _row_group(path, path.stat().st_mtime_ns, group)[row].as_py()
        except InputError:
            raise
        except Exception as error:  # a damaged file can make pyarrow raise nearly anything
            raise cannot_read(path, error) from error
        if not image:
            raise InputError(f"{self.folder / self.names[index]}: no bytes are stored for this image")
        return image

    def take(self, kept: Sequence[int]) -> "ParquetFiles":
        return replace(self, names=self.names.take(kept), rows=self.rows[list(kept)])


def index_parquet(
    folder: Path, shards: Sequence[str]
) -> tuple[ParquetFiles, NDArray[np.int64], tuple[str, ...] | None]:
    """The images of these Parquet files below `folder` in their order, their labels (-1 where none is given), and the
    classes' names where the files say them.

    Raises InputError without pyarrow, and for a file that is cut short or has other columns.
    """
    parquet = _pyarrow_parquet()
    names: list[str] = []
    labels: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int64]] = []
    classes: tuple[str, ...] | None = None
    for number, shard in enumerate(shards):
        path = folder / shard
        try:
            with parquet.ParquetFile(path) as file:
                _check_columns(path, file)
                classes = classes or _class_names(file.schema_arrow.metadata or {})
                table = file.read(columns=[LABEL, f"{IMAGE}.path"], use_threads=False)
                sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            labels.append(table.column(LABEL).fill_null(-1).to_numpy().astype(np.int64))
            paths = [image and image["path"] for image in table.column(IMAGE).to_pylist()]
        except InputError:
            raise
        except Exception as error:
            raise cannot_read(path, error) from error
        names += [f"{shard}/{path or row}" for row, path in enumerate(paths)]
        places = [(number, group, row) for group, size in enumerate(sizes) for row in range(size)]
        rows.append(np.array(places, np.int64).reshape(-1, 3))
    return ParquetFiles(folder, Names(names), tuple(shards), np.concatenate(rows)), np.concatenate(labels), classes


@lru_cache(maxsize=GROUPS_KEPT)
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
        raise InputError("Parquet files want pyarrow; install it with: pip install 'shconv[imagenet]'") from error
