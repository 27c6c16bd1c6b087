"""The embedded default: 32 x 32 patches of the colour photographs inside the scikit-image wheel; label = photograph.
Train and test come from separate strips of each photograph, with a margin between them."""

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from shconv.data.splits import MemorySplit
from shconv.errors import InputError

# Every colour photograph of the wheel whose licence scikit-image states; docs/data.md has source and licence of each.
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
)
CLASSES = tuple(Path(file).stem for file in PHOTOGRAPHS)
NOTE = "The demo's classes are seven photographs, and its images are patches of them. They are not objects."

PATCH = 32
PATCHES = {"train": 572, "test": 286}  # of each photograph: 4,004 and 2,002 in all
WIDTH = 500  # a photograph is shrunk by the whole factor that brings its width nearest to this
PERIOD = 128  # about the width of a train strip, a margin, a test strip and a margin
TEST_STRIP = 40
MARGIN = 8
STEP = 4  # between neighbouring candidates
LEAST_CONTRAST = 7  # grey levels; the emptiest of hubble_deep_field has 7.3, plain sky and the black round retina less
GOLDEN = 0.6180339887498949

Part = Literal["train", "test"]


def load_demo() -> tuple[MemorySplit, MemorySplit]:
    """(train, test): 4,004 and 2,002 patches, as many of each photograph; the same on every call.

    A name such as "coffee 72,128 32" says where a patch was cut: left, top, side in the photograph's pixels. Patches of
    one part overlap each other; no pixel of a photograph is in both parts. Raises InputError without scikit-image.
    """
    folder = _photograph_folder()
    photographs = [_shrink(_read(folder / file)) for file in PHOTOGRAPHS]
    return _patches(photographs, "train"), _patches(photographs, "test")


def _photograph_folder() -> Path:
    # The files are read where they lie: skimage.data's own functions may go to the network.
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise InputError(
            "the demo's photographs come with scikit-image, which is not installed: pip install scikit-image"
        )
    return Path(spec.origin).parent / "data"


def _read(file: Path) -> NDArray[np.uint8]:
    if not file.is_file():
        raise InputError(
            f"scikit-image holds no {file.name}; want a version that does: pip install --upgrade scikit-image"
        )
    return np.asarray(Image.open(file).convert("RGB"))


def _shrink(photograph: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """(H, W, 3) -> its means over k x k blocks, and k: patches of a wide photograph would otherwise show little."""
    k = max(1, round(photograph.shape[1] / WIDTH))
    height, width = photograph.shape[0] // k, photograph.shape[1] // k
    blocks = photograph[: height * k, : width * k].reshape(height, k, width, k, 3).astype(np.uint32)
    total = blocks.sum((1, 3), dtype=np.uint32)
    return ((total + k * k // 2) // (k * k)).astype(np.uint8), k


def _strip_columns(width: int, part: Part) -> list[int]:
    """The left edges of the candidates of a part: strips of both alternate from left to right."""
    columns: list[int] = []
    periods = max(1, round(width / PERIOD))
    edges = [round(i * width / periods) for i in range(periods + 1)]
    for left, right in pairwise(edges):
        test = right - MARGIN - TEST_STRIP
        start, stop = (left, test - MARGIN) if part == "train" else (test, test + TEST_STRIP)
        columns.extend(range(start, stop - PATCH + 1, STEP))
    return columns


def _patches(photographs: list[tuple[NDArray[np.uint8], int]], part: Part) -> MemorySplit:
    images, names = [], []
    for name, (photograph, k) in zip(CLASSES, photographs, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(photograph, (PATCH, PATCH), axis=(0, 1))
        tops = range(0, len(windows), STEP)
        corners = np.array([(top, left) for left in _strip_columns(photograph.shape[1], part) for top in tops])
        candidates = windows[corners[:, 0], corners[:, 1]]  # (n, 3, 32, 32)
        structured = np.flatnonzero(_contrast(candidates) >= LEAST_CONTRAST)
        chosen = structured[_spread(len(structured), PATCHES[part])]
        images.append(candidates[chosen])
        names.append([f"{name} {k * left},{k * top} {k * PATCH}" for top, left in corners[chosen]])
    # One patch of each photograph in turn, so that the first n of a part are balanced too.
    return MemorySplit(
        torch.from_numpy(np.stack(images, 1).reshape(-1, 3, PATCH, PATCH)),
        torch.arange(len(CLASSES)).repeat(PATCHES[part]),
        [name for turn in zip(*names, strict=True) for name in turn],
    )


def _contrast(patches: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n, 3, 32, 32) -> (n,): from the 10th to the 90th percentile of grey levels, the mean over the channels.

    A standard deviation would let through a black patch with one bright corner.
    """
    pixels = patches[..., ::2, ::2].reshape(len(patches), 3, -1)  # a quarter of them tells enough
    levels = np.sort(pixels, kind="stable")  # of bytes that is a radix sort, in an eighth of the time
    tenth = levels.shape[-1] // 10
    spread: NDArray[np.float64] = np.mean(levels[..., -1 - tenth].astype(np.float64) - levels[..., tenth], axis=1)
    return spread


def _spread(n: int, count: int) -> NDArray[np.int64]:
    """`count` different numbers of 0..n-1, evenly spaced, in an order of which every beginning is spread out too."""
    even = np.arange(count) * n // count
    return even[np.argsort(np.arange(count) * GOLDEN % 1)]
