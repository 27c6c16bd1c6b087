"""The mechanism study's own parts in benchmarks/: the layer it computes by, its images, its list, its outcome."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from shconv.ops.reference import filtered_conv2d

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def training() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import mechanism_training

        return mechanism_training
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def study(training: ModuleType) -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import mechanism

        return mechanism
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("stride", [1, 2])
def test_its_layer_is_the_filtered_convolution(training: ModuleType, stride: int) -> None:
    x, weight, M = torch.rand(3, 2, 7, 6), torch.rand(4, 2, 3, 3), torch.rand(3, 3, 3)
    call: Any = (x, weight, M, torch.rand(4), (stride, stride), (1, 1), (1, 1), 1)
    torch.testing.assert_close(training.windowed(*call), filtered_conv2d(*call))


def test_images_come_back_as_they_were_packed(training: ModuleType, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (53, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_some_train=training.png(images), y_some_train=np.arange(53, dtype=np.uint8))
    found = training.unpacked(str(tmp_path / "a.npz"))
    assert np.array_equal(found["x_some_train"], images.transpose(0, 3, 1, 2))


def test_no_window_of_a_photograph_is_in_both_parts(training: ModuleType) -> None:
    data = {"x_imagenette_train": np.arange(2 * 3 * 64 * 64, dtype=np.int64).reshape(2, 3, 64, 64)}
    config = training.Config(data="photos", classes=2, images=60, test=40)
    (train, labels), (test, _) = (training.split(data, config)[part] for part in ("train", "test"))
    assert labels.bincount().tolist() == [30, 30]
    assert not {int(x[0, 0, 0]) for x in train} & {int(x[0, 0, 0]) for x in test}


def test_shifted_images_are_windows_of_the_padded_one(training: ModuleType) -> None:
    x = torch.randint(1, 256, (20, 3, 8, 8), dtype=torch.uint8)
    made = training.shifted(x, torch.Generator().manual_seed(0)).mul(255).round()
    padded = torch.nn.functional.pad(x, (1,) * 4).float()
    for image, around in zip(made, padded, strict=True):
        windows = [around[:, r : r + 8, c : c + 8] for r in range(3) for c in range(3)]
        assert any(torch.equal(image, w) or torch.equal(image, w.flip(2)) for w in windows)


def test_every_configuration_of_the_list_is_another_one(study: ModuleType) -> None:
    first = study.first_round()
    assert len({study.key(*each) for each in first}) == len(first) <= study.MOST
    found = [{"name": n, "config": {"seed": c.seed}, "gap": float(len(n))} for n, c in first if n != "layers: none"]
    second = study.second_round(found)
    assert len(first) + len(second) == study.MOST
    assert not {study.key(*each) for each in first} & {study.key(*each) for each in second}


def test_the_outcome_is_the_mean_difference_over_the_budgets(training: ModuleType) -> None:
    rows = [
        {"attack": f"FGSM {level}", "route": route, "difference": -0.01 * level if route == "convolution" else 9.0}
        for level in training.GRID
        for route in ("both", "convolution")
    ]
    assert training.gap([*rows, {"attack": "PGD 2", "route": "convolution", "difference": 9.0}]) == pytest.approx(3.75)


@pytest.mark.parametrize("name", ["se", "condconv", "odconv_spatial"])
def test_an_attention_held_changes_the_gradient_and_no_output(training: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    model = training.network(replace(training.Config(), model=f"plain10_{name}", width=2)).eval()
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    logits = model(x)
    whole = torch.autograd.grad(logits.square().sum(), x)[0]
    with training.attentions_held(model):
        held = torch.autograd.grad(model(x).square().sum(), x)[0]
        torch.testing.assert_close(model(x), logits)
    assert not torch.equal(whole, held)
    assert torch.equal(whole, torch.autograd.grad(model(x).square().sum(), x)[0])
