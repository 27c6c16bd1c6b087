"""Defensive distillation: Papernot et al. 2016b. A network learns the soft outputs of another one of its kind, both at
a temperature at which they say more than the label; at test the temperature is 1, so that the network is very sure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.numbers import read_numbers
from shconv.training.defences.base import Defence, First, Step, Trained
from shconv.training.defences.source import Source

TEACHER = 1000  # what the teacher's seed is above the student's: it has other initial weights, and sees another order


@dataclass(frozen=True)
class AtTemperature(Defence):
    """temperature times the cross-entropy of softmax(z / temperature): how the teacher is trained."""

    name = "temperature"
    temperature: float

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        logits = step.logits(model, x)
        return Trained(self.temperature * step.cross_entropy(logits / self.temperature, y), logits, None)


@dataclass(frozen=True, eq=False)
class Distillation(Defence):
    """temperature times the cross-entropy of softmax(z / temperature) with the teacher's softmax of the same image.

    The factor is ours: with it a gradient by the logits is as large as at temperature 1, so that recipes keep their
    learning rates. Labels take no part, and the network is used at temperature 1. The teacher is the one source, a
    finished network of the same classes, or is trained first, at this temperature. The default of 20 is theirs for
    digits (they tried 1 to 100). It is known for robustness under gradient attacks alone: its gradients vanish (Carlini
    and Wagner 2017). Raises InputError for a temperature that is not above 0, and more than one source.
    """

    name = "distillation"
    temperature: float = 20.0
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        read_numbers(self, "temperature", above=True)
        if len(self.sources) > 1:
            raise InputError(f"defence distillation has one teacher: got {len(self.sources)} sources")

    def first(self, seed: int) -> Mapping[str, First]:
        return {} if self.sources else {"teacher": First(AtTemperature(self.temperature), seed + TEACHER)}

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        teacher = self.sources[0].network.to(x.device)
        with torch.no_grad():
            soft = (step.logits(teacher, x) / self.temperature).softmax(1)  # (B, K)
        logits = step.logits(model, x)
        return Trained(self.temperature * F.cross_entropy(logits / self.temperature, soft), logits, None)

    def record(self) -> dict[str, Any]:
        teacher = self.sources[0].record() if self.sources else "trained first"
        return {"name": self.name, "temperature": self.temperature, "teacher": teacher}
