"""How images are prepared for a network is kept with it, and taken from there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shconv import InputError
from shconv.data import Preparation, load_data
from shconv.data.transforms import evaluation_image, to_tensor


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """One image of 90 x 60 pixels in each part."""
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / part / "a/0.png")
    return tmp_path


def test_own_folders_keep_the_shape_of_photographs_and_the_paper_distorts_by_name(wide: Path) -> None:
    image = Image.open(wide / "test/a/0.png")
    for given, preset in (("auto", "imagenet"), ("imagenet", "imagenet"), ("paper", "paper")):
        data = load_data(f"folder:{wide}", image_size=40, test_preset=given)
        assert data.preparation == Preparation(40, 40, preset)
        assert torch.equal(data.test[0][0], to_tensor(evaluation_image(image, 40, preset)))
    assert load_data("demo", want_train=False).test_preset == "paper"


@pytest.mark.parametrize("known", [Preparation(256, 224, "paper"), Preparation(32, 32, "imagenet"), Preparation()])
def test_what_a_checkpoint_knows_is_taken_and_options_win(wide: Path, known: Preparation) -> None:
    data = load_data(f"folder:{wide}", preparation=known)
    assert data.preparation == (known if known.image_size else Preparation(224, 224, "imagenet"))
    other = load_data(f"folder:{wide}", preparation=known, image_size=48, test_preset="paper")
    assert other.preparation == Preparation(48, 48, "paper")


def test_it_comes_back_from_what_is_stored_and_from_what_earlier_versions_stored() -> None:
    known = Preparation(32, 28, "imagenet")
    assert Preparation.of({"data": known.stored()}, "here") == known
    assert Preparation.of({"data": {"image_size": 256}}, "here") == Preparation(256, 224, "paper")
    assert Preparation.of({"data": {"image_size": 32}}, "here") == Preparation(32, 32, "paper")
    for silent in ({}, {"data": None}, {"data": {}}, {"data": {"image_size": None}}, {"data": [1]}):
        assert Preparation.of(silent, "here") == Preparation()


@pytest.mark.parametrize("about", [{"image_size": "32"}, {"image_size": 0}, {"image_size": True},
                                   {"image_size": 10**6}, {"image_size": 32, "test_preset": "timm"},
                                   {"image_size": 32, "train_size": -1}])  # fmt: skip
def test_a_strangers_values_are_refused_with_the_files_name(about: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"^here has the (image_size|train_size|test_preset) .*; wanted: "):
        Preparation.of({"data": about}, "here")
