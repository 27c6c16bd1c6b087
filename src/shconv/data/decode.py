"""Any image file to 8-bit RGB, upright. A file that is broken or no image is an InputError that names it."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shconv.errors import InputError


def read_rgb(path: Path) -> Image.Image:
    """Decode a file to 8-bit RGB.

    The EXIF orientation is applied; grey, palette and CMYK are converted; 16-bit grey v becomes round(v / 257);
    alpha is dropped (what lies under transparent pixels shows, as in torchvision's ImageFolder); of several frames
    the first is taken. Raises InputError with the file's name if it cannot be decoded whole.
    """
    try:
        with Image.open(path) as image:
            return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly any exception on a broken file
        raise _unreadable(path, error) from error


def image_dimensions(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header alone. Raises InputError if it is not an image's."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        raise _unreadable(path, error) from error


def read_error(path: Path) -> InputError | None:
    """The error `read_rgb` would raise, or None. A JPEG is decoded at 1/8 of its size, which still reads all of it."""
    try:
        with Image.open(path) as image:
            if image.format == "JPEG":
                image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
            _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        return _unreadable(path, error)
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey is "I;16..." or, from some readers, "I"
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels; wanted 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = "no image format is recognised" if isinstance(error, UnidentifiedImageError) else str(error)
    return InputError(f"{path}: cannot be read as an image ({reason or type(error).__name__})")
