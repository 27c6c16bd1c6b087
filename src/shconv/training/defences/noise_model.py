"""A network that reckons with noise: Jin, Dundar and Culurciello 2015. Means and variances are carried through it; no
adversary takes part."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from shconv.numbers import read_budgets
from shconv.training.checkpoint import ModelConfig
from shconv.training.defences.base import Defence, Step, Trained


@dataclass(frozen=True)
class NoiseModel(Defence):
    """The cross-entropy of the mean logits under pixel noise N(0, sigma^2), which the stored network gives too.

    No noise is drawn: `shconv.models.noise` carries it in closed form, in training and at test. The default is ours.
    Raises InputError for a sigma out of range.
    """

    name = "noise-model"
    sigma: float = 0.1

    def __post_init__(self) -> None:
        read_budgets(self, "sigma", above=True)

    def around(self, config: ModelConfig) -> ModelConfig:
        return replace(config, wrapper=f"noise-model:{self.sigma}")

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        logits = step.logits(model, x)
        return Trained(step.cross_entropy(logits, y), logits, None)
