"""Every kind of image file becomes upright 8-bit RGB; what cannot be decoded is named."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shconv.data import decode
from shconv.data.decode import decode_error, dimensions, to_pixels, to_rgb
from shconv.errors import InputError
from toys import as_stored

WIDTH, HEIGHT = 24, 16
GREY = (np.arange(WIDTH * HEIGHT) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH)
COLOUR = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def read(path: Path) -> np.ndarray:
    data = path.read_bytes()
    assert decode_error(data, path) is None
    image = to_rgb(data, path)
    assert image.mode == "RGB"
    pixels = to_pixels(data, path)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0), image)
    return np.asarray(image)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("RGBA", "png"), ("RGB", "tiff"), ("RGB", "bmp"), ("RGB", "ppm")]
)
def test_lossless_colour_keeps_its_values_and_alpha_is_dropped(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.fromarray(COLOUR)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(GREY))
    image.save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read(tmp_path / f"a.{suffix}"), COLOUR)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_goes_into_all_three_channels(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(GREY)
    if mode == "LA":
        image.putalpha(128)
    elif mode == "1":
        image = image.point(lambda v: 255 * (v > 100)).convert("1")
    image.save(tmp_path / "a.png")
    wanted = np.where(GREY > 100, 255, 0) if mode == "1" else GREY
    assert np.array_equal(read(tmp_path / "a.png"), np.repeat(wanted[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_grey_is_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    deep = np.linspace(0, 65535, WIDTH * HEIGHT).round().astype(np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    wanted = np.rint(deep / 65535 * 255)
    assert np.array_equal(read(tmp_path / f"a.{suffix}"), np.repeat(wanted[..., None], 3, axis=2))


def test_of_sixteen_bit_colour_the_upper_eight_are_kept(tmp_path: Path) -> None:
    # Pillow writes no such file: a PNG is its signature and three chunks.
    deep = np.random.default_rng(4).integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert np.array_equal(read(tmp_path / "a.png"), deep >> 8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_palette_images_give_the_palette_colours(tmp_path: Path, transparency: int | bytes | None) -> None:
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    image = Image.fromarray(GREY)
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    assert np.array_equal(read(tmp_path / "a.png"), palette[GREY])


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    # No black ink: then red = 255 - cyan and so on.
    Image.merge(
        "CMYK", [Image.fromarray(255 - COLOUR[..., c]) for c in range(3)] + [Image.new("L", (WIDTH, HEIGHT))]
    ).save(tmp_path / "a.tiff")
    assert np.array_equal(read(tmp_path / "a.tiff"), COLOUR)


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
def test_jpeg_of_every_mode_is_close_to_what_was_saved(tmp_path: Path, mode: str) -> None:
    smooth = np.linspace(60, 180, WIDTH).astype(np.uint8)[None, :, None] * np.ones((HEIGHT, 1, 3), np.uint8)
    Image.fromarray(smooth).convert(mode).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - smooth).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(as_stored(COLOUR, orientation)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), COLOUR)


@pytest.mark.parametrize("orientation", [None, 1, 6])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2, "grey"])
def test_jpegs_have_the_same_pixels_by_pillow_and_by_the_fast_way(
    tmp_path: Path, subsampling: int | str, progressive: bool, orientation: int | None
) -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (37, 53, 3), np.uint8)).resize((101, 75))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    if subsampling == "grey":
        noise.convert("L").save(tmp_path / "a.jpg", progressive=progressive, exif=exif)
    else:
        noise.save(tmp_path / "a.jpg", subsampling=subsampling, progressive=progressive, exif=exif)
    assert read(tmp_path / "a.jpg").shape == ((101, 75, 3) if orientation == 6 else (75, 101, 3))


def test_upright_jpegs_do_take_the_fast_way_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []
    monkeypatch.setattr(decode, "_jpeg", lambda data: taken.append(data) or torch.zeros(3, 1, 1, dtype=torch.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3
    kinds = {"grey": ("L", {}), "rgb": ("RGB", {}), "turned": ("RGB", {"exif": exif}), "cmyk": ("CMYK", {})}
    for name, (mode, options) in kinds.items():
        Image.fromarray(COLOUR).convert(mode).save(tmp_path / f"{name}.jpg", **options)
    shapes = {name: to_pixels((tmp_path / f"{name}.jpg").read_bytes(), name).shape for name in kinds}
    assert len(taken) == 2
    assert shapes == {"grey": (3, 1, 1), "rgb": (3, 1, 1), "turned": (3, 16, 24), "cmyk": (3, 16, 24)}


def broken_files(folder: Path) -> dict[str, Path]:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("cut.jpg", "cut.png"):
        Image.fromarray(noise).save(folder / name)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    (folder / "empty.jpg").touch()
    Image.fromarray(GREY.astype(np.float32)).save(folder / "float.tiff")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "text.png", "empty.jpg", "float.tiff"])
def test_what_cannot_be_decoded_is_an_input_error_that_names_it(tmp_path: Path, name: str) -> None:
    data = broken_files(tmp_path)[name].read_bytes()
    with pytest.raises(InputError, match=name) as caught:
        to_rgb(data, name)
    with pytest.raises(InputError, match=name) as by_the_fast_way:
        to_pixels(data, name)
    found = decode_error(data, name)
    assert str(found) == str(caught.value) == str(by_the_fast_way.value)
    assert "\n" not in str(found)


def test_an_image_of_absurd_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (20_000, 20_000)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    for decoder in (to_rgb, to_pixels):
        with pytest.raises(InputError, match=r"a\.jpg.*exceeds limit"):
            decoder(data, "a.jpg")


def test_dimensions_come_from_the_header_alone(tmp_path: Path) -> None:
    files = broken_files(tmp_path)
    assert dimensions(files["cut.jpg"].read_bytes(), "cut.jpg") == (64, 64)
    with pytest.raises(InputError, match=r"text\.png"):
        dimensions(files["text.png"].read_bytes(), "text.png")
