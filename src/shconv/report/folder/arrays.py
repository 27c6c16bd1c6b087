"""Array files (.npz) of a run folder, read whole and checked by the shapes that their reader wants."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.errors import InputError
from shconv.report.folder.fields import damaged

Arrays = dict[str, NDArray[Any]]


def load(path: Path, *wanted: str) -> Arrays:
    """The arrays of a file, those that are wanted or else all. Raises InputError, naming it, where it is damaged."""
    with damaged(path):
        if not zipfile.is_zipfile(path):  # NumPy would speak of pickles
            raise ValueError("it is no whole .npz file")
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if key in wanted or not wanted}


def check(path: object, arrays: Arrays, shapes: Mapping[str, tuple[str | int, ...]]) -> dict[str, int]:
    """Check each array's shape, given as letters and numbers, and return what the letters stand for.

    Raises InputError, naming the file and the array, where one is missing or its shape does not fit.
    """
    sizes: dict[str, int] = {}
    for key, shape in shapes.items():
        wanted = f"{key} of shape ({', '.join(map(str, shape))})"
        if key not in arrays:
            raise InputError(f"{path} is damaged: it wants {wanted}; it holds {', '.join(arrays) or 'nothing'}.")
        given = arrays[key].shape
        fits = len(given) == len(shape) and all(
            size == (sizes.setdefault(side, size) if isinstance(side, str) else side)
            for size, side in zip(given, shape, strict=True)
        )
        if not fits:
            raise InputError(f"{path} is damaged: it wants {wanted}, with {sizes}; given {given}.")
    return sizes
