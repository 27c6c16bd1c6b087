"""Adversarial training as it was first done: Goodfellow, Shlens and Szegedy 2014. One step, beside the clean images.

Like every single step from the image itself it can collapse (catastrophic overfitting): see overfitting.py."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shconv.numbers import read_budgets, read_numbers
from shconv.training.defences.base import Defence, Step, Trained, ascent, crafting


@dataclass(frozen=True)
class Goodfellow(Defence):
    """alpha J(x) + (1 - alpha) J(x + eps sign(grad J(x))), J the cross-entropy of the true class.

    No gradient passes through the sign. Both halves pass the network as one batch. alpha is theirs, 0.5; eps, a share
    of 1, is that of the other defences here (theirs, for black and white digits, is 0.25). Raises InputError for values
    out of range.
    """

    name = "goodfellow"
    alpha: float = 0.5
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        read_numbers(self, "alpha", high=1)
        read_budgets(self, "eps", above=True)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        with crafting(model):
            attacked = (x + self.eps * ascent(model, x, y, step)).clamp(0, 1)
        clean, fooled = step.logits(model, torch.cat([x, attacked])).chunk(2)  # (B, K) each
        losses = step.cross_entropy(clean, y), step.cross_entropy(fooled, y)
        return Trained(self.alpha * losses[0] + (1 - self.alpha) * losses[1], clean, fooled)
