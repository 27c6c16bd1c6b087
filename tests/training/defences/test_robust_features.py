"""Adversarial training on data whose robust and brittle features are known: it gives up the brittle one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shconv.data import ImageData
from shconv.data.splits import MemorySplit
from shconv.training import Defence, ModelConfig, Recipe, train
from shconv.training.defences import FGSMRS, PGD
from shconv.training.defences.overfitting import pgd_accuracy

pytestmark = pytest.mark.usefixtures("toy_network")


ROBUST, BRITTLE = 12, 5  # levels of 255: more and less than eps 8/255


def two_features(n: int, seed: int) -> MemorySplit:
    """Red tells nine in ten images by more levels than the budget can undo; green all of them, by fewer."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    side = 2 * labels - 1
    pixels = np.full((n, 3, 8, 8), 128) + rng.integers(-2, 3, (n, 3, 8, 8))
    pixels[:, 0] += (ROBUST * side * np.where(rng.random(n) < 0.9, 1, -1))[:, None, None]
    pixels[:, 1] += (BRITTLE * side)[:, None, None]
    return MemorySplit(torch.tensor(pixels, dtype=torch.uint8), torch.tensor(labels), [str(i) for i in range(n)])


@pytest.fixture
def brittle(toy_network: Callable[..., None]) -> ImageData:
    """The network is linear, on pixels about zero: its accuracy under attack is known in closed form."""

    class Centred(nn.Linear):
        def __init__(self, classes: int) -> None:
            super().__init__(192, classes)
            nn.init.zeros_(self.weight)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(10 * (x - 0.5).flatten(1))

    toy_network(lambda classes, width: Centred(classes))
    return ImageData("two features", ("dark", "light"), two_features(200, 0), two_features(200, 1), 8, "", 0)


def robust_accuracy(model: nn.Module, split: MemorySplit, eps: float) -> float:
    """Of a linear network with two classes, exactly: the margin must exceed eps times the L1 norm of its gradient."""
    x = (split.images.float() / 255).requires_grad_()
    logits = model(x)
    margin = logits.gather(1, split.labels[:, None])[:, 0] - logits.gather(1, 1 - split.labels[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(margin.sum(), x)
    return (margin > eps * gradient.flatten(1).abs().sum(1)).float().mean().item()


@pytest.mark.parametrize("defence", [FGSMRS(), PGD()], ids=lambda defence: defence.name)
def test_adversarial_training_gives_up_the_feature_that_the_budget_can_undo(
    tmp_path: Path, brittle: ImageData, config: ModelConfig, defence: Defence
) -> None:
    recipe = Recipe(12, 20, 0.1, weight_decay=0.0, schedule="cosine", augmentation="none")
    config = replace(config, num_classes=2)
    plain = train(config, brittle, recipe, tmp_path / "plain", progress=False)
    defended = train(config, brittle, recipe, tmp_path / "defended", defence=defence, progress=False)
    plainly, robustly = (robust_accuracy(each.model, brittle.test, 8 / 255) for each in (plain, defended))
    assert plain.test_accuracy == 1
    assert plainly < 0.2
    assert 0.85 < robustly <= defended.test_accuracy < 1
    assert defended.history[-1]["pgd_accuracy"] == robust_accuracy_watched(defended.model, brittle)
    assert 0.8 < defended.history[-1]["adversarial_accuracy"] < 1


def robust_accuracy_watched(model: nn.Module, data: ImageData) -> float:
    """The closed form on the images that are watched, found by what the watch asks the network."""
    assert isinstance(data.train, MemorySplit)
    seen: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    pgd_accuracy(model, data.train, 1e-9, 0, "cpu")
    hook.remove()
    pixels = (seen[0] * 255).round().to(torch.uint8)
    at = [int((data.train.images == each).flatten(1).all(1).nonzero()[0]) for each in pixels]
    assert len(set(at)) == len(at) == 128
    return robust_accuracy(model, MemorySplit(data.train.images[at], data.train.labels[at], []), 8 / 255)
