"""Any encoded image to 8-bit RGB, upright. What is broken or no image is an InputError that names it.
Pillow decodes; plain JPEGs can go through torchvision's libjpeg, which gives the same pixels without a detour."""

from io import BytesIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from shconv.errors import InputError


def to_rgb(data: bytes, name: object) -> Image.Image:
    """Decode to 8-bit RGB.

    The EXIF orientation is applied; grey, palette and CMYK are converted; 16-bit grey v becomes round(v / 257);
    alpha is dropped (what lies under transparent pixels shows, as in torchvision's ImageFolder); of several frames
    the first is taken. Raises InputError with `name` if it cannot be decoded whole.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            return _converted(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly any exception on a broken file
        raise _unreadable(name, error) from error


def to_pixels(data: bytes, name: object) -> Tensor:
    """The same as uint8 (3, H, W), channels last in memory.

    An upright grey or RGB JPEG, which is nearly every photograph, skips Pillow's four bytes a pixel and the copies out
    of them; pixels are the same.
    """
    try:
        with Image.open(BytesIO(data)) as image:  # reads the header
            if image.format == "JPEG" and image.mode in ("L", "RGB") and _is_upright(image):
                return _jpeg(data)
    except Exception:
        pass  # Pillow decides below whether it can be read, and says why not
    pixels = np.array(to_rgb(data, name))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def dimensions(data: bytes, name: object) -> tuple[int, int]:
    """(width, height) from the header alone. Raises InputError if it is not an image's."""
    try:
        with Image.open(BytesIO(data)) as image:
            return image.size
    except Exception as error:
        raise _unreadable(name, error) from error


def decode_error(data: bytes, name: object) -> InputError | None:
    """The error `to_rgb` would raise, or None. A JPEG is decoded at 1/8 of its size, which still reads all of it."""
    try:
        with Image.open(BytesIO(data)) as image:
            if image.format == "JPEG":
                image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
            _converted(image)
    except MemoryError:
        raise
    except Exception as error:
        return _unreadable(name, error)
    return None


def _converted(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey is "I;16..." or, from some readers, "I"
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels; wanted 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def _is_upright(image: Image.Image) -> bool:
    return image.getexif().get(ExifTags.Base.Orientation, 1) not in range(2, 9)


def _jpeg(data: bytes) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg  # slow to import, and not wanted for every kind of data

    encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    return decode_jpeg(encoded, mode=ImageReadMode.RGB)  # type: ignore[no-any-return]


def _unreadable(name: object, error: Exception) -> InputError:
    reason = "no image format is recognised" if isinstance(error, UnidentifiedImageError) else str(error)
    return InputError(f"{name}: cannot be read as an image ({reason or type(error).__name__})")
