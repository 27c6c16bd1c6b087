"""Any encoded image to 8-bit RGB, upright. What is broken or no image is an InputError that names it.
Pillow decodes; plain JPEGs can go through torchvision's libjpeg, which gives the same pixels without a detour."""

from collections.abc import Callable
from io import BytesIO
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from shconv.data.metadata import check_png, stored_orientation, without_metadata
from shconv.errors import InputError

T = TypeVar("T")

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
INTEGERS = ("PNG", "PPM", "TIFF", "JPEG2000")  # formats whose 16-bit pixels go from 0 to the brightest
BITS, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 262, 274, 339  # tags of TIFF files
WHITE_IS_ZERO, SIGNED = 0, 2  # their values
REFUSED = {"F": "floating-point pixels; wanted 8 or 16 bits", "LAB": "LAB colours; wanted grey, RGB or CMYK"}


def to_rgb(data: bytes, name: object) -> Image.Image:
    """Decode to 8-bit RGB.

    The EXIF orientation is applied, all other metadata ignored; grey, palette and CMYK are converted; 16-bit grey v
    becomes round(v / 257); alpha is dropped (what lies under transparent pixels shows, as in torchvision's
    ImageFolder); of several frames the first is taken. Raises InputError with `name` if it cannot be decoded whole.
    """
    return _read(data, name, _converted)


def to_pixels(data: bytes, name: object) -> Tensor:
    """The same as uint8 (3, H, W), channels last in memory.

    An upright grey or RGB JPEG, which is nearly every photograph, skips Pillow's four bytes a pixel and the copies out
    of them; pixels are the same.
    """
    try:
        with Image.open(BytesIO(data)) as image:  # reads the header
            if image.format == "JPEG" and image.mode in ("L", "RGB") and _orientation(image, data) == 1:
                return _jpeg(data)
    except Exception:
        pass  # Pillow decides below whether it can be read, and says why not
    pixels = np.array(to_rgb(data, name))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def dimensions(data: bytes, name: object) -> tuple[int, int]:
    """(width, height) from the header alone. Raises InputError if it is not an image's."""
    return _read(data, name, lambda image, data: image.size)


def decode_error(data: bytes, name: object) -> InputError | None:
    """The error `to_rgb` would raise, or None. A JPEG is decoded at 1/8 of its size, which still reads all of it."""
    try:
        _read(data, name, _converted_small)
    except InputError as error:
        return error
    return None


def _read(data: bytes, name: object, read: Callable[[Image.Image, bytes], T]) -> T:
    """read(image, data) of the file; where that fails, of the file without its metadata."""
    try:
        try:
            with Image.open(BytesIO(data)) as image:
                return read(image, data)
        except (Image.DecompressionBombError, MemoryError):
            raise
        except Exception:  # Pillow's readers raise nearly any exception on a broken file
            plain = without_metadata(data)
            if plain is None:
                raise
            with Image.open(BytesIO(plain)) as image:
                return read(image, data)
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


def _converted(image: Image.Image, data: bytes) -> Image.Image:
    turn = TURNS.get(_orientation(image, data))
    image.load()
    if image.format == "PNG":
        check_png(data)
    image = to_eight_bits(image).convert("RGB")
    return image if turn is None else image.transpose(turn)


def to_eight_bits(image: Image.Image) -> Image.Image:
    """An image that Pillow has read, in whatever mode, as "L" or "RGB". Raises ValueError where its pixels' brightness
    or colours are not known."""
    if image.mode.startswith("I"):
        image = _from_integers(image)
    if image.mode in REFUSED:
        raise ValueError(REFUSED[image.mode])
    if SIGNED in _tag(image, SAMPLE_FORMAT):
        raise ValueError("signed pixels; wanted unsigned ones")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _converted_small(image: Image.Image, data: bytes) -> Image.Image:
    if image.format == "JPEG":
        image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
    return _converted(image, data)


def _from_integers(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, "I;16..." or, from some readers, "I". In an image made in memory, which has no format,
    "I;16" has all its 16 bits."""
    bits = _tag(image, BITS) or (16,)
    known = image.format in INTEGERS or (image.format is None and image.mode.startswith("I;16"))
    if not known or max(bits) > 16 or SIGNED in _tag(image, SAMPLE_FORMAT):
        raise ValueError("integer pixels of unknown brightness; wanted 8 or 16 bits, unsigned")
    top = 2 ** bits[0] - 1
    grey = np.asarray(image).astype(np.int64)
    if WHITE_IS_ZERO in _tag(image, PHOTOMETRIC):
        grey = top - grey
    return Image.fromarray(((2 * 255 * grey + top) // (2 * top)).astype(np.uint8))


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "TIFF" and _tag(image, ORIENTATION):
        return 1  # Pillow turns it when it loads it
    stored = stored_orientation(data)
    if stored is None:  # there may be some in XMP or in a text chunk
        try:
            stored = image.getexif().get(ExifTags.Base.Orientation)
        except Exception:  # metadata that cannot be read is none
            stored = None
    return 1 if stored is None else stored


def _tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    """The values of a TIFF file's tag; () where there is none, and for other formats."""
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _jpeg(data: bytes) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg  # slow to import, and not wanted for every kind of data

    encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    return decode_jpeg(encoded, mode=ImageReadMode.RGB)  # type: ignore[no-any-return]


def _unreadable(name: object, error: Exception) -> InputError:
    reason = "no image format is recognised" if isinstance(error, UnidentifiedImageError) else str(error)
    return InputError(f"{name}: cannot be read as an image ({reason or type(error).__name__})")
