"""Networks that see the brightest channel, attacks whose result is known, and checks made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from shconv.attacks import FGSM
from shconv.attacks.base import BatchAttack, Model
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.check import Check
from shconv.audit.findings import Finding
from toys import CHANNEL, CLASSES, colours

EPS = 0.15


def colour_images(n: int = 24, least: int = 20) -> tuple[Tensor, Tensor]:
    """Float images (n, 3, 8, 8) in [0, 1] of three classes in turn, and their labels."""
    labels = [i % 3 for i in range(n)]
    return colours(labels, least=least).float() / 255, torch.tensor(labels)


class Brightest(nn.Module):
    """Logits: the mean brightness of each class's channel; right on every image of colour_images."""

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean((2, 3))[:, [CHANNEL[name] for name in CLASSES]]


def margins(x: Tensor, y: Tensor) -> Tensor:
    """How much brighter the class's channel is than the brightest other, (n,): Brightest breaks at half of it."""
    means = x.mean((2, 3))[:, [CHANNEL[name] for name in CLASSES]]
    own = means.gather(1, y[:, None])[:, 0]
    return own - means.scatter(1, y[:, None], -1.0).amax(1)


@dataclass(frozen=True)
class Shift(BatchAttack):
    """Every channel but the class's brighter by epsilon, the class's darker by epsilon; `calls` sees every batch."""

    epsilon: float
    calls: Any = field(default=None, repr=False, compare=False)
    clip: bool = True

    @property
    def cost(self) -> Cost:
        return Cost(1)

    def perturb(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, int]:
        if self.calls is not None:
            self.calls(list(index))
        model(x)
        sign = torch.ones_like(x)
        sign[range(len(x)), [CHANNEL[CLASSES[label]] for label in y.tolist()]] = -1
        moved = x + self.epsilon * sign
        return moved.clamp(0, 1) if self.clip else moved, None, 1


TEN = Cost(10, 10)


@dataclass
class ToyCheck:
    """A check that does what `act` does with the audit."""

    NUMBER: int
    NAME: str
    act: Callable[[Audit], Any] = lambda audit: None
    alarm: bool | None = False
    passes: Cost = TEN
    why: str = ""
    SOURCE: str = "Toy 2024"

    def applies(self, audit: Audit) -> str:
        return self.why

    def cost(self, audit: Audit) -> Cost:
        return self.passes

    def run(self, audit: Audit) -> Finding:
        self.act(audit)
        return Finding(self.alarm, f"{self.NAME} found 7 of 9.", {"found": 7})


def attacking(number: int, name: str, epsilon: float = EPS, alarm: bool | None = False, **options: Any) -> Check:
    """A check of the headline that makes one step by gradient."""
    attack = FGSM(epsilon, objective="untargeted")
    return ToyCheck(number, name, lambda audit: audit.attack(name, attack, **options), alarm)
