"""What a pass costs on this machine, measured, and what an attack will therefore take."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shconv.attacks import Attack, GaussianNoise, LocSearchAdv
from shconv.attacks.cost import Cost
from shconv.audit.subject import Subject

_REPEATS = 3
_USUAL = 25  # images in a batch: a side check's choice, or what is left standing


@dataclass(frozen=True)
class Probe:
    """Seconds of a forward pass, and of what a step by gradient adds to it: for each image, and for the pass itself."""

    forward: float
    backward: float
    forward_pass: float = 0.0
    backward_pass: float = 0.0

    def seconds(self, cost: Cost) -> float:
        """Of passes over single images that come in batches of the usual size."""
        return self.batch(cost, _USUAL) / _USUAL

    def batch(self, cost: Cost, n: float) -> float:
        """Of an attack that costs so much for each image, on a batch of n."""
        forward, backward = (self.forward_pass + n * self.forward, self.backward_pass + n * self.backward)
        return cost.forwards * forward + cost.backwards * backward

    def fitting(self, cost: Cost, seconds: float) -> float:
        """How many images an attack can take in one batch so that it ends in time; fewer than one where it cannot."""
        alone, more = self.batch(cost, 0), self.batch(cost, 1) - self.batch(cost, 0)
        return (seconds - alone) / more if more else math.inf if seconds > alone else 0.0


class Pace:
    """How fast an attack gets on: by its cost at first, then by what its last batch took."""

    def __init__(self, probe: Probe, cost: Cost | None) -> None:
        self.probe, self.cost = probe, cost
        self.slower = 1.0  # than estimated

    def fitting(self, seconds: float) -> int | float:
        """How many images the next batch may have so that it ends in time; any, where nothing is known."""
        if not seconds:
            return 0
        fit = math.inf if self.cost is None else self.probe.fitting(self.cost, seconds / self.slower)
        return fit if math.isinf(fit) else max(0, int(fit))

    def took(self, seconds: float, n: int) -> None:
        if self.cost is None:
            self.probe, self.cost = Probe(seconds / n, 0.0), Cost(1)
        elif expected := self.probe.batch(self.cost, n):
            self.slower = seconds / expected


def measure(subject: Subject, images: Tensor, labels: Tensor) -> Probe:
    """Time a forward pass and a step of PGD on one image and on the first batch, best of three after one to warm up."""
    sizes = sorted({1, min(len(images), subject.batch_size)})
    times = []
    for n in sizes:
        forward, step = _timed(subject.model, images[:n], labels[:n])
        times.append((forward, max(step - forward, 0.0)))
    (f1, b1), (fn, bn), n = times[0], times[-1], sizes[-1]
    each = [max(many - one, 0.0) / max(n - 1, 1) for one, many in ((f1, fn), (b1, bn))]
    once = [max(many - n * per, 0.0) for many, per in zip((fn, bn), each, strict=True)]
    return Probe(each[0], each[1], once[0], once[1])


def _timed(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    def forward() -> None:
        with torch.no_grad():
            model(x)

    def step() -> None:
        at = x.detach().clone().requires_grad_()
        loss = F.cross_entropy(model(at), y, reduction="sum")
        gradient = torch.autograd.grad(loss, at, allow_unused=True)[0] if loss.requires_grad else None
        moved = at.detach() if gradient is None else at.detach() + 0.01 * gradient.sign()
        torch.minimum(torch.maximum(moved, x - 0.03), x + 0.03).clamp_(0, 1)

    return _best(forward, x.device), _best(step, x.device)


def attack_cost(attack: Attack) -> Cost | None:
    """Passes for one image, an upper bound, by the attack's own word; None where it has none to give."""
    cost: Any = getattr(attack, "cost", None)
    if cost is not None:
        return Cost(*(cost() if callable(cost) else cost))
    if isinstance(attack, GaussianNoise):
        return Cost(0)
    if isinstance(attack, LocSearchAdv):
        return None if attack.max_probes is None else Cost(1 + attack.steps * (attack.max_probes + 1))
    steps = getattr(attack, "steps", 1)
    return Cost(steps + 1, steps)


def _best(work: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
