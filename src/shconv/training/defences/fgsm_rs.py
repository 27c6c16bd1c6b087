"""Random-start FGSM: Wong, Rice and Kolter, "Fast is better than free", 2020. The cheap adversarial training.

It can collapse from one epoch to the next (catastrophic overfitting). Only several steps show it: overfitting.py."""

from dataclasses import dataclass

from torch import Tensor, nn

from shconv.numbers import read_budgets, read_numbers
from shconv.training.defences.base import Defence, Step, Trained, ascend


@dataclass(frozen=True)
class FGSMRS(Defence):
    """Trains on attacked images alone: one step from a uniform start in the eps ball. It takes about twice a plain
    step's time.

    eps is a share of 1, step_size one of eps. Raises InputError for values out of range.
    """

    name = "fgsm-rs"
    eps: float = 8 / 255
    step_size: float = 1.25

    def __post_init__(self) -> None:
        read_budgets(self, "eps", above=True)
        read_numbers(self, "step_size", above=True)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        attacked = ascend(model, x, y, step, eps=self.eps, step_size=self.step_size, steps=1)
        logits = step.logits(model, attacked)
        return Trained(step.cross_entropy(logits, y), logits, logits)
