"""Image files of every kind, made byte by byte where Pillow writes none, and the pixels that each of them holds."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 12, 8
COLOUR: Pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY: Pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
DEEP: NDArray[np.uint16] = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
PALETTE: Pixels = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
SMOOTH: Pixels = (60 + 9 * np.arange(WIDTH, dtype=np.uint8))[None, :, None] * np.ones((HEIGHT, 1, 3), np.uint8)


def in_three(grey: Any) -> Pixels:
    """(H, W) -> (H, W, 3)."""
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=2)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(GREY))
    return image


def in_palette() -> Image.Image:
    image = Image.fromarray(GREY)
    image.putpalette(PALETTE.tobytes())
    return image


def chunk(kind: bytes, data: bytes, checksum: int | None = None, size: int | None = None) -> bytes:
    """Of a PNG; with another checksum or length where these are to be wrong."""
    right = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data) if size is None else size) + kind + data + struct.pack(">I", right)


def png(rows: NDArray[Any], depth: int, kind: int, *before: bytes, after: bytes = b"") -> bytes:
    """rows: (H, bytes a row) or big-endian samples; kind: PNG's colour type; before, after: chunks about the pixels."""
    packed = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, kind, 0, 0, 0)
    middle = chunk(b"IHDR", header) + b"".join(before) + chunk(b"IDAT", zlib.compress(packed))
    return b"\x89PNG\r\n\x1a\n" + middle + after + chunk(b"IEND", b"")


def with_segment(jpeg: bytes, marker: int, data: bytes) -> bytes:
    """The JPEG with one more segment in front."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + jpeg[2:]


def with_chunks(webp: bytes, *chunks: tuple[bytes, bytes], announced: int) -> bytes:
    """A WebP without extended header, with one and these chunks."""
    header = (
        struct.pack("<BBH", announced, 0, 0) + (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    )
    parts = [(b"VP8X", header[:1] + b"\0\0\0" + header[4:]), (webp[12:16], webp[20:]), *chunks]
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in parts
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(tags: Sequence[tuple[int, int, int, bytes]], pixels: bytes, order: str = "<") -> bytes:
    """One strip. tags: (tag, type, count, value or, where longer than four bytes, what its place holds)."""
    header = {"<": b"II*\0", ">": b"MM\0*"}[order]
    outside, entries = pixels, []
    for tag, kind, count, value in sorted([*tags, (273, 4, 1, struct.pack(f"{order}I", 8))]):
        if len(value) > 4:
            place, outside = len(outside) + 8, outside + value
            value = struct.pack(f"{order}I", place)
        entries.append(struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0"))
    start = 8 + len(outside)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return header + struct.pack(f"{order}I", start) + outside + directory


def short(tag: int, *values: int, order: str = "<") -> tuple[int, int, int, bytes]:
    return tag, 3, len(values), struct.pack(f"{order}{len(values)}H", *values)


def grey_tiff(
    pixels: NDArray[Any], bits: int, *more: tuple[int, int, int, bytes], photometric: int = 1, order: str = "<"
) -> bytes:
    """(H, W) grey samples of that many bits, or bytes that hold them."""
    data = pixels.tobytes()
    numbers = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: photometric, 277: 1, 278: HEIGHT}
    tags = [short(tag, number, order=order) for tag, number in numbers.items()]
    return tiff([*tags, (279, 4, 1, struct.pack(f"{order}I", len(data))), *more], data, order)


def exif(orientation: int, *more: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """An EXIF block with that orientation beside other tags, which may be nonsense."""
    return tiff([short(0x0112, orientation, order=order), *more], b"", order)
