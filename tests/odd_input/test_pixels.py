"""Every format and mode becomes the 8-bit RGB that a person sees, or is refused with the reason; nothing is clipped."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from files import (
    COLOUR,
    DEEP,
    GREY,
    HEIGHT,
    PALETTE,
    SMOOTH,
    WIDTH,
    Pixels,
    chunk,
    grey_tiff,
    in_palette,
    in_three,
    png,
    saved,
    short,
    tiff,
    with_alpha,
)
from PIL import Image

from shconv.data.decode import decode_error, dimensions, to_pixels, to_rgb
from shconv.errors import InputError

RGB, L = Image.fromarray(COLOUR), Image.fromarray(GREY)
BLACK_WHITE = L.point(lambda v: 255 * (v > 100)).convert("1")
BLACK_WHITE_PIXELS = in_three(np.where(GREY > 100, 255, 0))
PALETTE_PIXELS: Pixels = PALETTE[GREY]
DEEP_PIXELS = in_three(np.rint(DEEP / 257.0))
CMYK = Image.merge("CMYK", [*Image.fromarray(255 - COLOUR).split(), Image.new("L", (WIDTH, HEIGHT))])
TWELVE = (DEEP >> 4).astype(np.uint16)
FRAMES = [Image.fromarray(np.roll(COLOUR, k, axis=1)) for k in (1, 2)]
DEEP_RGB = np.random.default_rng(4).integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
ALL = {"save_all": True, "append_images": FRAMES, "duration": 40}


def packed_twelve(samples: Any) -> Pixels:
    """Two 12-bit samples in three bytes."""
    first, second = samples[:, ::2], samples[:, 1::2]
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8)


def bits(samples: Any, depth: int) -> Pixels:
    """Samples of 1, 2 or 4 bits a piece, as they lie in bytes."""
    single = (samples[..., None] >> np.arange(depth)[::-1]) & 1
    return np.packbits(single.reshape(len(samples), -1).astype(np.uint8), axis=1)


def flipped(data: bytes, place: int) -> bytes:
    """With one bit the other way round."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def gif(**options: Any) -> bytes:
    return saved(in_palette(), "GIF", **options)


def pnm(head: str, data: bytes) -> bytes:
    return f"{head}\n{WIDTH} {HEIGHT}\n".encode() + data


LOSSLESS: dict[str, tuple[Callable[[], bytes], Pixels]] = {
    **{
        f"{format} RGB": (lambda format=format, o=options: saved(RGB, format, **o), COLOUR)
        for format, options in {
            "PNG": {}, "TIFF": {}, "BMP": {}, "PPM": {}, "TGA": {}, "PCX": {}, "SGI": {}, "DIB": {},
            "WEBP": {"lossless": True}, "JPEG2000": {}, "ICO": {"sizes": [(WIDTH, HEIGHT)]}, "QOI": {},
        }.items()
    },
    **{
        f"{format} RGBA, alpha dropped": (lambda format=format, o=options: saved(with_alpha(RGB), format, **o), COLOUR)
        for format, options in {
            "PNG": {}, "TIFF": {}, "TGA": {}, "JPEG2000": {}, "WEBP": {"lossless": True, "exact": True}
        }.items()
    },
    **{
        f"{format} L": (lambda format=format: saved(L, format), in_three(GREY))
        for format in ("PNG", "TIFF", "BMP", "PPM", "TGA", "PCX", "SGI", "GIF", "JPEG2000")
    },
    **{f"{f} LA, alpha dropped": (lambda f=f: saved(with_alpha(L), f), in_three(GREY)) for f in ("PNG", "TIFF", "TGA")},
    **{
        f"{format} 1": (lambda format=format: saved(BLACK_WHITE, format), BLACK_WHITE_PIXELS)
        for format in ("PNG", "TIFF", "BMP", "PPM", "PCX", "GIF")
    },
    **{f"{f} P": (lambda f=f: saved(in_palette(), f), PALETTE_PIXELS) for f in ("PNG", "TIFF", "BMP", "GIF", "TGA")},
    "PNG P with one transparent colour": (lambda: saved(in_palette(), "PNG", transparency=3), PALETTE_PIXELS),
    "PNG P with an alpha for each colour": (
        lambda: saved(in_palette(), "PNG", transparency=bytes(range(256))), PALETTE_PIXELS),
    "GIF P with a transparent colour": (lambda: gif(transparency=7), PALETTE_PIXELS),
    "TIFF PA, alpha dropped": (
        lambda: tiff(
            [*(short(t, v) for t, v in {256: WIDTH, 257: HEIGHT, 259: 1, 262: 3, 277: 2, 278: HEIGHT, 338: 2}.items()),
             short(258, 8, 8), (279, 4, 1, (2 * GREY.size).to_bytes(4, "little")),
             short(320, *(PALETTE.T.astype(int) * 257).ravel().tolist())],
            np.stack([GREY, GREY[::-1]], 2).tobytes()),
        PALETTE_PIXELS),
    "PNG L with a transparent grey": (lambda: saved(L, "PNG", transparency=9), in_three(GREY)),
    "PNG RGB with a transparent colour": (lambda: saved(RGB, "PNG", transparency=(1, 2, 3)), COLOUR),
    "PNG grey, 2 bits": (lambda: png(bits(GREY >> 6, 2), 2, 0), in_three((GREY >> 6) * 85)),
    "PNG grey, 4 bits": (lambda: png(bits(GREY >> 4, 4), 4, 0), in_three((GREY >> 4) * 17)),
    "PNG palette, 4 bits": (
        lambda: png(bits(GREY >> 4, 4), 4, 3, chunk(b"PLTE", PALETTE[:16].tobytes())), PALETTE[GREY >> 4]),
    "PNG palette, transparent, 2 bits": (
        lambda: png(bits(GREY >> 6, 2), 2, 3, chunk(b"PLTE", PALETTE[:4].tobytes()), chunk(b"tRNS", b"\0\x80")),
        PALETTE[GREY >> 6]),
    "PNG grey, 16 bits": (lambda: png(DEEP.astype(">u2"), 16, 0), DEEP_PIXELS),
    "PNG grey and alpha, 16 bits": (
        lambda: png(np.stack([DEEP, DEEP[::-1]], 2).astype(">u2"), 16, 4), in_three(DEEP >> 8)),
    "PNG RGB, 16 bits": (lambda: png(DEEP_RGB.astype(">u2"), 16, 2), (DEEP_RGB >> 8).astype(np.uint8)),
    "PNG RGBA, 16 bits": (
        lambda: png(np.concatenate([DEEP_RGB, DEEP[..., None]], 2).astype(">u2"), 16, 6),
        (DEEP_RGB >> 8).astype(np.uint8)),
    "TIFF grey, 16 bits": (lambda: grey_tiff(DEEP, 16), DEEP_PIXELS),
    "TIFF grey, 16 bits, big-endian": (lambda: grey_tiff(DEEP.astype(">u2"), 16, order=">"), DEEP_PIXELS),
    "TIFF grey, 16 bits, white is zero": (lambda: grey_tiff(DEEP, 16, photometric=0), 255 - DEEP_PIXELS),
    "TIFF grey, 16 bits, compressed": (
        lambda: saved(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"), DEEP_PIXELS),
    "TIFF grey, 12 bits": (lambda: grey_tiff(packed_twelve(TWELVE), 12), in_three(np.rint(TWELVE / 4095 * 255))),
    "TIFF grey, 8 bits, white is zero": (lambda: grey_tiff(GREY, 8, photometric=0), in_three(255 - GREY)),
    "TIFF grey, 4 bits": (lambda: grey_tiff(bits(GREY >> 4, 4), 4), in_three((GREY >> 4) * 17)),
    "TIFF CMYK": (lambda: saved(CMYK, "TIFF"), COLOUR),
    **{
        f"TIFF RGB, {c}": (lambda c=c: saved(RGB, "TIFF", compression=c), COLOUR)
        for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd")
    },
    "TIFF, several pages": (lambda: saved(RGB, "TIFF", save_all=True, append_images=FRAMES), COLOUR),
    "PGM, 16 bits": (lambda: pnm("P5", b"65535\n" + DEEP.astype(">u2").tobytes()), DEEP_PIXELS),
    "PGM, 10 bits": (
        lambda: pnm("P5", b"1023\n" + (DEEP >> 6).astype(">u2").tobytes()),
        in_three(np.rint((DEEP >> 6) / 1023 * 255))),
    "PGM in plain text": (
        lambda: pnm("P2", b"# a comment\n255\n" + " ".join(map(str, GREY.ravel())).encode()), in_three(GREY)),
    "PPM in plain text": (lambda: pnm("P3", b"255\n" + " ".join(map(str, COLOUR.ravel())).encode()), COLOUR),
    "JPEG2000 grey, 16 bits": (lambda: saved(Image.fromarray(DEEP), "JPEG2000"), DEEP_PIXELS),
    "animated GIF": (
        lambda: saved(in_palette(), "GIF", save_all=True, append_images=[L.point(lambda v: 255 - v)], duration=40),
        PALETTE_PIXELS),
    "animated WebP": (lambda: saved(RGB, "WEBP", lossless=True, **ALL), COLOUR),
    "animated PNG": (lambda: saved(RGB, "PNG", **ALL), COLOUR),
    "animated PNG whose first picture is apart": (lambda: saved(RGB, "PNG", default_image=True, **ALL), COLOUR),
    "one pixel": (lambda: saved(RGB.crop((0, 0, 1, 1)), "PNG"), COLOUR[:1, :1]),
    "one row": (lambda: saved(RGB.crop((0, 0, WIDTH, 1)), "PNG"), COLOUR[:1]),
    "one column": (lambda: saved(RGB.crop((0, 0, 1, HEIGHT)), "BMP"), COLOUR[:, :1]),
    "bytes after the end": (lambda: saved(RGB, "PNG") + b"more" * 50, COLOUR),
}  # fmt: skip

SMOOTH_IMAGE = Image.fromarray(SMOOTH)
LOSSY: dict[str, Callable[[], bytes]] = {
    **{f"JPEG {mode}": lambda mode=mode: saved(SMOOTH_IMAGE.convert(mode), "JPEG", quality=95)
       for mode in ("L", "RGB", "YCbCr", "CMYK")},
    "JPEG, progressive": lambda: saved(SMOOTH_IMAGE, "JPEG", quality=95, progressive=True),
    "JPEG that keeps RGB": lambda: saved(SMOOTH_IMAGE, "JPEG", quality=95, keep_rgb=True),
    "JPEG, bytes after the end": lambda: saved(SMOOTH_IMAGE, "JPEG", quality=95) + b"\0" * 99,
    "TIFF YCbCr": lambda: saved(SMOOTH_IMAGE.convert("YCbCr"), "TIFF"),
    "TIFF, JPEG inside": lambda: saved(SMOOTH_IMAGE, "TIFF", compression="jpeg", quality=95),
    "WebP": lambda: saved(SMOOTH_IMAGE, "WEBP", quality=95),
    "AVIF": lambda: saved(SMOOTH_IMAGE, "AVIF", quality=95),
    "MPO": lambda: saved(SMOOTH_IMAGE, "MPO", quality=95, save_all=True, append_images=[RGB]),
}  # fmt: skip

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "TIFF, floating point": (lambda: saved(L.convert("F"), "TIFF"), "floating-point pixels; wanted 8 or 16 bits"),
    "PFM": (lambda: saved(L.convert("F"), "PPM"), "floating-point pixels"),
    "TIFF, 32-bit integers": (lambda: saved(L.convert("I"), "TIFF"), "of unknown brightness"),
    "TIFF, unsigned 32-bit integers": (lambda: grey_tiff(DEEP.astype(np.uint32), 32), "of unknown brightness"),
    "TIFF, signed 16-bit integers": (
        lambda: grey_tiff(DEEP.astype(np.int16), 16, short(339, 2)), "of unknown brightness"),
    "TIFF, signed 8-bit integers": (lambda: grey_tiff(GREY.astype(np.int8), 8, short(339, 2)), "signed pixels"),
    "TIFF LAB": (
        lambda: saved(RGB, "TIFF").replace(b"\6\1\3\0\1\0\0\0\2", b"\6\1\3\0\1\0\0\0\x08"), "LAB colours"),
    "nothing": (lambda: b"", "no image format is recognised"),
    "text": (lambda: b"not an image", "no image format is recognised"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no image format is recognised"),
    "HEIC": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "cannot be read as an image"),
    "zeros": (lambda: bytes(4096), "cannot be read as an image"),
    "a PNG's first bytes": (lambda: saved(RGB, "PNG")[:20], "cannot be read as an image"),
    "half a PNG": (lambda: saved(RGB, "PNG")[:200], "truncated"),
    "half a JPEG": (lambda: saved(RGB, "JPEG")[:-90], "truncated"),
    "half a WebP": (lambda: saved(RGB, "WEBP", lossless=True)[:200], "cannot be read as an image"),
    "half a TIFF": (lambda: grey_tiff(GREY, 8)[:60], "cannot be read as an image"),
    "half a GIF": (lambda: gif()[:-60], "truncated"),
    "a PNG whose pixels have a wrong checksum": (
        lambda: flipped(saved(RGB, "PNG"), 150), "checksum of its IDAT"),
    "far too large": (lambda: pnm("P5", b"255\n").replace(b"12 8", b"20000 20000"), "exceeds limit"),
}  # fmt: skip


def decoded(data: bytes, name: str) -> Pixels:
    """By every way that there is; all agree."""
    image = to_rgb(data, name)
    assert image.mode == "RGB"
    assert decode_error(data, name) is None
    pixels = np.asarray(image)
    assert np.array_equal(to_pixels(data, name).permute(1, 2, 0), pixels)
    return pixels


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_give_their_pixels(name: str) -> None:
    make, wanted = LOSSLESS[name]
    data = make()
    assert np.array_equal(decoded(data, name), wanted)
    assert dimensions(data, name) == (wanted.shape[1], wanted.shape[0])


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_files_give_nearly_their_pixels(name: str) -> None:
    assert np.abs(decoded(LOSSY[name](), name).astype(int) - SMOOTH).max() <= 8


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_8_bit_picture_is_refused_with_the_reason(name: str) -> None:
    make, reason = REFUSED[name]
    data = make()
    for read in (to_rgb, to_pixels):
        with pytest.raises(InputError, match=reason) as caught:
            read(data, name)
        assert str(caught.value).startswith(f"{name}: cannot be read as an image (")
        assert "\n" not in str(caught.value)
    assert str(decode_error(data, name)) == str(caught.value)


@pytest.mark.filterwarnings("ignore:IM image format is deprecated")
def test_pixels_of_a_format_whose_integers_have_no_known_range_are_refused() -> None:
    stream = io.BytesIO()
    Image.fromarray(DEEP).save(stream, "IM")
    with pytest.raises(InputError, match="of unknown brightness"):
        to_rgb(stream.getvalue(), "a.im")
