"""Every kind of image file becomes upright 8-bit RGB; what cannot be decoded is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shconv.data.decode import image_dimensions, read_error, read_rgb
from shconv.errors import InputError

WIDTH, HEIGHT = 24, 16
GREY = (np.arange(WIDTH * HEIGHT) % 256).astype(np.uint8).reshape(HEIGHT, WIDTH)
COLOUR = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def read(path: Path) -> np.ndarray:
    assert read_error(path) is None
    image = read_rgb(path)
    assert image.mode == "RGB"
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
    # What the camera stored for an upright COLOUR: the inverse of the turn that the tag asks for.
    stored = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, 1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), COLOUR)


def broken_files(folder: Path) -> dict[str, Path]:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("cut.jpg", "cut.png"):
        Image.fromarray(noise).save(folder / name)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    (folder / "empty.jpg").touch()
    Image.fromarray(GREY.astype(np.float32)).save(folder / "float.tiff")
    return {path.name: path for path in folder.iterdir()} | {"missing.png": folder / "missing.png"}


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "text.png", "empty.jpg", "float.tiff", "missing.png"])
def test_what_cannot_be_decoded_is_an_input_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    path = broken_files(tmp_path)[name]
    with pytest.raises(InputError, match=name) as caught:
        read_rgb(path)
    found = read_error(path)
    assert found is not None
    assert str(found) == str(caught.value)
    assert "\n" not in str(found)


def test_dimensions_come_from_the_header_alone(tmp_path: Path) -> None:
    files = broken_files(tmp_path)
    assert image_dimensions(files["cut.jpg"]) == (64, 64)
    with pytest.raises(InputError, match=r"text\.png"):
        image_dimensions(files["text.png"])
