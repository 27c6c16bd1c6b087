"""What a pass costs on this machine, measured, and what an attack will therefore take."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shconv.attacks.cost import Cost
from shconv.attacks.losses import gradient_at
from shconv.audit.subject import Subject

_REPEATS = 3
_SURE, _HALF, _QUARTER = 0.8, 0.5, 0.25  # of the time left
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
    """How fast an attack gets on: by its cost at first, then by what its last batch took.

    slower: how much longer one like it took than estimated, where one has run.
    """

    def __init__(self, probe: Probe, cost: Cost | None, slower: float | None = None) -> None:
        self.probe, self.cost, self.known = probe, cost, slower is not None
        self.slower = 1.0 if slower is None else slower

    def next(self, images: int, seconds: float) -> int:
        """How many of the images the next batch may have: all if they surely fit, else half the time's worth.

        So a batch whose time was estimated too short, and is lost at the end, is never all there was. Until a batch
        has been timed it gets a quarter.
        """
        sure, usual = (_SURE, _HALF) if self.known else (_QUARTER, _QUARTER)
        if self.fitting(sure * seconds) >= images:
            return images
        return int(min(max(self.fitting(usual * seconds), min(1, self.fitting(_SURE * seconds))), images))

    def fitting(self, seconds: float) -> int | float:
        """How many images the next batch may have so that it ends in time; any, where nothing is known."""
        if not seconds:
            return 0
        fit = math.inf if self.cost is None else self.probe.fitting(self.cost, seconds / self.slower)
        return fit if math.isinf(fit) else max(0, int(fit))

    def took(self, seconds: float, n: int) -> None:
        self.known = True
        if self.cost is None:
            self.probe, self.cost = Probe(seconds / n, 0.0), Cost(1)
        elif expected := self.probe.batch(self.cost, n):
            self.slower = seconds / expected


def measure(subject: Subject, images: Tensor, labels: Tensor, seconds: float = math.inf) -> Probe:
    """Time a forward pass and a step of PGD on one image and on ever more, best of a few, in about `seconds`.

    Growing by 4, up to a batch, as long as the next size fits into the time.
    """
    until, n, most = time.perf_counter() + seconds, 1, min(len(images), subject.batch_size)
    times: list[tuple[int, float, float]] = []
    while True:
        began = time.perf_counter()
        forward, step = _timed(subject.model, images[:n], labels[:n], until)
        times.append((n, forward, max(step - forward, 0.0)))
        now = time.perf_counter()
        if n == most or 4 * (now - began) > until - now:
            break
        n = min(4 * n, most)
    (_, f1, b1), (n, fn, bn) = times[0], times[-1]
    if n == 1:
        return Probe(f1, b1)
    each = [max(many - one, 0.0) / (n - 1) for one, many in ((f1, fn), (b1, bn))]
    once = [max(many - n * per, 0.0) for many, per in zip((fn, bn), each, strict=True)]
    return Probe(each[0], each[1], once[0], once[1])


def _timed(model: nn.Module, x: Tensor, y: Tensor, until: float) -> tuple[float, float]:
    def forward() -> None:
        with torch.no_grad():
            model(x)

    def step() -> None:
        at = x.detach().clone().requires_grad_()
        moved = at.detach() + 0.01 * gradient_at(at, F.cross_entropy(model(at), y, reduction="none")).sign()
        torch.minimum(torch.maximum(moved, x - 0.03), x + 0.03).clamp_(0, 1)

    return _best(forward, x.device, until), _best(step, x.device, until)


def _best(work: Callable[[], None], device: torch.device, until: float) -> float:
    """Seconds: the best of some runs after one to warm up, fewer where the time is up."""
    times: list[float] = []
    while len(times) < 2 or (len(times) <= _REPEATS and time.perf_counter() < until):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
