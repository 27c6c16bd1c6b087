"""The pixel work on uint8 images: test preprocessing and training augmentation, as the paper and He et al. 2016 do it.
Resizing is antialiased bilinear in integers, Pillow's or torch's, so it is the same on every machine."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from shconv.data.policies import POLICIES
from shconv.errors import InputError

AUGMENTATIONS = ("none", "crop_flip", "resized_crop", "he2016", *POLICIES)

PAD = 4
MOST_RESIZED = 2**26  # pixels
# The principal components of ImageNet's RGB values in [0, 1] (Krizhevsky et al. 2012), one in each column.
PCA_VALUES = np.array([0.2175, 0.0188, 0.0045])
PCA_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def to_tensor(image: Image.Image) -> Tensor:
    """RGB or grey image -> uint8 (3 or 1, H, W)."""
    return torch.from_numpy(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1).copy())


def to_image(pixels: Tensor) -> Image.Image:
    """uint8 (3 or 1, H, W) -> RGB or grey image."""
    return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).contiguous().numpy())


def grey_pixels(pixels: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) -> (..., 1, H, W): the luminance of ITU-R 601, to the bit Pillow's "L"."""
    red, green, blue = pixels.int().unbind(-3)
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).to(torch.uint8).unsqueeze(-3)


def evaluation_image(image: Image.Image, size: int, preset: str = "paper") -> Image.Image:
    """The test preprocessing: an image that is already size x size is left as it is.

    "paper": resize to a square of side round(1.168 size), whatever the aspect ratio, then crop the centre
    (section 3.2: 299 and 256). "imagenet": shorter side to round(size 256 / 224), crop the centre (256 and 224).
    """
    if image.size == (size, size):
        return image
    side = round(1.168 * size)
    whole = (side, side) if preset == "paper" else _shorter(image, round(size * 256 / 224))
    return _crop_of_resized(image, whole, size, lambda room: round(room / 2))


def crop_flip_draws(seed_sequence: np.random.SeedSequence, n: int) -> NDArray[np.int64]:
    """(n, 3): row offset and column offset in 0..8, flip in 0..1. Row i does not depend on n."""
    uniform = np.random.default_rng(seed_sequence).random((n, 3))
    return (uniform * [2 * PAD + 1, 2 * PAD + 1, 2]).astype(np.int64)


def crop_flip(images: Tensor, draws: NDArray[np.int64]) -> Tensor:
    """The CIFAR augmentation of He et al. 2016 (section 4.2), a whole batch at once.

    images: uint8 (B, 3, H, W). Each is padded with 4 zeros a side; from there the window at the drawn offsets is taken
    and mirrored where drawn. draws: (B, 3) from `crop_flip_draws`.
    """
    batch, channels, height, width = images.shape
    padded = np.zeros((batch, channels, height + 2 * PAD, width + 2 * PAD), np.uint8)
    padded[:, :, PAD : PAD + height, PAD : PAD + width] = images.numpy()
    shape = (batch, channels, 2 * PAD + 1, 2 * PAD + 1, height, width)  # each window; sliding_window_view is slower
    windows = np.ndarray(shape, np.uint8, padded, strides=padded.strides + padded.strides[2:])
    cropped = windows[np.arange(batch), :, draws[:, 0], draws[:, 1]]
    flipped = draws[:, 2] == 1
    cropped[flipped] = cropped[flipped][..., ::-1]
    return torch.from_numpy(cropped)


def crop_flip_tensors(images: Tensor, draws: Tensor) -> Tensor:
    """The same pixels by torch's operations, for images and draws (int64) that lie on one device."""
    batch, _, height, width = images.shape
    top, left, flip = draws.unbind(1)
    windows = F.pad(images, (PAD, PAD, PAD, PAD)).unfold(2, height, 1).unfold(3, width, 1)  # (B, 3, 9, 9, H, W)
    cropped = windows[torch.arange(batch, device=images.device), :, top, left]
    return torch.where((flip == 1)[:, None, None, None], cropped.flip(-1), cropped)


def resized_crop_pixels(pixels: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """A random crop of 0.08 to 1 of the area with ratio 3/4 to 4/3, resized to size x size, mirrored half the time.

    As torchvision's RandomResizedCrop (Szegedy et al. 2015): ten tries, then the largest centre crop of such a ratio.
    pixels: uint8 (3, H, W).
    """
    height, width = pixels.shape[1:]
    left, top, w, h = _random_box(width, height, rng)
    return _resized(pixels[:, top : top + h, left : left + w], size, flip=rng.random() < 0.5)


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the crop."""
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (width - w) // 2, (height - h) // 2, w, h


def _resized(pixels: Tensor, size: int, flip: bool) -> Tensor:
    """torch's antialiased bilinear filter works in integers as Pillow's does, within one level of it and faster."""
    resized = torch.nn.functional.interpolate(pixels[None], (size, size), mode="bilinear", antialias=True)[0]
    return resized.flip(-1) if flip else resized


def he2016(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """He et al. 2016, section 3.4: shorter side random in [256, 480], random crop, flip, PCA colour shift.

    The range is for size 224 and in proportion for others. Raises InputError for a grey image, which has no colour.
    """
    if image.mode == "L":
        raise InputError("augmentation he2016 shifts colours, and these images are grey; take another")
    low, high = round(size * 256 / 224), round(size * 480 / 224)
    whole = _shorter(image, int(rng.integers(low, high + 1)))
    image = _random_flip(_crop_of_resized(image, whole, size, lambda room: int(rng.integers(room + 1))), rng)
    shift = PCA_VECTORS @ (PCA_VALUES * rng.normal(0.0, 0.1, 3))  # (3,) RGB, the same for every pixel
    levels = (np.arange(256) + 255 * shift[:, None]).round().clip(0, 255)  # (3, 256): what each level becomes
    return image.point(levels.astype(int).ravel().tolist())


def _shorter(image: Image.Image, side: int) -> tuple[int, int]:
    """(width, height) of the image with the shorter side at `side`."""
    shorter = min(image.size)
    return side * image.width // shorter, side * image.height // shorter


def _crop_of_resized(image: Image.Image, whole: tuple[int, int], size: int, place: Callable[[int], int]) -> Image.Image:
    """size x size of the image resized to `whole`, `place`(pixels to spare) from the left and from the top.

    Of 1 x 5000 pixels the whole would take a gigabyte: then only the crop is made, within a level of the same.
    """
    left, top = (place(length - size) for length in whole)
    box = (left, top, left + size, top + size)
    if math.prod(whole) <= MOST_RESIZED:
        return image.resize(whole, Image.Resampling.BILINEAR).crop(box)
    (w, h), (across, down) = image.size, whole
    part = (left * w / across, top * h / down, (left + size) * w / across, (top + size) * h / down)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=part)


def _random_flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image
