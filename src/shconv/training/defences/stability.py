"""Stability training: Zheng et al. 2016. The outputs for an image and for a noisy copy of it are drawn together.
No adversary takes part."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.numbers import read_budgets, read_numbers
from shconv.training.defences.base import Defence, Step, Trained


@dataclass(frozen=True)
class Stability(Defence):
    """Cross-entropy of the clean image x plus alpha KL(P(x) || P(x')), x' = x + N(0, sigma^2), clipped to [0, 1].

    The label says nothing about x', and the gradient passes through both outputs. x and x' pass the network as one
    batch. The defaults are ours. Raises InputError for values out of range.
    """

    name = "stability"
    alpha: float = 1.0
    sigma: float = 0.1

    def __post_init__(self) -> None:
        read_numbers(self, "alpha", above=True)
        read_budgets(self, "sigma", above=True)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        noise = step.normal(x, self.sigma)
        clean, noisy = step.logits(model, torch.cat([x, (x + noise).clamp(0, 1)])).chunk(2)  # (B, K) each
        P, P_noisy = clean.log_softmax(1), noisy.log_softmax(1)
        apart = F.kl_div(P_noisy, P, reduction="batchmean", log_target=True)
        return Trained(step.cross_entropy(clean, y) + self.alpha * apart, clean, None)
