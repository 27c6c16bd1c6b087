"""Projected gradient descent: Madry et al. 2018. The strongest of the defences here, and the slowest."""

from dataclasses import dataclass

from torch import Tensor, nn

from shconv.attacks.checks import check_count
from shconv.numbers import read_budgets, read_numbers
from shconv.training.defences.base import Defence, Step, Trained, ascend


@dataclass(frozen=True)
class PGD(Defence):
    """Trains on attacked images alone: `steps` steps from a uniform start in the eps ball; 1 + steps plain steps' time.

    eps is a share of 1, step_size one of eps: the defaults are theirs for CIFAR-10, 7 steps of 2/255 within 8/255.
    Raises InputError for values out of range.
    """

    name = "pgd"
    eps: float = 8 / 255
    step_size: float = 0.25
    steps: int = 7

    def __post_init__(self) -> None:
        read_budgets(self, "eps", above=True)
        read_numbers(self, "step_size", above=True)
        check_count("steps", self.steps, 1)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        attacked = ascend(model, x, y, step, eps=self.eps, step_size=self.step_size, steps=self.steps)
        logits = step.logits(model, attacked)
        return Trained(step.cross_entropy(logits, y), logits, logits)
