"""What is seen before the first step: too few steps to learn, and batch norms with one value a channel."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shconv.data import ImageData
from shconv.data.order import share_of
from shconv.data.splits import MemorySplit
from shconv.errors import InputError
from shconv.pretrained.finetune import fine_tune
from shconv.training import Engine, ModelConfig, Recipe, train
from shconv.training.batch_size import check_batch_norms, smallest_share, warning_of_few_steps


def data(n: int, side: int = 8) -> ImageData:
    labels = torch.arange(n) % 3
    split = MemorySplit(
        torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8), labels, [str(i) for i in range(n)]
    )
    return ImageData("toy", ("a", "b", "c"), split, split, side, "", 0)


def recipe(batch_size: int) -> Recipe:
    return Recipe(1, batch_size, 0.01, schedule="cosine", augmentation="none", precision="float32")


PLAIN = ModelConfig("plain10", 3, stem="small", width=2)
DEEP = ModelConfig("resnet18", 3, stem="small", width=2)


def test_a_small_data_set_in_large_batches_is_said_with_what_mends_it() -> None:
    said = warning_of_few_steps(72, 64, 7)
    assert said is not None
    assert "72 images in batches of 64 are 1 step an epoch, and 8 are left out of each; 7 steps in all" in said
    assert "--batch-size 9 of train or finetune: 8 steps an epoch" in said
    assert "--epochs 100" in said
    assert warning_of_few_steps(4004, 64, 7) is None  # the demo
    assert warning_of_few_steps(1_281_167, 256, 90) is None
    left = warning_of_few_steps(100, 64, 200)  # steps enough, but a third of the images unseen in each epoch
    assert left is not None
    assert "36 are left out" in left
    assert "--epochs" not in left


@given(st.integers(1, 500), st.integers(1, 300), st.integers(1, 300))
def test_the_advice_is_one_that_can_be_taken(images: int, batch: int, epochs: int) -> None:
    said = warning_of_few_steps(images, batch, epochs)
    if said is not None:
        smaller = int(said.split("--batch-size ")[1].split()[0])
        assert smaller >= 2
        assert f"{images} images" in said


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_the_smallest_share_is_that_of_the_division(batch: int, accumulation: int, processes: int) -> None:
    """Against the images themselves, divided as a step divides them."""
    images = list(range(batch))
    shares = [images[share_of(batch, rank, processes)] for rank in range(processes)]
    micro = [[share[share_of(len(share), k, accumulation)] for share in shares] for k in range(accumulation)]
    apart, together = (
        smallest_share(batch, accumulation, processes, together=False),
        min(sum(map(len, each)) for each in micro),
    )
    assert apart == min(len(part) for each in micro for part in each)
    assert smallest_share(batch, accumulation, processes, together=True) == together


@pytest.mark.parametrize("config", [PLAIN, DEEP, ModelConfig("plain10_shc", 3, stem="small", width=2)])
@pytest.mark.parametrize(("batch", "accumulation", "side"), [(4, 4, 8), (5, 4, 8), (1, 1, 4)])
def test_one_value_a_channel_is_an_error_before_training(
    tmp_path: Path, config: ModelConfig, batch: int, accumulation: int, side: int
) -> None:
    with pytest.raises(InputError, match=f"a batch of {batch} image.* micro-batches of 1 image.*batch norm .*1 value"):
        train(config, data(9, side), recipe(batch), tmp_path / "new", engine=Engine(accumulation=accumulation))
    assert not (tmp_path / "new").exists()


def test_one_training_image_is_a_batch_of_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a batch of 1 image makes micro-batches of 1 image"):
        train(DEEP, data(1), recipe(64), tmp_path / "new")


def test_what_torch_can_do_is_left_to_it(tmp_path: Path) -> None:
    train(PLAIN, data(6, 16), recipe(2), tmp_path, engine=Engine(accumulation=2), progress=False)  # 2 x 2 values each


@pytest.mark.parametrize("size", [1, 2])
def test_the_check_says_what_torch_says_and_leaves_the_network_alone(size: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
    network[0].eval()

    def tensors() -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}

    image = torch.rand(3, size * 2, size * 2)
    if size == 1:
        with pytest.raises(ValueError, match="more than 1 value"):
            network(image[None])
        before = tensors()
        with pytest.raises(InputError, match="batch norm 1 1 value"):
            check_batch_norms(network, image, 1, "a batch of 1 image")
    else:
        before = tensors()
        check_batch_norms(network, image, 1, "a batch of 1 image")
    check_batch_norms(network, image, 2, "a batch of 2 images")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network] == [False, True, True]
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_fine_tuning_with_batch_norms_that_learn_is_checked_and_with_frozen_ones_not() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 8), nn.BatchNorm2d(3), nn.Flatten())
    split, device = data(3).test, torch.device("cpu")
    with pytest.raises(InputError, match="batch norm 1 1 value a channel"):
        fine_tune(network, split, recipe(1), 0.1, device, freeze_batch_norm=False)
    fine_tune(network, split, recipe(1), 0.1, device)
