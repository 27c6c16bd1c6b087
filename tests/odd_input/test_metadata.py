"""Broken metadata costs no image its pixels, nor the turn that its orientation asks for where that can be read."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from files import (
    COLOUR,
    GREY,
    Pixels,
    chunk,
    exif,
    grey_tiff,
    in_three,
    png,
    saved,
    short,
    with_chunks,
    with_segment,
)
from PIL import Image
from test_pixels import decoded

from toys import as_stored

RGB = Image.fromarray(COLOUR)
EXIF = b"Exif\0\0"
TURNED = 6  # what is stored has to be turned clockwise
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'

# Tags beside the orientation, wrong in a way of their own: (tag, type, count, value).
WRONG_TAGS = {
    "a resolution of type short": (282, 3, 1, b"\x48\0"),
    "a resolution in words": (282, 2, 4, b"72\0\0"),
    "a resolution over zero": (282, 5, 1, struct.pack("<II", 72, 0)),
    "a resolution of infinity": (282, 12, 1, struct.pack("<d", float("inf"))),
    "a unit of type rational": (296, 5, 1, struct.pack("<II", 2, 1)),
    "a unit in words": (296, 2, 4, b"cm\0\0"),
    "a date of type long": (306, 4, 1, b"\1\2\3\4"),
    "a maker that is no text": (271, 2, 4, b"\xff\xfe\xfd\xfc"),
    "a type that there is not": (305, 99, 3, b"abc"),
    "a count beyond the file": (270, 2, 1_000_000, b"\x08\0\0\0"),
    "a place beyond the file": (270, 2, 9, b"\xff\xff\xff\x7f"),
    "an EXIF directory that is not there": (34665, 4, 1, b"\xff\xff\xff\x7f"),
    "an EXIF directory of type text": (34665, 2, 4, b"abcd"),
}


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    data = saved(RGB.resize((96, 64), Image.Resampling.NEAREST), "JPEG", quality=95, subsampling=0)
    for marker, segment in segments:
        data = with_segment(data, marker, segment)
    return data


def webp(*chunks: tuple[bytes, bytes], announced: int = 0x0C) -> bytes:
    return with_chunks(saved(RGB, "WEBP", lossless=True), *chunks, announced=announced)


def coloured_png(*before: bytes, after: bytes = b"") -> bytes:
    return png(COLOUR, 8, 2, *before, after=after)


def text(kind: bytes, data: bytes, **wrong: int) -> bytes:
    return coloured_png(chunk(kind, data, **wrong))


def clockwise(pixels: Pixels) -> Pixels:
    return np.rot90(pixels, -1)


JPEG_PIXELS: Pixels = np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))
CASES: dict[str, tuple[Callable[[], bytes], Pixels]] = {
    **{f"JPEG: {name}": (lambda tag=tag: jpeg((0xE1, EXIF + exif(TURNED, tag))), clockwise(JPEG_PIXELS))
       for name, tag in WRONG_TAGS.items()},
    **{f"PNG: {name}": (lambda tag=tag: coloured_png(chunk(b"eXIf", exif(TURNED, tag))), clockwise(COLOUR))
       for name, tag in WRONG_TAGS.items()},
    **{f"WebP: {name}": (lambda tag=tag: webp((b"EXIF", exif(TURNED, tag))), clockwise(COLOUR))
       for name, tag in WRONG_TAGS.items()},
    **{f"TIFF: {name}": (lambda tag=tag: grey_tiff(GREY, 8, short(274, TURNED), tag), clockwise(in_three(GREY)))
       for name, tag in WRONG_TAGS.items()},
    "JPEG: EXIF, big-endian": (lambda: jpeg((0xE1, EXIF + exif(TURNED, order=">"))), clockwise(JPEG_PIXELS)),
    "JPEG: EXIF, marked twice": (lambda: jpeg((0xE1, 2 * EXIF + exif(TURNED))), clockwise(JPEG_PIXELS)),
    "JPEG: EXIF that is cut short": (lambda: jpeg((0xE1, EXIF + exif(TURNED)[:12])), JPEG_PIXELS),
    "JPEG: empty EXIF": (lambda: jpeg((0xE1, EXIF)), JPEG_PIXELS),
    "JPEG: EXIF of rubbish": (lambda: jpeg((0xE1, EXIF + b"rubbish" * 9)), JPEG_PIXELS),
    "JPEG: an orientation of 0": (lambda: jpeg((0xE1, EXIF + exif(0))), JPEG_PIXELS),
    "JPEG: an orientation of 9": (lambda: jpeg((0xE1, EXIF + exif(9))), JPEG_PIXELS),
    "JPEG: orientation in XMP alone": (
        lambda: jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)), clockwise(JPEG_PIXELS)),
    "JPEG: XMP of rubbish": (lambda: jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<")), JPEG_PIXELS),
    "JPEG: a colour profile of rubbish": (lambda: jpeg((0xE2, b"ICC_PROFILE\0\1\1rubbish")), JPEG_PIXELS),
    "JPEG: the second of no first part of a profile": (lambda: jpeg((0xE2, b"ICC_PROFILE\0\2\3x")), JPEG_PIXELS),
    "JPEG: a profile without numbers": (lambda: jpeg((0xE2, b"ICC_PROFILE\0")), JPEG_PIXELS),
    "JPEG: several pictures, of rubbish": (lambda: jpeg((0xE2, b"MPF\0II*\0\x08\0\0\0\1\0")), JPEG_PIXELS),
    "JPEG: Photoshop's resources, cut short": (lambda: jpeg((0xED, b"Photoshop 3.0\x008BIM\3\xed")), JPEG_PIXELS),
    "JPEG: a comment that is no text": (lambda: jpeg((0xFE, b"\xff\xfe\0\x80")), JPEG_PIXELS),
    "JPEG: a huge comment": (lambda: jpeg((0xFE, b"x" * 65_000)), JPEG_PIXELS),
    "JPEG: JFIF cut short": (lambda: jpeg((0xE0, b"JFIF\0")), JPEG_PIXELS),
    "JPEG: a density of 65535": (
        lambda: jpeg((0xE0, b"JFIF\0\1\1\1\xff\xff\xff\xff\0\0")), JPEG_PIXELS),
    "PNG: a text with a wrong checksum": (lambda: text(b"tEXt", b"Title\0x", checksum=1), COLOUR),
    "PNG: a text without a key": (lambda: text(b"tEXt", b""), COLOUR),
    "PNG: a compressed text of rubbish": (lambda: text(b"zTXt", b"Title\0\0rubbish"), COLOUR),
    "PNG: a compressed text of another kind": (lambda: text(b"zTXt", b"Title\0\7x"), COLOUR),
    "PNG: a text that swells to 80 MB": (
        lambda: text(b"zTXt", b"Title\0\0" + zlib.compress(bytes(80 * 2**20), 9)), COLOUR),
    "PNG: an international text, cut short": (lambda: text(b"iTXt", b"Title\0\1"), COLOUR),
    "PNG: XMP that is no text": (lambda: text(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff\xfe"), COLOUR),
    "PNG: a colour profile of rubbish": (lambda: text(b"iCCP", b"name\0\0rubbish"), COLOUR),
    "PNG: a profile without a name": (lambda: text(b"iCCP", b""), COLOUR),
    "PNG: a gamma, cut short": (lambda: text(b"gAMA", b"\0"), COLOUR),
    "PNG: a density, cut short": (lambda: text(b"pHYs", b"\0\0"), COLOUR),
    "PNG: a huge density": (lambda: text(b"pHYs", b"\xff\xff\xff\xff" * 2 + b"\1"), COLOUR),
    "PNG: colours of light, cut short": (lambda: text(b"cHRM", b"\0\0\0"), COLOUR),
    "PNG: an animation of no pictures": (lambda: text(b"acTL", bytes(8)), COLOUR),
    "PNG: an animation, cut short": (lambda: text(b"acTL", b"\0"), COLOUR),
    "PNG: a time, cut short, after the pixels": (lambda: coloured_png(after=chunk(b"tIME", b"\0")), COLOUR),
    "PNG: a text with a wrong checksum after the pixels": (
        lambda: coloured_png(after=chunk(b"tEXt", b"a\0b", checksum=1)), COLOUR),
    "PNG: a text longer than the file, after the pixels": (
        lambda: coloured_png(after=chunk(b"tEXt", b"a\0b", size=99_999)), COLOUR),
    "PNG: EXIF after the pixels": (lambda: coloured_png(after=chunk(b"eXIf", exif(TURNED))), clockwise(COLOUR)),
    "PNG: EXIF with a wrong checksum": (
        lambda: coloured_png(chunk(b"eXIf", exif(TURNED), checksum=1)), clockwise(COLOUR)),
    "PNG: EXIF of rubbish": (lambda: coloured_png(chunk(b"eXIf", b"rubbish")), COLOUR),
    "PNG: EXIF as text, of rubbish": (lambda: text(b"tEXt", b"Raw profile type exif\0\nexif\n 9\nxyz"), COLOUR),
    "PNG: a chunk that nobody knows": (lambda: text(b"quQu", b"what"), COLOUR),
    "WebP: EXIF of rubbish": (lambda: webp((b"EXIF", b"rubbish")), COLOUR),
    "WebP: marked EXIF": (lambda: webp((b"EXIF", EXIF + exif(TURNED))), clockwise(COLOUR)),
    "WebP: empty EXIF": (lambda: webp((b"EXIF", b"")), COLOUR),
    "WebP: orientation in XMP alone": (lambda: webp((b"XMP ", XMP)), clockwise(COLOUR)),
    "WebP: XMP that is no text": (lambda: webp((b"XMP ", b"\xff\xfe\0")), COLOUR),
    "WebP: a colour profile of rubbish": (lambda: webp((b"ICCP", b"rubbish"), announced=0x20), COLOUR),
    "WebP: metadata announced that is not there": (lambda: webp(announced=0x2C), COLOUR),
    "WebP: a chunk that is cut short": (lambda: webp((b"EXIF", exif(TURNED)))[:-9], COLOUR),
    "TIFF: a colour profile of rubbish": (lambda: grey_tiff(GREY, 8, (34675, 7, 7, b"rubbish")), in_three(GREY)),
    "TIFF: XMP of rubbish": (lambda: grey_tiff(GREY, 8, (700, 1, 6, b"\xff\xfe<<>>")), in_three(GREY)),
    "TIFF: an orientation in words": (lambda: grey_tiff(GREY, 8, (274, 2, 2, b"6\0")), in_three(GREY)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", CASES)
def test_broken_metadata_is_none(name: str) -> None:
    make, wanted = CASES[name]
    got = decoded(make(), name)
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).max() <= (20 if name.startswith("JPEG: ") else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_every_orientation_is_read_beside_a_broken_tag(format: str, orientation: int) -> None:
    block = exif(orientation, WRONG_TAGS["a resolution of type short"])
    image = Image.fromarray(as_stored(COLOUR, orientation))
    if format == "TIFF":
        data = saved(image, "TIFF", tiffinfo={274: orientation, 282: 1.0})
    else:
        data = saved(image, format, exif=block, lossless=True)
    assert np.array_equal(decoded(data, format), COLOUR)
