"""Is the robustness that an adversarial training reports still there after several steps? Looked at after every epoch.

Single-step training can collapse within an epoch: it resists its own examples, and nothing else (Wong et al. 2020)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from shconv.data import ImageSplit, evaluation_batches
from shconv.metrics import is_right
from shconv.training.defences.base import STREAM, Step, ascend

WATCHED = 128  # images
STEPS, STEP_SIZE = 10, 0.25
FALL = 0.2  # of accuracy, that ends the training in Wong et al.'s code


def pgd_accuracy(model: nn.Module, split: ImageSplit, eps: float, seed: int, device: torch.device | str) -> float:
    """Accuracy under ten steps of PGD on 128 training images, not augmented, the same ones with the same starts
    throughout: no test image has a say in a training. In eval mode, which it leaves on, and the network's precision."""
    model.eval()
    order = np.random.default_rng(np.random.SeedSequence([seed, STREAM + 1])).permutation(len(split))
    (batch,) = evaluation_batches(split, order[:WATCHED].tolist(), WATCHED)
    x, y = batch.images.to(device).float().div(255), batch.labels.to(device)
    step = Step(torch.Generator(device).manual_seed(seed))
    attacked = ascend(model, x, y, step, eps=eps, step_size=STEP_SIZE, steps=STEPS)
    with torch.no_grad():
        return int(is_right(model(attacked), y).sum()) / len(y)


def collapse(history: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning where the last row's PGD accuracy lies far below the best one before it; else None."""
    *before, now = [float(row["pgd_accuracy"]) for row in history]
    best = max(before, default=0.0)
    if now >= best - FALL:
        return None
    return (
        f"accuracy under PGD fell from {best:.1%} to {now:.1%} on the same training images: catastrophic overfitting "
        "to the defence's own examples; take a smaller step size or eps, or the defence pgd"
    )
