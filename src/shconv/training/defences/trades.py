"""TRADES: Zhang et al. 2019. Accuracy on the clean images, and outputs that stay what they are within the budget: the
weight between the two is a setting."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.attacks.checks import check_count
from shconv.numbers import read_budgets, read_numbers
from shconv.training.defences.base import Defence, Step, Trained, climb, crafting

START = 0.001  # standard deviation of the noise that an attack begins with, theirs: at x itself nothing is uphill


@dataclass(frozen=True)
class TRADES(Defence):
    """Cross-entropy of the clean image x plus beta KL(P(x) || P(x')), x' the image within eps where that is largest.

    x' is looked for by `steps` steps of step_size * eps up the divergence; labels say nothing about it. The gradient
    passes through both outputs, and x and x' pass the network as one batch. The defaults are theirs for CIFAR-10, but
    for eps, 8/255 in place of 0.031: 10 steps of 0.007, and beta 6. Raises InputError for values out of range.
    """

    name = "trades"
    eps: float = 8 / 255
    beta: float = 6.0
    step_size: float = 0.007 / 0.031
    steps: int = 10

    def __post_init__(self) -> None:
        read_budgets(self, "eps", above=True)
        read_numbers(self, "beta", "step_size", above=True)
        check_count("steps", self.steps, 1)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        attacked = self._attacked(model, x, step)
        clean, moved = step.logits(model, torch.cat([x, attacked])).chunk(2)  # (B, K) each
        apart = F.kl_div(moved.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True)
        return Trained(step.cross_entropy(clean, y) + self.beta * apart, clean, moved)

    def _attacked(self, model: nn.Module, x: Tensor, step: Step) -> Tensor:
        with crafting(model), torch.no_grad():
            P = step.logits(model, x).double().softmax(1)

        likeliest = P.argmax(1, keepdim=True)

        def uphill(at: Tensor) -> Tensor:
            """The divergence's gradient by the logits is Q - P. It is tiny where the network is sure: the likeliest
            class's is the others' sum, as 1 - 1 would be 0, and all are divided by the largest."""
            at = at.detach().requires_grad_()
            logits = step.logits(model, at)
            apart = (logits.detach().double().softmax(1) - P).scatter(1, likeliest, 0.0)
            apart = apart.scatter(1, likeliest, -apart.sum(1, keepdim=True))
            apart = apart / apart.abs().amax(1, keepdim=True).clamp_min(torch.finfo(apart.dtype).tiny)
            return torch.autograd.grad(logits, at, apart.to(logits.dtype))[0].sign()

        start = x + step.normal(x, START)
        return climb(model, x, start, uphill, eps=self.eps, step_size=self.step_size, steps=self.steps)
