"""`load_data`: from a word such as "demo", "cifar10:PATH" or "folder:PATH" to a data set."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch

from shconv.arguments import checked
from shconv.data import demo
from shconv.data.cifar10 import CLASSES, load_cifar10
from shconv.data.files import OnCorrupt, Progress, load_folder
from shconv.data.parquet import MEMORY
from shconv.data.preparation import Preparation, Preset
from shconv.data.splits import ImageData, ImageSplit, MemorySplit
from shconv.data.transforms import evaluation_image, grey_pixels, to_image, to_tensor
from shconv.errors import InputError, near

FORMS = {"demo": "demo", "cifar10": "cifar10[:PATH]", "folder": "folder:PATH", "imagenet": "imagenet:PATH"}


@checked
def load_data(
    spec: str,
    *,
    image_size: int | None = None,
    on_corrupt: OnCorrupt = "error",
    test_preset: Preset | Literal["auto"] = "auto",
    preparation: Preparation | None = None,
    grey: bool = False,
    download: bool = False,
    want_train: bool = True,
    parquet_memory: float = MEMORY,
    progress: Progress | None = None,
) -> ImageData:
    """The data set that `spec` names.

    Example:
        ```python
        data = load_data("folder:flowers")
        image, label = data.test[0]  # uint8 (3, H, W), int
        ```

    Args:
        spec: "demo" (patches of scikit-image's photographs), "cifar10" (in ./data) or "cifar10:PATH", "folder:PATH"
            (train/ and test/ or val/, one folder for each class), "imagenet:PATH" (class folders, Parquet or tar
            files).
        image_size: side of the images in training and test. Default: the images' own if all are squares of one size, at
            most 64 pixels; else 224 in training and 256 (paper) or 224 (imagenet) in test.
        test_preset: for images of another size, "paper" resizes to a square of round(1.168 s), which distorts, and
            crops the centre s (section 3.2). "imagenet" resizes the shorter side to round(s 256 / 224), as is usual.
            "auto" is imagenet for folder:PATH, else paper.
        preparation: that of a network, from its checkpoint, used where the two above are not given.
        grey: one channel, the luminance of ITU-R 601, as MNIST has; by default as the preparation says, else RGB.
        on_corrupt: "error" raises InputError that names a broken file; "skip" leaves it out and counts it.
        download: allows the download of cifar10; nothing else is ever downloaded.
        want_train: False does not read the training images, which may then be missing.
        parquet_memory: GB of Parquet row groups that all processes of a training hold together. More memory gives
            better shuffling.
        progress: called as progress(files done, files in all) while image files are read.

    Raises:
        InputError: anything that cannot be found or used.
    """
    kind, _, path = spec.partition(":")
    _check(spec, kind, path)
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size={image_size}; wanted at least 1 pixel")
    if on_corrupt not in ("error", "skip"):
        raise InputError(f"on_corrupt={on_corrupt!r}; wanted 'error' or 'skip'")
    if not 0 < parquet_memory < float("inf"):
        raise InputError(f"parquet_memory={parquet_memory}; wanted GB, above 0")
    if test_preset not in ("auto", *get_args(Preset)):
        raise InputError(f"test_preset={test_preset!r}; wanted one of auto, {', '.join(get_args(Preset))}")
    known = preparation or Preparation()
    channels = 1 if grey else known.channels
    preset = (
        known.test_preset or ("imagenet" if kind == "folder" else "paper") if test_preset == "auto" else test_preset
    )

    if kind in ("folder", "imagenet"):
        return load_folder(
            spec,
            path,
            imagenet=kind == "imagenet",
            image_size=image_size or known.image_size,
            train_size=image_size or known.train_size,
            on_corrupt=on_corrupt,
            test_preset=preset,
            channels=channels,
            want_train=want_train,
            parquet_memory=parquet_memory,
            progress=progress,
        )
    train: MemorySplit | None
    if kind == "demo":
        train, test = demo.load_demo()
        classes, note = demo.CLASSES, demo.NOTE
    else:
        train, test = load_cifar10(path, download=download, want_train=want_train)
        classes, note = CLASSES, ""
    size = image_size or known.image_size or test.images.shape[-1]
    return ImageData(
        name=spec,
        classes=classes,
        train=_resized(train, size, preset, channels) if train is not None and want_train else None,
        test=_resized(test, size, preset, channels),
        image_size=size,
        note=note,
        skipped=0,
        test_preset=preset,
        channels=channels,
    )


def _check(spec: str, kind: str, path: str) -> None:
    if kind not in FORMS:
        there = Path(spec).expanduser().is_dir()
        hint = f"did you mean folder:{spec}?" if there else near(kind, list(FORMS), otherwise="")
        hint = f" ({hint})" if hint else ""
        raise InputError(f"data {spec!r} is unknown{hint}; wanted one of {', '.join(FORMS.values())}")
    if kind in ("folder", "imagenet") and not path:
        raise InputError(f"data {spec!r} names no folder; wanted {FORMS[kind]}")
    if kind == "demo" and spec != "demo":
        raise InputError(f"data {spec!r}: the demo takes no path; wanted demo")


def _resized(split: MemorySplit, size: int, preset: Preset, channels: int) -> ImageSplit:
    if channels == 1:
        split = replace(split, images=grey_pixels(split.images))
    if split.images.shape[-1] == size:
        return split
    images = [to_tensor(evaluation_image(to_image(image), size, preset)) for image in split.images]
    return replace(split, images=torch.stack(images))
