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
    """Batches of the images at `indices`, in that order, as tested; the last one may be short.

    pinned: in memory that a GPU copies from while it computes. stop: asked while a batch is waited for. Raises
    InputError for an index outside 0..len(split)-1, and where a file cannot be decoded; StoppedWaiting where `stop`
    says so; ChildProcessError where a worker is gone or cannot hand over what it read.
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
    """One epoch of shuffled, augmented batches; `len` counts those it will give.

    The order is a function of (seed, epoch), the augmentation of (seed, epoch, index). Where images are read by the
    group (Parquet), the order is also one of the batch size and of the number of groups open at a time. Batches are
    full, the rest of the images is left out, unless the split is smaller than one batch. skip: leave out the first so
    many batches, to go on in mid-epoch. share: (rank, count) gives of each batch what `share_of` says. image_size:
    default the split's own training size. pinned, stop: as for `evaluation_batches`, which also raises as going through
    these does.
    Augmentations: "none" (the test preprocessing), "crop_flip" (4 zeros a side, random crop, flip), "resized_crop"
    (0.08 to 1 of the area, flip), "he2016" (random scale, crop, flip and colour); "randaugment", "trivialaugment",
    "autoaugment" and "augmix", torchvision's, after crop_flip for images up to 64 px and resized_crop above. Raises
    InputError for anything else.
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
        return torch.stack([self.split[i][0] for i in index])


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
