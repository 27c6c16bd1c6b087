"""What a data set is to the rest of the package: splits that give uint8 images and labels, and batches of them.
Two kinds of split: held in memory, or encoded images that are decoded when asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from shconv.data.decode import to_pixels, to_rgb
from shconv.data.preparation import Preparation, Preset
from shconv.data.sources import ImageFiles
from shconv.data.transforms import evaluation_image, grey_pixels, to_tensor


class Batch(NamedTuple):
    """Images with their labels and their places in the split. `.images.float().div(255)` is what a network takes."""

    images: Tensor  # uint8 (B, 3, H, W)
    labels: Tensor  # int64 (B,)
    index: Tensor  # type: ignore[assignment]  # int64 (B,); hides tuple.index, which no batch needs


def in_unit_range(images: Tensor) -> Tensor:
    """Images as a network takes them, float32 in [0, 1]: uint8 ones divided by 255, float ones as they are."""
    return images.float() if images.is_floating_point() else images.float().div(255)


class ImageSplit(Protocol):
    """Labelled images in a fixed order. `split[i]` is image i as it is tested: (uint8 (3, H, W), label).

    What a user hands to `shconv.evaluate` may also hold floats in [0, 1], and other numbers of channels.
    """

    @property
    def labels(self) -> Tensor: ...  # int64 (N,)

    @property
    def names(self) -> Sequence[str]: ...  # file name or index of each image

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    def take(self, kept: Sequence[int]) -> Self:
        """The same with the images at these places only."""
        ...


@dataclass(frozen=True)
class ImageData:
    """A data set as `load_data` gives it."""

    name: str  # the spec as given, such as "cifar10" or "folder:PATH"
    classes: tuple[str, ...]
    train: ImageSplit | None
    test: ImageSplit
    image_size: int  # side of the test images
    note: str  # one sentence to print wherever the data is named; may be empty
    skipped: int  # files left out by on_corrupt="skip"
    test_preset: Preset = "paper"  # how images of another size are prepared
    channels: int = 3
    own: bool = False  # a user's tensors or Dataset, which no name tells from others

    @property
    def train_size(self) -> int:
        """Side of the training images: with the paper's preset 224, where tests are at 256."""
        return self.train.train_size if isinstance(self.train, FileSplit) else self.image_size

    @property
    def preparation(self) -> Preparation:
        """How the images are prepared, for whoever wants others prepared likewise."""
        return Preparation(self.image_size, self.train_size, self.test_preset, self.channels)

    @property
    def is_demo(self) -> bool:
        return self.name == "demo"

    @property
    def is_imagenet(self) -> bool:
        """Is this the paper's data: the 1000 classes of ILSVRC-2012?"""
        return self.name.startswith("imagenet") and len(self.classes) == 1000

    @property
    def open_groups(self) -> int | None:
        """Groups among which training shuffles at any moment, where its images are read by the group; else None."""
        groups = self.train.files.groups if isinstance(self.train, FileSplit) else None
        return None if groups is None else groups.open


@dataclass(frozen=True, eq=False)
class MemorySplit:
    """Images of one size, decoded."""

    images: Tensor  # uint8 (N, 3 or 1, S, S)
    labels: Tensor  # int64 (N,)
    names: Sequence[str]
    resident: bool = False  # where they are computed on: batches are made there, and no worker can help

    def on(self, device: torch.device | str) -> Self:
        """The same images, resident on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), resident=True)

    def take(self, kept: Sequence[int]) -> Self:
        """The same with the images at these places only."""
        at = torch.tensor(kept, device=self.images.device)
        return replace(self, images=self.images[at], labels=self.labels[at], names=[self.names[i] for i in kept])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Encoded images, decoded when asked for; one that cannot be decoded then raises InputError with its name."""

    files: ImageFiles
    labels: Tensor  # int64 (N,)
    image_size: int
    train_size: int
    preset: str
    channels: int = 3

    @property
    def folder(self) -> Path:
        return self.files.folder

    @property
    def names(self) -> Sequence[str]:
        return self.files.names  # below folder

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = evaluation_image(self.original(index), self.image_size, self.preset)
        return to_tensor(image), int(self.labels[index])

    def take(self, kept: Sequence[int]) -> Self:
        """The same with the images at these places only."""
        return replace(self, files=self.files.take(kept), labels=self.labels[torch.tensor(kept)])

    def original(self, index: int) -> Image.Image:
        """The decoded image at its own size."""
        image = to_rgb(self.files.read(index), self.folder / self.names[index])
        return image.convert("L") if self.channels == 1 else image

    def original_pixels(self, index: int) -> Tensor:
        """The same as uint8 (3 or 1, H, W), which is faster: what the random crops of training start from."""
        pixels = to_pixels(self.files.read(index), self.folder / self.names[index])
        return grey_pixels(pixels) if self.channels == 1 else pixels
