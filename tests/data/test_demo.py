"""The demo: patches of scikit-image's photographs, with nothing shared between train and test."""

import socket
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shconv.data import ImageData, demo, load_data
from shconv.errors import InputError

MARGIN = 8  # pixels of a photograph that is not shrunk


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("demo")


def photograph(name: str) -> np.ndarray:
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    (file,) = (Path(spec.origin).parent / "data").glob(f"{name}.*")
    return np.asarray(Image.open(file).convert("RGB"))


def box(name: str) -> tuple[str, int, int, int]:
    """The name of a patch -> photograph, left, top, side."""
    which, corner, side = name.split()
    left, top = corner.split(",")
    return which, int(left), int(top), int(side)


def test_no_pixel_is_in_both_parts_nor_within_the_margin_of_the_other(data: ImageData) -> None:
    masks: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for part, split in (("train", data.train), ("test", data.test)):
        for which in data.classes:
            masks[which][part] = np.zeros(photograph(which).shape[:2], bool)
        for name in split.names:
            which, left, top, side = box(name)
            reach = MARGIN * side // 32 if part == "test" else 0
            masks[which][part][max(0, top - reach) : top + side + reach, max(0, left - reach) : left + side + reach] = (
                True
            )
    for which in data.classes:
        assert masks[which]["train"].any()
        assert masks[which]["test"].any()
        assert not (masks[which]["train"] & masks[which]["test"]).any(), which


def test_each_patch_is_the_area_mean_of_the_square_that_its_name_gives(data: ImageData) -> None:
    photographs = {name: photograph(name).astype(np.float64) for name in data.classes}
    for split in (data.train, data.test):
        for i in range(0, len(split), 5):
            which, left, top, side = box(split.names[i])
            square = photographs[which][top : top + side, left : left + side]
            assert square.shape == (side, side, 3)
            k = side // 32
            mean = square.reshape(32, k, 32, k, 3).mean((1, 3))
            patch, label = split[i]
            assert data.classes[label] == which
            assert np.abs(patch.permute(1, 2, 0).numpy() - mean).max() <= 0.5


def test_parts_are_balanced_from_any_multiple_of_the_classes_on_and_no_patch_comes_twice(data: ImageData) -> None:
    for split, size in ((data.train, 572), (data.test, 286)):
        assert split[0][0].dtype == torch.uint8
        assert split[0][0].shape == (3, 32, 32)
        assert split.labels.dtype == torch.int64
        assert split.labels.bincount().tolist() == [size] * len(data.classes)
        assert split.labels[: 3 * len(data.classes)].bincount().tolist() == [3] * len(data.classes)
        assert len(set(split.names)) == len(split) == size * len(data.classes)


def test_a_beginning_of_a_part_already_covers_every_photograph_from_left_to_right(data: ImageData) -> None:
    lefts = defaultdict(list)
    for name in data.test.names[: 16 * len(data.classes)]:
        which, left, _, _ = box(name)
        lefts[which].append(left / photograph(which).shape[1])
    for which, seen in lefts.items():
        assert min(seen) < 0.3, which
        assert max(seen) > 0.7, which


def test_no_patch_is_nearly_plain(data: ImageData) -> None:
    for split in (data.train, data.test):
        pixels = torch.stack([split[i][0] for i in range(len(split))]).flatten(2).numpy()
        low, high = np.percentile(pixels, [10, 90], axis=2)
        assert (high - low).mean(1).min() >= 5


def test_the_demo_is_the_same_on_every_call(data: ImageData) -> None:
    again = load_data("demo")
    for split, other in ((data.train, again.train), (data.test, again.test)):
        assert split.names == other.names
        assert all(torch.equal(split[i][0], other[i][0]) for i in range(len(split)))


def test_the_demo_uses_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(load_data("demo", want_train=False).test) > 0


def test_the_note_says_that_classes_are_photographs_not_objects(data: ImageData) -> None:
    assert "photographs" in data.note
    assert "not objects" in data.note


def test_another_image_size_goes_through_the_test_preprocessing() -> None:
    data = load_data("demo", image_size=24, want_train=False)
    assert data.train is None
    assert data.image_size == 24
    assert data.test[0][0].shape == (3, 24, 24)


def test_without_scikit_image_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install scikit-image"):
        load_data("demo")


def test_a_scikit_image_without_the_photographs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "_photograph_folder", lambda: tmp_path)
    with pytest.raises(InputError, match=r"astronaut\.png"):
        load_data("demo")
