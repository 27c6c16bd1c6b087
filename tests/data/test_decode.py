"""Images are turned upright, and JPEGs have the same pixels the fast way; odd_input/test_pixels.py has every format."""

import io
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


def test_an_image_of_absurd_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (20_000, 20_000)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    for decoder in (to_rgb, to_pixels):
        with pytest.raises(InputError, match=r"a\.jpg.*exceeds limit"):
            decoder(data, "a.jpg")


def test_dimensions_come_from_the_header_alone() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 48, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    assert dimensions(stream.getvalue()[: len(stream.getvalue()) // 2], "cut.jpg") == (48, 64)
    with pytest.raises(InputError, match=r"text\.png"):
        dimensions(b"not an image", "text.png")
