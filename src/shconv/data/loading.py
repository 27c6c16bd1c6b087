"""Batches from a split: in a given order to evaluate, shuffled and augmented to train.
What an image becomes depends on (seed, epoch, index) alone, not on its batch or on the number of workers."""

import atexit
import errno
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from shconv.data.order import epoch_order, groups_wanted, share_of
from shconv.data.splits import Batch, FileSplit, ImageSplit, MemorySplit
from shconv.data.transforms import (
    AUGMENTATIONS,
    crop_flip,
    crop_flip_draws,
    evaluation_image,
    he2016,
    resized_crop_pixels,
    to_image,
    to_tensor,
)
from shconv.errors import InputError

# The second word of a SeedSequence: keeps the draws for the order and for the pixels apart.
ORDER, PIXELS = 0, 1
AHEAD = 2  # batches that a worker prepares before they are asked for


def evaluation_batches(
    split: ImageSplit, indices: Sequence[int], batch_size: int, *, workers: int = 0, pinned: bool = False
) -> Iterator[Batch]:
    """Batches of the images at `indices`, in that order, as tested; the last one may be short.

    pinned: in memory that a GPU copies from while it computes. Raises InputError for an index outside
    0..len(split)-1, and where a file cannot be decoded.
    """
    _at_least(1, batch_size=batch_size)
    _at_least(0, workers=workers)
    index = [int(i) for i in indices]
    for i in index:
        if not 0 <= i < len(split):
            raise InputError(f"image {i} was asked for; wanted 0 to {len(split) - 1}")
    batches = [index[start : start + batch_size] for start in range(0, len(index), batch_size)]
    return iter(Batches(_TestedImages(split), batches, workers, pinned))


def training_batches(
    split: ImageSplit,
    augmentation: str,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    image_size: int | None = None,
    workers: int = 0,
    skip: int = 0,
    share: tuple[int, int] = (0, 1),
    pinned: bool = False,
) -> "Batches":
    """One epoch of shuffled, augmented batches; `len` counts those it will give.

    The order is a function of (seed, epoch), the augmentation of (seed, epoch, index). Where images are read by the
    group (Parquet), the order is also one of the batch size and of the number of groups open at a time. Batches are
    full, the rest of the images is left out, unless the split is smaller than one batch. skip: leave out the first so
    many batches, to go on in mid-epoch. share: (rank, count) gives of each batch what `share_of` says. image_size:
    default the split's own training size. pinned: in memory that a GPU copies from while it computes.
    Augmentations: "none" (the test preprocessing), "crop_flip" (4 zeros a side, random crop, flip), "resized_crop"
    (0.08 to 1 of the area, flip), "he2016" (random scale, crop, flip and colour). Raises InputError for anything else.
    """
    if augmentation not in AUGMENTATIONS:
        raise InputError(f"augmentation {augmentation!r} is unknown; wanted one of {', '.join(AUGMENTATIONS)}")
    _at_least(1, batch_size=batch_size)
    _at_least(0, workers=workers, seed=seed, epoch=epoch)
    if image_size is None:
        image_size = split.train_size if isinstance(split, FileSplit) else split[0][0].shape[-1]
    _at_least(1, image_size=image_size)

    batch = min(batch_size, len(split))
    groups = split.files.groups if isinstance(split, FileSplit) else None
    rng = np.random.default_rng(np.random.SeedSequence([seed, ORDER, epoch]))
    order = epoch_order(len(split), batch, rng, groups)
    if not 0 <= skip <= len(order):
        raise InputError(f"skip={skip} batches; wanted 0 to {len(order)}, the epoch's number of batches")
    own = share_of(batch, *share)
    parts = 1
    if isinstance(split, FileSplit) and groups is not None:
        parts = max(1, min(workers, own.stop - own.start))
        split = replace(split, files=split.files.holding(groups_wanted(own, parts, batch, groups)))
    images = _TrainingImages(split, augmentation, image_size, seed, epoch)
    return Batches(images, order[skip:, own].tolist(), workers, pinned, parts)


@dataclass(frozen=True, eq=False)
class _TestedImages:
    """index -> uint8 (B, 3, S, S), as tested."""

    split: ImageSplit

    def __call__(self, index: list[int]) -> Tensor:
        if isinstance(self.split, MemorySplit):
            return self.split.images[index]
        return torch.stack([self.split[i][0] for i in index])


@dataclass(frozen=True, eq=False)
class _TrainingImages:
    """index -> uint8 (B, 3, S, S), augmented."""

    split: ImageSplit
    augmentation: str
    size: int
    seed: int
    epoch: int

    def __call__(self, index: list[int]) -> Tensor:
        if self.augmentation == "resized_crop":
            return _stacked([resized_crop_pixels(self._pixels(i), self.size, self._rng(i)) for i in index])
        if self.augmentation == "he2016":
            return _stacked([to_tensor(he2016(self._original(i), self.size, self._rng(i))) for i in index])
        images = self._as_tested(index)
        return crop_flip(images, self._crop_flip_draws[index]) if self.augmentation == "crop_flip" else images

    def _as_tested(self, index: list[int]) -> Tensor:
        if isinstance(self.split, MemorySplit) and self.split.images.shape[-1] == self.size:
            return self.split.images[index]
        preset = self.split.preset if isinstance(self.split, FileSplit) else "paper"
        return torch.stack([to_tensor(evaluation_image(self._original(i), self.size, preset)) for i in index])

    def _original(self, i: int) -> Image.Image:
        return self.split.original(i) if isinstance(self.split, FileSplit) else to_image(self.split[i][0])

    def _pixels(self, i: int) -> Tensor:
        return self.split.original_pixels(i) if isinstance(self.split, FileSplit) else self.split[i][0]

    def _rng(self, i: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, PIXELS, self.epoch, i]))

    @cached_property
    def _crop_flip_draws(self) -> NDArray[np.int64]:
        # One table for the epoch: a generator for each image would cost ten times the crop itself.
        return crop_flip_draws(np.random.SeedSequence([self.seed, PIXELS, self.epoch]), len(self.split))


class _BatchReader(Dataset[Batch]):
    """What a DataLoader worker runs: a list of indices -> a Batch, or the InputError that stopped it."""

    def __init__(self, labels: Tensor, images: Callable[[list[int]], Tensor]) -> None:
        self.labels, self.images = labels, images

    def read(self, index: list[int]) -> Batch:
        return Batch(self.images(index), self.labels[index], torch.tensor(index))

    def __getitems__(self, index: list[int]) -> Batch | InputError:
        # Raised in a worker it would arrive wrapped in a traceback; so it travels as a value and is raised outside.
        try:
            return self.read(index)
        except InputError as error:
            return error


class Batches(Iterable[Batch]):
    """Batches of the given index lists, in their order; can be iterated again and then gives the same.

    parts: into how many each batch is cut, where there are workers: as many then read it, each always the same part.
    """

    def __init__(
        self,
        images: _TestedImages | _TrainingImages,
        batches: Sequence[list[int]],
        workers: int,
        pinned: bool,
        parts: int = 1,
    ) -> None:
        self._reader = _BatchReader(images.split.labels, images)
        self._batches, self._workers, self._pinned, self._parts = batches, workers, pinned, parts

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Generator[Batch]:
        batches = self._read()
        _UNDER_WAY.add(batches)
        return batches

    def _read(self) -> Generator[Batch]:
        if self._workers == 0 or not self._batches:
            yield from map(self._reader.read, self._batches)
            return
        parts = self._parts
        loader = DataLoader(
            self._reader,
            batch_sampler=[index[share_of(len(index), k, parts)] for index in self._batches for k in range(parts)],
            num_workers=min(self._workers, len(self._batches)) if parts == 1 else parts,  # they get parts in turn
            prefetch_factor=AHEAD if parts == 1 else 2 * AHEAD,
            collate_fn=_unchanged,
            pin_memory=self._pinned and parts == 1,
            worker_init_fn=_deaf,
            generator=torch.Generator(),  # otherwise the loader takes its seed from the caller's global generator
        )
        with naming_dead_workers():
            with _signals_held():
                results = iter(loader)
            try:
                for _ in self._batches:
                    yield _joined([_sound(next(results)) for _ in range(parts)], self._pinned)
            finally:
                del results  # ends the workers, even where a traceback keeps this frame


_UNDER_WAY: WeakSet[Generator[Batch]] = WeakSet()


@atexit.register
def _end_workers() -> None:
    """Python waits for them when it ends, after a SIGTERM that they do not hear."""
    for batches in list(_UNDER_WAY):
        batches.close()


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Raises ChildProcessError where torch says that a worker is gone: it may at any moment, not only in `next`."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).splitlines()[0].removeprefix("DataLoader ").rstrip(". ")
        message = (
            f"{reason}: it read images, and most often it is memory or /dev/shm that was too small (fewer workers need "
            "less); the same command goes on"
        )
        raise ChildProcessError(errno.ECHILD, message) from error


STOPS = (signal.SIGTERM, signal.SIGINT)  # a scheduler or Ctrl-C sends them to the whole group


def _deaf(worker: int) -> None:
    """What to do about them is the main process's business."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_held() -> Iterator[None]:
    """None arrives in here, and none ever in a worker forked in here: not even before it gets to be deaf."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stacked(images: list[Tensor]) -> Tensor:
    batch: Tensor = default_collate(images)  # torch.stack, but in a worker straight into the memory that is shared
    return batch


def _joined(parts: Sequence[Batch], pinned: bool) -> Batch:
    if len(parts) == 1:
        return parts[0]
    pinned = pinned and torch.cuda.is_available()
    n = sum(len(part.labels) for part in parts)
    whole = Batch(*(each.new_empty(n, *each.shape[1:], pin_memory=pinned) for each in parts[0]))
    for each, place in zip(zip(*parts, strict=True), whole, strict=True):
        torch.cat(each, out=place)
    return whole


def _sound(result: Batch | InputError) -> Batch:
    if isinstance(result, InputError):
        raise result
    return result


def _unchanged(batch: Any) -> Any:
    return batch


def _at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise InputError(f"{name}={number}; wanted at least {least}")
