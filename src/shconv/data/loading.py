"""Batches from a split: in a given order to evaluate, shuffled and augmented to train.
What an image becomes depends on (seed, epoch, index) alone, not on its batch or on the number of workers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from shconv.data.batches import Batches, never
from shconv.data.order import epoch_order, groups_wanted, share_of
from shconv.data.policies import POLICIES, applied, geometry
from shconv.data.splits import Batch, FileSplit, ImageSplit, MemorySplit
from shconv.data.transforms import (
    AUGMENTATIONS,
    crop_flip,
    crop_flip_draws,
    crop_flip_tensors,
    evaluation_image,
    he2016,
    resized_crop_pixels,
    to_image,
    to_tensor,
)
from shconv.errors import InputError

# The second word of a SeedSequence: keeps the draws for the order and for the pixels apart.
ORDER, PIXELS, POLICY = 0, 1, 2
WHOLE = ("none", "crop_flip")  # the augmentations of a batch as a whole, not image by image
MOST_RESIDENT = 2**30  # bytes; CIFAR-10's training images are 154 MB


def evaluation_batches(
    split: ImageSplit,
    indices: Sequence[int],
    batch_size: int,
    *,
    workers: int = 0,
    pinned: bool = False,
    stop: Callable[[], bool] = never,
) -> Iterator[Batch]:
    """Batches of the images at `indices`, in that order, with the test preprocessing. The last one may be short.

    Args:
        pinned: put batches into memory that a GPU can copy from while it computes.
        stop: a function that is asked while a batch is waited for.

    Raises:
        InputError: an index outside 0..len(split)-1, or a file that cannot be decoded.
        StoppedWaiting: `stop` returned True.
        ChildProcessError: a worker died or could not hand over its images.
    """
    _at_least(1, batch_size=batch_size)
    _at_least(0, workers=workers)
    index = [int(i) for i in indices]
    for i in index:
        if not 0 <= i < len(split):
            raise InputError(f"image {i} was asked for; wanted 0 to {len(split) - 1}")
    images = _TestedImages(split)
    if isinstance(split, MemorySplit) and split.resident:
        on_device = torch.tensor(index, dtype=torch.int64).to(split.labels.device, non_blocking=True)
        return iter(Batches(split.labels, images, on_device.split(batch_size), 0, False)) if index else iter(())
    batches = [index[start : start + batch_size] for start in range(0, len(index), batch_size)]
    return iter(Batches(split.labels, images, batches, workers, pinned, stop=stop))


def near(split: ImageSplit, device: torch.device, augmentation: str = "none") -> ImageSplit:
    """The split resident on a CUDA device, where its images are in memory, few beside the device's own and augmented
    as a whole batch; any other as it is."""
    whole = isinstance(split, MemorySplit) and augmentation in WHOLE and split.images.nbytes <= MOST_RESIDENT
    return split.on(device) if isinstance(split, MemorySplit) and whole and device.type == "cuda" else split


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
    stop: Callable[[], bool] = never,
) -> Batches:
    """One epoch of shuffled, augmented batches. `len` gives their number.

    Example:
        ```python
        for batch in training_batches(data.train, "crop_flip", batch_size=128, seed=0, epoch=0):
            batch.images  # uint8 (128, 3, H, W); batch.labels (128,)
        ```

    Args:
        split: the training images of `load_data`.
        augmentation: "none" (the test preprocessing), "crop_flip" (4 zeros on each side, random crop, flip),
            "resized_crop" (0.08 to 1 of the area, flip), "he2016" (random scale, crop, flip and colour), or
            torchvision's "randaugment", "trivialaugment", "autoaugment" or "augmix", after crop_flip for images up to
            64 px and resized_crop above.
        batch_size: images in each batch. All batches are full and the rest of the images is left out, unless the split
            is smaller than one batch.
        seed, epoch: the order depends on these two; for Parquet also on the batch size and on the number of open
            groups. The augmentation depends on (seed, epoch, index).
        image_size: by default the split's training size.
        workers: processes that read images; 0 reads them in this one.
        skip: leave out this many batches, to continue within an epoch.
        share: (rank, count): the part of each batch for this process, as in `share_of`.
        pinned, stop: as in `evaluation_batches`. Iterating raises the same errors as there.

    Raises:
        InputError: values out of range, an unknown augmentation.
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
    if isinstance(split, MemorySplit) and images.whole and (split.resident or workers == 0):
        rows = torch.from_numpy(order[skip:, own]).to(split.labels.device, non_blocking=True).unbind()
        return Batches(split.labels, images, rows, 0, False)
    return Batches(split.labels, images, order[skip:, own].tolist(), workers, pinned, parts, stop)


@dataclass(frozen=True, eq=False)
class _TestedImages:
    """index -> uint8 (B, 3, S, S), as tested."""

    split: ImageSplit

    def __call__(self, index: Any) -> Tensor:
        if isinstance(self.split, MemorySplit):
            return _taken(self.split.images, index)
        images = [self.split[i][0] for i in index]
        for place, image in zip(index, images, strict=True):
            if image.shape != images[0].shape:
                first, other = tuple(images[0].shape), tuple(image.shape)
                raise InputError(f"data: image {index[0]} has shape {first}, image {place} {other}; want one shape")
        return torch.stack(images)


@dataclass(frozen=True, eq=False)
class _TrainingImages:
    """index -> uint8 (B, 3, S, S), augmented. A list of integers; where batches are taken `whole`, or a tensor."""

    split: ImageSplit
    augmentation: str
    size: int
    seed: int
    epoch: int

    @property
    def whole(self) -> bool:
        """Whether a batch is taken out of memory as one, not image by image."""
        fitting = isinstance(self.split, MemorySplit) and self.split.images.shape[-1] == self.size
        return fitting and self.augmentation in WHOLE

    def __call__(self, index: Any) -> Tensor:
        images = self._cropped(index, geometry(self.augmentation, self.size))
        if self.augmentation not in POLICIES:
            return images
        changed = [applied(self.augmentation, image, self._seed(i)) for i, image in zip(index, images, strict=True)]
        return _stacked(changed)

    def _cropped(self, index: Any, augmentation: str) -> Tensor:
        if augmentation == "resized_crop":
            return _stacked([resized_crop_pixels(self._pixels(i), self.size, self._rng(i)) for i in index])
        if augmentation == "he2016":
            return _stacked([to_tensor(he2016(self._original(i), self.size, self._rng(i))) for i in index])
        images = self._as_tested(index)
        if augmentation == "none":
            return images
        draws = _taken(self._draws, index)  # (B, 3)
        return crop_flip(images, draws.numpy()) if images.device.type == "cpu" else crop_flip_tensors(images, draws)

    def _as_tested(self, index: Any) -> Tensor:
        if isinstance(self.split, MemorySplit) and self.whole:
            return _taken(self.split.images, index)
        preset = self.split.preset if isinstance(self.split, FileSplit) else "paper"
        return torch.stack([to_tensor(evaluation_image(self._original(i), self.size, preset)) for i in index])

    def _original(self, i: int) -> Image.Image:
        return self.split.original(i) if isinstance(self.split, FileSplit) else to_image(self.split[i][0])

    def _pixels(self, i: int) -> Tensor:
        return self.split.original_pixels(i) if isinstance(self.split, FileSplit) else self.split[i][0]

    def _rng(self, i: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, PIXELS, self.epoch, i]))

    def _seed(self, i: int) -> int:
        """Of an image's policy."""
        words = np.random.SeedSequence([self.seed, POLICY, self.epoch, i]).generate_state(1, np.uint64)
        return int(words[0]) >> 1

    @cached_property
    def _draws(self) -> Tensor:
        # One table for the epoch: a generator for each image would cost ten times the crop itself.
        draws = crop_flip_draws(np.random.SeedSequence([self.seed, PIXELS, self.epoch]), len(self.split))
        return torch.from_numpy(draws).to(self.split.labels.device, non_blocking=True)


def _taken(rows: Tensor, index: list[int] | Tensor) -> Tensor:
    """As rows[index], which visits every byte by itself where index_select copies whole rows."""
    on_device = torch.as_tensor(index, dtype=torch.int64, device=rows.device)
    return rows.index_select(0, on_device)


def _stacked(images: list[Tensor]) -> Tensor:
    batch: Tensor = default_collate(images)  # torch.stack, but in a worker straight into the memory that is shared
    return batch


def _at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise InputError(f"{name}={number}; wanted at least {least}")
