"""torchvision's augmentation policies, drawn for each image alone."""

import pytest
import torch

from shconv.data import training_batches
from shconv.data.policies import POLICIES, geometry
from shconv.data.splits import MemorySplit

IMAGES = torch.randint(0, 256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
SPLIT = MemorySplit(IMAGES, torch.arange(12) % 3, [str(i) for i in range(12)])


def images(policy: str, epoch: int = 0, batch_size: int = 12, workers: int = 0) -> dict[int, torch.Tensor]:
    """By index."""
    batches = training_batches(SPLIT, policy, batch_size=batch_size, seed=1, epoch=epoch, workers=workers)
    return {int(i): image for batch in batches for i, image in zip(batch.index, batch.images, strict=True)}


@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_depends_on_seed_epoch_and_index_alone_and_torchs_generator_is_left(policy: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = images(policy)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again = images(policy, batch_size=4)
    assert all(torch.equal(first[i], again[i]) for i in first)
    assert all(image.shape == (3, 8, 8) and image.dtype == torch.uint8 for image in first.values())
    cropped, later = images("crop_flip"), images(policy, epoch=1)
    assert any(not torch.equal(first[i], cropped[i]) for i in first)
    assert any(not torch.equal(first[i], later[i]) for i in first)


def test_workers_make_the_same_images() -> None:
    first, again = images("randaugment"), images("randaugment", batch_size=6, workers=2)
    assert all(torch.equal(first[i], again[i]) for i in first)


def test_small_images_are_cropped_as_crop_flip_and_larger_ones_as_resized_crop() -> None:
    assert [geometry("augmix", size) for size in (32, 64, 65)] == ["crop_flip", "crop_flip", "resized_crop"]
    assert geometry("he2016", 32) == "he2016"
