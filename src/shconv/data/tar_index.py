"""Indices of tar files in the cache folder, so that headers are walked once and not at every start.
Arrays without pickle, which can run no code; whatever is wrong with an entry, the tar file is walked again."""

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shconv.data.sources import Names, cannot_read
from shconv.files import cache_folder, replace_file

FORMAT = 3  # another number where what an index says of the same file changes


class TarIndex(NamedTuple):
    """The images of a tar file."""

    names: Names  # of the members
    places: NDArray[np.int64]  # (N, 2): first byte, number of bytes
    labels: NDArray[np.int64]  # (N,)


def indexed(path: Path, walk: Callable[[Path], TarIndex]) -> TarIndex:
    """walk(path), or what it gave before for the same path, size and time of change. Raises InputError without a file,
    and what `walk` raises; a cache folder that cannot be read or written is no error."""
    try:
        stat = path.stat()
    except OSError as error:
        raise cannot_read(path, error) from error
    state = np.array([FORMAT, stat.st_size, stat.st_mtime_ns])  # from before the walk: a change during it is seen
    found = _read(path, state)
    if found is None:
        found = walk(path)
        with suppress(OSError):
            _write(path, state, found)
    return found


def _entry(path: Path) -> Path:
    """Raises OSError where the user has no home."""
    digest = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()
    return cache_folder() / "tars" / f"{digest[:32]}.npz"


def _read(path: Path, state: NDArray[np.int64]) -> TarIndex | None:
    """None where there is no entry, or none of the file in this state, or a damaged one."""
    try:
        with np.load(_entry(path), allow_pickle=False) as arrays:
            if not np.array_equal(arrays["state"], state):
                return None
            names = Names.of(arrays["text"].tobytes(), arrays["ends"])
            found = TarIndex(names, arrays["places"], arrays["labels"])
    except Exception:  # a damaged file can make the readers raise nearly anything
        return None
    return found if _is_sound(found, int(state[1])) else None


def _is_sound(index: TarIndex, size: int) -> bool:
    names, places, labels = index
    shapes = places.shape == (len(names), 2) and labels.shape == (len(names),)
    return bool(shapes and (places >= 0).all() and (places.sum(1) <= size).all())


def _write(path: Path, state: NDArray[np.int64], index: TarIndex) -> None:
    text, ends = index.names.parts
    arrays = {"text": np.frombuffer(text, np.uint8), "ends": ends, "places": index.places, "labels": index.labels}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, state=state, **arrays)  # type: ignore[arg-type]
    entry = _entry(path)
    entry.parent.mkdir(parents=True, exist_ok=True)
    replace_file(entry, buffer.getvalue())
