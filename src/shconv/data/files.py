"""A data set of encoded images: any with one folder a class, and ImageNet in each of its forms.
Small images are decoded once into memory; larger ones when they are asked for."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image

from shconv.data.decode import decode_error, dimensions, to_rgb
from shconv.data.imagenet import list_imagenet
from shconv.data.listing import Listing, check_same_classes, list_split
from shconv.data.preparation import TEST_SIZE, TRAIN_SIZE, Preset
from shconv.data.splits import FileSplit, ImageData, MemorySplit
from shconv.data.transforms import evaluation_image, to_tensor
from shconv.errors import InputError

OnCorrupt = Literal["error", "skip"]
Progress = Callable[[int, int], None]  # (files done, files in all)
S = TypeVar("S")
T = TypeVar("T")

SMALL_SIDE = 64
MEMORY_LIMIT = 2 * 10**9  # bytes of decoded pixels
SAMPLE = 50  # files of each split whose headers tell how large the images are
VERIFY_LIMIT = 2000  # files that are read at access: so few are checked beforehand all the same, in some seconds
BLOCK = 256  # files handed to the threads at a time, so that the first broken one ends the work


def load_folder(
    name: str,
    path: str,
    *,
    imagenet: bool,
    image_size: int | None,
    train_size: int | None,
    on_corrupt: OnCorrupt,
    test_preset: Preset,
    channels: int,
    want_train: bool,
    parquet_memory: float,
    progress: Progress | None,
) -> ImageData:
    """PATH/train and PATH/test (or PATH/val), one folder a class; imagenet: any of the forms of `list_imagenet`.

    Raises InputError for what is missing or empty, for train and test classes that differ, and for a file that is no
    image: at once where images are small or at most 2,000, otherwise when that file is asked for.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"{root} is {'not a folder' if root.exists() else 'not there'}; wanted a folder of images")
    listed = list_imagenet(root, want_train, parquet_memory) if imagenet else _list_folder(root, want_train)
    test, train, note = listed
    listings = [test, train] if train is not None else [test]

    sides = _sample_sides(listings, on_corrupt)
    own_size, own_train = _sizes(sides, test_preset)
    test_size = image_size or own_size
    train_side = train_size or image_size or own_train
    total = sum(len(listing) for listing in listings)
    small = max(sides, default=0) <= SMALL_SIDE and test_size <= SMALL_SIDE
    in_memory = small and total * 3 * test_size**2 <= MEMORY_LIMIT

    count = _Counter(total, progress)
    splits: list[MemorySplit | FileSplit] = []
    for listing in listings:
        if in_memory:
            splits.append(_decoded(listing, test_size, test_preset, channels, on_corrupt, count))
        else:
            verify = on_corrupt == "skip" or total <= VERIFY_LIMIT
            kept = _verified(listing, on_corrupt, count) if verify else listing
            labels = torch.from_numpy(kept.labels)
            splits.append(FileSplit(kept.files, labels, test_size, train_side, test_preset, channels))
    return ImageData(
        name=name,
        classes=test.classes,
        train=splits[1] if train is not None else None,
        test=splits[0],
        image_size=test_size,
        note=note,
        skipped=total - sum(len(split) for split in splits),
        test_preset=test_preset,
        channels=channels,
    )


def _list_folder(root: Path, want_train: bool) -> tuple[Listing, Listing | None, str]:
    test = list_split(root, ("test", "val"))
    train = list_split(root, ("train",)) if want_train else None
    if train is not None:
        check_same_classes(train, test)
    return test, train, ""


def _sample_sides(listings: Iterable[Listing], on_corrupt: OnCorrupt) -> list[int]:
    """Widths and heights of some images of each split, from their headers.

    The doubtful ones are looked at too: a stray text file is found now, not in the middle of an epoch.
    """
    sides: list[int] = []
    for listing in listings:
        for i in (*range(0, len(listing), max(1, len(listing) // SAMPLE)), *listing.doubtful):
            try:
                sides += dimensions(*_encoded(listing, i))
            except InputError:
                if on_corrupt == "error":
                    raise
    return sides


def _encoded(listing: Listing, i: int) -> tuple[bytes, Path]:
    """Image i as it is stored, and what to call it."""
    return listing.files.read(i), listing.files.folder / listing.files.names[i]


def _sizes(sides: list[int], preset: Preset) -> tuple[int, int]:
    """Side of the images in (test, training) where nobody says it."""
    if len(set(sides)) == 1 and sides[0] <= SMALL_SIDE:
        return sides[0], sides[0]
    return TEST_SIZE if preset == "paper" else TRAIN_SIZE, TRAIN_SIZE


def _decoded(
    listing: Listing, size: int, preset: Preset, channels: int, on_corrupt: OnCorrupt, count: "_Counter"
) -> MemorySplit:
    images = np.empty((len(listing), channels, size, size), np.uint8)

    def decode(i: int) -> InputError | None:
        try:
            image = to_rgb(*_encoded(listing, i))
            images[i] = to_tensor(evaluation_image(image.convert("L") if channels == 1 else image, size, preset))
        except InputError as error:
            return error
        return None

    broken = _broken(count(_in_threads(decode, range(len(listing)))), on_corrupt)
    kept = listing.without(broken)
    pixels = torch.from_numpy(np.delete(images, sorted(broken), axis=0) if broken else images)
    return MemorySplit(pixels, torch.from_numpy(kept.labels), kept.files.names)


def _verified(listing: Listing, on_corrupt: OnCorrupt, count: "_Counter") -> Listing:
    def look(i: int) -> InputError | None:
        try:
            return decode_error(*_encoded(listing, i))
        except InputError as error:
            return error

    return listing.without(_broken(count(_in_threads(look, range(len(listing)))), on_corrupt))


def _broken(errors: Iterable[InputError | None], on_corrupt: OnCorrupt) -> set[int]:
    broken = set()
    for i, error in enumerate(errors):
        if error is not None:
            if on_corrupt == "error":
                raise error
            broken.add(i)
    return broken


def _in_threads(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """work(item) for each item, in order; Pillow lets go of the interpreter's lock while it decodes."""
    Image.init()  # its readers register at their first use, which threads had better not race for
    remaining = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while block := list(islice(remaining, BLOCK)):
            yield from pool.map(work, block)


class _Counter:
    """Passes results on and reports how many there were, over all the splits of a data set."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, results: Iterable[T]) -> Iterator[T]:
        for result in results:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)
            yield result
