"""Batches from a split: in a given order to evaluate, shuffled and augmented to train.
What an image becomes depends on (seed, epoch, index) alone, not on its batch or on the number of workers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shconv.data.splits import Batch, FileSplit, ImageSplit, MemorySplit
from shconv.data.transforms import (
    AUGMENTATIONS,
    crop_flip,
    crop_flip_draws,
    evaluation_image,
    he2016,
    resized_crop,
    to_image,
    to_tensor,
)
from shconv.errors import InputError

# The second word of a SeedSequence: keeps the draws for the order and for the pixels apart.
ORDER, PIXELS = 0, 1


def evaluation_batches(
    split: ImageSplit, indices: Sequence[int], batch_size: int, *, workers: int = 0
) -> Iterator[Batch]:
    """Batches of the images at `indices`, in that order, as tested; the last one may be short.

    Raises InputError for an index outside 0..len(split)-1, and where a file cannot be decoded.
    """
    _at_least(1, batch_size=batch_size)
    _at_least(0, workers=workers)
    index = [int(i) for i in indices]
    for i in index:
        if not 0 <= i < len(split):
            raise InputError(f"image {i} was asked for; wanted 0 to {len(split) - 1}")
    batches = [index[start : start + batch_size] for start in range(0, len(index), batch_size)]
    return iter(Batches(_TestedImages(split), batches, workers))


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
) -> "Batches":
    """One epoch of shuffled, augmented batches; `len` counts those it will give.

    The order is a function of (seed, epoch), the augmentation of (seed, epoch, index). Batches are full, the rest of
    the images is left out, unless the split is smaller than one batch. skip: leave out the first so many batches, to
    go on in mid-epoch. image_size: default the split's own training size.
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

    order = np.random.default_rng(np.random.SeedSequence([seed, ORDER, epoch])).permutation(len(split)).tolist()
    count = max(1, len(order) // batch_size)
    if not 0 <= skip <= count:
        raise InputError(f"skip={skip} batches; wanted 0 to {count}, the epoch's number of batches")
    batches = [order[i * batch_size : (i + 1) * batch_size] for i in range(skip, count)]
    return Batches(_TrainingImages(split, augmentation, image_size, seed, epoch), batches, workers)


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
        if self.augmentation in ("resized_crop", "he2016"):
            augment = resized_crop if self.augmentation == "resized_crop" else he2016
            return torch.stack([to_tensor(augment(self._original(i), self.size, self._rng(i))) for i in index])
        images = self._as_tested(index)
        return crop_flip(images, self._crop_flip_draws[index]) if self.augmentation == "crop_flip" else images

    def _as_tested(self, index: list[int]) -> Tensor:
        if isinstance(self.split, MemorySplit) and self.split.images.shape[-1] == self.size:
            return self.split.images[index]
        preset = self.split.preset if isinstance(self.split, FileSplit) else "paper"
        return torch.stack([to_tensor(evaluation_image(self._original(i), self.size, preset)) for i in index])

    def _original(self, i: int) -> Image.Image:
        return self.split.original(i) if isinstance(self.split, FileSplit) else to_image(self.split[i][0])

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
    """Batches of the given index lists, in their order; can be iterated again and then gives the same."""

    def __init__(self, images: _TestedImages | _TrainingImages, batches: Sequence[list[int]], workers: int) -> None:
        self._reader = _BatchReader(images.split.labels, images)
        self._batches, self._workers = batches, workers

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        if self._workers == 0 or not self._batches:
            yield from map(self._reader.read, self._batches)
            return
        loader = DataLoader(
            self._reader,
            batch_sampler=self._batches,
            num_workers=self._workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # otherwise the loader takes its seed from the caller's global generator
        )
        for result in loader:
            if isinstance(result, InputError):
                raise result
            yield result


def _unchanged(batch: Any) -> Any:
    return batch


def _at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise InputError(f"{name}={number}; wanted at least {least}")
