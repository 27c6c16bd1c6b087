"""What image files hold beside pixels. Of it only the orientation counts, and that is read alone; where the rest is
broken, a file is read without it."""

import struct
import zlib
from collections.abc import Iterator

JPEG, PNG, RIFF, WEBP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}  # with + a BigTIFF
EXIF = b"Exif\0\0"
ORIENTATION = 0x0112
INTEGERS = {1: "B", 3: "H", 4: "I"}  # types of a tag's value

JPEG_APPLICATIONS, JPEG_COMMENT = range(0xE0, 0xF0), 0xFE
JPEG_COLOURS = {0xE0: 18, 0xEE: 16}  # JFIF and Adobe, which say what the channels are, and their length when whole
PNG_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}  # not tRNS, as alpha is dropped
WEBP_METADATA, ANNOUNCED = {b"ICCP", b"EXIF", b"XMP "}, 0x20 | 0x08 | 0x04  # the latter in the header VP8X
TIFF_PIXELS = {
    256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 338, 339, 347,
    *range(512, 522), 529, 530, 532,
}  # fmt: skip


def stored_orientation(data: bytes) -> int | None:
    """What EXIF says of it in a file's own bytes, 1 to 8; None where it says nothing that can be read."""
    try:
        exif = _exif(data)
        order, big, _ = _directory(exif)
        for entry in _entries(exif):
            tag, kind = struct.unpack_from(f"{order}HH", entry)
            if tag == ORIENTATION and kind in INTEGERS:
                return int(struct.unpack_from(f"{order}{INTEGERS[kind]}", entry, 12 if big else 8)[0])
    except (struct.error, LookupError):
        pass
    return None


def without_metadata(data: bytes) -> bytes | None:
    """The same file with nothing left but what its pixels need; None where the format is not known here."""
    try:
        if data.startswith(JPEG):
            return JPEG + b"".join(segment for mark, segment in _jpeg(data) if not _is_beside(mark, segment))
        if data.startswith(PNG):
            return PNG + b"".join(chunk for kind, chunk in _png(data) if kind in PNG_PIXELS)
        if data.startswith(RIFF) and data[8:12] == WEBP:
            kept = [_unannounced(kind, chunk) for kind, chunk in _webp(data) if kind not in WEBP_METADATA]
            body = WEBP + b"".join(kept)
            return RIFF + struct.pack("<I", len(body)) + body
        if data[:4] in TIFF:
            return _plain_tiff(data)
    except (struct.error, LookupError):
        pass
    return None


def check_png(data: bytes) -> None:
    """Raises ValueError where the checksum of what a PNG's pixels need is wrong; Pillow does not look at it."""
    for kind, chunk in _png(data):
        if kind in PNG_PIXELS and zlib.crc32(chunk[4:-4]).to_bytes(4, "big") != chunk[-4:]:
            raise ValueError(f"damaged or cut short: the checksum of its {kind.decode()} is wrong")


def _exif(data: bytes) -> bytes:
    """A TIFF file without pixels. Raises IndexError where there is none."""
    if data.startswith(JPEG):
        blocks = [segment[4:] for mark, segment in _jpeg(data) if mark == 0xE1 and segment[4:].startswith(EXIF)]
    elif data.startswith(PNG):
        blocks = [chunk[8:-4] for kind, chunk in _png(data) if kind == b"eXIf"]
    elif data.startswith(RIFF) and data[8:12] == WEBP:
        blocks = [chunk[8:] for kind, chunk in _webp(data) if kind == b"EXIF"]
    else:
        return data
    while blocks[0].startswith(EXIF):
        blocks[0] = blocks[0].removeprefix(EXIF)
    return blocks[0]


def _jpeg(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, segment with it), and from the first scan on all that is left as one."""
    at = 2
    while at < len(data):
        (mark,) = struct.unpack_from(">xB", data, at)
        if mark == 0xFF:  # fill bytes
            at += 1
            continue
        size = len(data) if data[at] != 0xFF or mark == 0xDA else 2 + struct.unpack_from(">H", data, at + 2)[0]
        yield mark, data[at : at + size]
        at += size


def _is_beside(mark: int, segment: bytes) -> bool:
    """The pixels of a JPEG."""
    if mark in JPEG_COLOURS:
        return len(segment) < JPEG_COLOURS[mark]
    return mark in JPEG_APPLICATIONS or mark == JPEG_COMMENT


def _png(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, chunk with length, kind and checksum)."""
    at = len(PNG)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at : at + 12 + size]
        at += 12 + size


def _webp(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, chunk with kind, length and padding)."""
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        yield kind, data[at : at + 8 + size + size % 2]
        at += 8 + size + size % 2


def _unannounced(kind: bytes, chunk: bytes) -> bytes:
    return chunk[:8] + bytes([chunk[8] & ~ANNOUNCED]) + chunk[9:] if kind == b"VP8X" else chunk


def _directory(data: bytes) -> tuple[str, bool, int]:
    """(byte order, is it a BigTIFF, place of the first image's entries) of a TIFF file."""
    order, big = TIFF[data[:4]], b"+" in data[:4]
    return order, big, struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]


def _entries(data: bytes) -> Iterator[bytes]:
    order, big, at = _directory(data)
    (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, at)
    at, size = at + (8 if big else 2), 20 if big else 12
    for place in range(at, min(at + count * size, len(data) - size + 1), size):
        yield data[place : place + size]


def _plain_tiff(data: bytes) -> bytes:
    order, big, _ = _directory(data)
    kept = [entry for entry in _entries(data) if struct.unpack_from(f"{order}H", entry)[0] in TIFF_PIXELS]
    data += b"\0" * (len(data) % 2)
    count, place, none = (f"{order}Q", f"{order}Q", bytes(8)) if big else (f"{order}H", f"{order}I", bytes(4))
    header = data[: 8 if big else 4] + struct.pack(place, len(data))
    return header + data[len(header) :] + struct.pack(count, len(kept)) + b"".join(kept) + none
