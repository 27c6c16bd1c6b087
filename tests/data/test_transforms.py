"""Test preprocessing and augmentation against torchvision, slow references and what the draws must look like."""

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from shconv.data import transforms
from shconv.data.transforms import (
    PCA_VALUES,
    PCA_VECTORS,
    crop_flip,
    crop_flip_draws,
    crop_flip_tensors,
    evaluation_image,
    he2016,
    resized_crop_pixels,
    to_image,
    to_tensor,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def noise_image(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def resized_crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    return to_image(resized_crop_pixels(to_tensor(image), size, rng))


def asking_for_all_of(width: int, height: int) -> np.random.Generator:
    """Draws that make `resized_crop` take the whole image and leave it unmirrored."""
    draws = Mock(spec=np.random.Generator)
    draws.uniform.side_effect = [1.0, np.log(width / height)]
    draws.integers.return_value = 0
    draws.random.return_value = 0.9
    return draws


def coordinate_image(width: int, height: int) -> Image.Image:
    """Red is the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, 0 * rows], -1).astype(np.uint8))


@pytest.mark.parametrize(("size", "side"), [(256, 299), (224, 262), (64, 75), (32, 37)])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (90, 410)])
def test_the_papers_test_preprocessing_is_a_distorting_resize_and_a_centre_crop(
    size: int, side: int, width: int, height: int
) -> None:
    image = noise_image(width, height)
    got = to_tensor(evaluation_image(image, size, "paper"))
    by_torchvision = tv.center_crop(tv.resize(image, [side, side], antialias=True), [size, size])
    assert torch.equal(got, tv.pil_to_tensor(by_torchvision))

    exact = torch.nn.functional.interpolate(
        to_tensor(image)[None].double(), (side, side), mode="bilinear", antialias=True
    )[0]
    start = round((side - size) / 2)
    exact = exact[:, start : start + size, start : start + size]
    assert (got - exact).abs().max() <= 1.01  # Pillow rounds after each of its two passes


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (333, 333), (100, 401)])
def test_the_imagenet_preset_is_torchvisions_256_and_224(width: int, height: int) -> None:
    image = noise_image(width, height)
    wanted = tv.center_crop(tv.resize(image, [256], antialias=True), [224, 224])
    assert torch.equal(to_tensor(evaluation_image(image, 224, "imagenet")), tv.pil_to_tensor(wanted))


@pytest.mark.parametrize("preset", ["paper", "imagenet"])
def test_an_image_of_the_right_size_is_left_alone(preset: str) -> None:
    image = noise_image(32, 32)
    assert np.array_equal(evaluation_image(image, 32, preset), image)


@pytest.mark.parametrize("size", [(1, 5000), (65_000, 1), (20_000, 10)])
def test_of_a_very_long_image_only_the_crop_is_made(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[tuple[int, int]] = []
    original = Image.Image.resize

    def resize(image: Image.Image, to: tuple[int, int], *more: Any, **options: Any) -> Image.Image:
        resized.append(to)
        return original(image, to, *more, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    for image in (evaluation_image(noise_image(*size), 224, "imagenet"), he2016(noise_image(*size), 224, rng())):
        assert image.size == (224, 224)
    assert resized == [(224, 224)] * 2


@pytest.mark.parametrize("size", [(300, 200), (37, 91), (500, 3)])
def test_the_crop_alone_is_within_one_level_of_that_of_the_whole(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise_image(*size)

    def made() -> list[np.ndarray]:
        return [np.asarray(each, int) for each in (evaluation_image(image, 64, "imagenet"), he2016(image, 64, rng()))]

    whole = made()
    monkeypatch.setattr(transforms, "MOST_RESIZED", 0)
    assert max(abs(a - b).max() for a, b in zip(whole, made(), strict=True)) <= 1


def test_tensor_and_image_are_inverse() -> None:
    image = noise_image(7, 5)
    assert to_tensor(image).shape == (3, 5, 7)
    assert np.array_equal(to_image(to_tensor(image)), image)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.integers(1, 9), height=st.integers(1, 9), width=st.integers(1, 9))
def test_crop_flip_equals_padding_cropping_and_mirroring_one_image_at_a_time(
    seed: int, batch: int, height: int, width: int
) -> None:
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    before = images.clone()
    draws = crop_flip_draws(np.random.SeedSequence(seed), batch)
    got = crop_flip(images, draws)
    assert torch.equal(crop_flip_tensors(images, torch.from_numpy(draws)), got)  # what a GPU computes
    for image, (row, column, flip), result in zip(images, draws.tolist(), got, strict=True):
        wanted = tv.crop(tv.pad(image, [4, 4, 4, 4]), row, column, height, width)
        assert torch.equal(result, tv.horizontal_flip(wanted) if flip else wanted)
    assert torch.equal(images, before)


def test_crop_flip_draws_reach_every_offset_and_a_row_does_not_depend_on_the_number_of_rows() -> None:
    draws = crop_flip_draws(np.random.SeedSequence(5), 3000)
    counts = [np.bincount(column) for column in draws.T]
    assert [len(count) for count in counts] == [9, 9, 2]
    for count in counts:
        expected = 3000 / len(count)
        assert np.abs(count - expected).max() < 5 * np.sqrt(expected)
    assert np.array_equal(draws[:100], crop_flip_draws(np.random.SeedSequence(5), 100))


def test_resized_crop_covers_8_to_100_percent_of_the_area_with_ratios_of_3_4_to_4_3() -> None:
    width, height, size = 200, 150, 40
    image = coordinate_image(width, height)
    areas, ratios, flips = [], [], []
    for seed in range(400):
        crop = np.asarray(resized_crop(image, size, np.random.default_rng(seed))).astype(float)
        assert crop.shape == (size, size, 3)
        # Between two inner pixels the coordinates grow by (side of the crop) / size a pixel.
        w = (crop[20, 30, 0] - crop[20, 9, 0]) / 21 * size
        h = (crop[30, 20, 1] - crop[9, 20, 1]) / 21 * size
        flips.append(w < 0)
        areas.append(abs(w) * h / (width * height))
        ratios.append(abs(w) / h)
    assert 0.06 < min(areas) < 0.12
    assert 0.85 < max(areas) < 1.05
    assert 0.7 < min(ratios) < 0.8
    assert 1.27 < max(ratios) < 1.45
    assert 150 < sum(flips) < 250


def test_resized_crop_does_not_depend_on_how_pixels_lie_in_memory_and_leaves_them_alone() -> None:
    pixels = to_tensor(noise_image(90, 70))
    channels_last = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for seed in range(10):
        crops = [resized_crop_pixels(x, 33, np.random.default_rng(seed)) for x in (pixels, channels_last)]
        assert torch.equal(*crops)
        as_image = resized_crop(to_image(pixels), 33, np.random.default_rng(seed))
        assert torch.equal(to_tensor(as_image), crops[0])
    assert torch.equal(pixels, to_tensor(noise_image(90, 70)))


def test_resized_crop_of_a_very_long_image_falls_back_to_the_centre() -> None:
    image = noise_image(300, 10)
    wanted = tv.resized_crop(image, 0, 143, 10, 13, [16, 16], antialias=True)
    seen = set()
    for seed in range(8):
        got = np.asarray(resized_crop(image, 16, np.random.default_rng(seed)))
        flipped = not np.array_equal(got, wanted)
        assert np.array_equal(got[:, ::-1] if flipped else got, wanted)
        seen.add(flipped)
    assert seen == {False, True}


@pytest.mark.parametrize("size", [24, 64, 200])
def test_resized_crop_is_within_one_level_of_pillows_resizing_and_of_the_exact_one(size: int) -> None:
    image = noise_image(150, 120)
    pixels = to_tensor(image)
    whole = resized_crop_pixels(pixels, size, asking_for_all_of(150, 120))
    by_pillow = to_tensor(image.resize((size, size), Image.Resampling.BILINEAR)).int()
    exact = torch.nn.functional.interpolate(pixels[None].double(), (size, size), mode="bilinear", antialias=True)[0]
    assert (whole - by_pillow).abs().max() <= 1
    assert ((whole - by_pillow) != 0).double().mean() < 0.05
    assert (whole - exact).abs().max() <= 1.01


def test_he2016_scales_the_shorter_side_from_256_to_480_at_224() -> None:
    size, height = 112, 128  # half of 224: the shorter side is then 128 to 240
    image = coordinate_image(200, height)
    sides, flips = [], []
    for seed in range(300):
        crop = np.asarray(he2016(image, size, np.random.default_rng(seed))).astype(float)
        assert crop.shape == (size, size, 3)
        sides.append(height / ((crop[100, 60, 1] - crop[10, 60, 1]) / 90))
        flips.append(crop[60, 100, 0] < crop[60, 10, 0])
    assert 124 < min(sides) < 134
    assert 230 < max(sides) < 248
    assert 110 < sum(flips) < 190


def test_he2016_shifts_colour_along_imagenets_principal_components() -> None:
    image = Image.new("RGB", (9, 9), (128, 128, 128))
    shifts = []
    for seed in range(2000):
        pixels = np.asarray(he2016(image, 7, np.random.default_rng(seed))).astype(float)
        assert (pixels == pixels[0, 0]).all()
        shifts.append(pixels[0, 0] - 128)
    covariance = np.cov(np.array(shifts).T)
    wanted = PCA_VECTORS @ np.diag((0.1 * 255 * PCA_VALUES) ** 2) @ PCA_VECTORS.T
    assert np.abs(np.mean(shifts, 0)).max() < 0.5
    assert np.abs(covariance - wanted).max() < 0.1 * wanted.max()
    assert np.allclose(PCA_VECTORS.T @ PCA_VECTORS, np.eye(3), atol=2e-3)
