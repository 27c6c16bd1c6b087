"""What several checks share: attacks beside the ledger, gradients, choices of images, and numbers in words.
A side attack may leave the audit's ball or take an altered network; it never counts for the worst case."""

import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import Attack
from shconv.attacks.cost import Cost
from shconv.attacks.losses import gradient_at
from shconv.audit.audit import Audit
from shconv.audit.findings import Flags
from shconv.audit.subject import AuditedNetwork, Subject, drawing
from shconv.metrics import is_right

FEW = 32  # images of a batch, where a check may have to end early
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, K), labels (N,) -> (N,)


class Batch(NamedTuple):
    """Some of the audit's images."""

    x: Tensor  # (n, C, H, W)
    y: Tensor  # (n,)
    places: Tensor  # (n,), in the data set


def batches(audit: Audit, on: Flags) -> Iterator[Batch]:
    """The chosen images, some at a time, while there is time left; the first batch comes in any case.

    Few where time is short, so that what has been seen so far is an answer.
    """
    rows, size = torch.from_numpy(np.flatnonzero(on)), audit.setting.batch_size
    size = size if math.isinf(audit.remaining()) else min(size, FEW)
    for start in range(0, len(rows), size):
        if start and audit.remaining() <= 0:
            return
        at = rows[start : start + size]
        yield Batch(*(each[at.to(each.device)] for each in (audit.images, audit.labels, audit.index)))


def measured(audit: Audit, n: int, measure: Callable[[Batch], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """By name, each (n,), what is measured of a sample of n images, some at a time."""
    parts = [measure(batch) for batch in batches(audit, audit.sample(n))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def size(audit: Audit, n: int) -> int:
    """Of a sample of n images, where there are so many."""
    return int(audit.sample(n).sum())


def made_by(audit: Audit, attack: Attack, model: nn.Module, batch: Batch) -> Tensor:
    """The examples that an attack makes of a batch on any network."""
    with drawing(audit.subject.is_random, "side", audit.setting.seed):
        return attack.run(model, batch.x, batch.y, index=batch.places, seed=audit.setting.seed).images


@torch.no_grad()
def right(model: nn.Module, x: Tensor, y: Tensor) -> Flags:
    """Which images (n, C, H, W) a fresh forward pass classifies as y, (n,); one without an answer is wrong."""
    logits = (model.as_returned if isinstance(model, AuditedNetwork) else model)(x)
    flags: Flags = is_right(logits, y).cpu().numpy()
    return flags


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """d loss / dx (n, C, H, W), each image's own; zero where the network passes no gradient on."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        return gradient_at(x, loss(model(x), y))


@torch.no_grad()
def loss_at(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> NDArray[np.float64]:
    """(n,)"""
    values: NDArray[np.float64] = loss(model(x), y).double().cpu().numpy()
    return values


def at_most(audit: Audit, flags: Flags, n: int, *words: object) -> Flags:
    """A seeded choice of n of the flagged images, all of them where there are no more."""
    chosen = np.zeros_like(flags)
    chosen[audit.generator(*words).permutation(np.flatnonzero(flags))[:n]] = True
    return chosen


class _SameDraws(nn.Module):
    """A random network that draws the same numbers in every pass, for each place in the batch its own."""

    steady = False  # Python runs at every call, which a replayed graph would leave out
    holds_a_batch = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with drawing(True, "same draws"):
            logits: Tensor = self.model(x)
        return logits


def one_function(subject: Subject) -> nn.Module:
    """The network, with fixed draws where it is random: values at two points then differ by the points alone."""
    return _SameDraws(subject.model).eval() if subject.is_random else subject.model


def cost_of(attack: Attack, n: float) -> Cost:
    """Of an attack on n images."""
    return (attack.cost or Cost(0)).times(n)


def missing(package: str) -> str:
    """ "" where an optional package can be imported, else what to say."""
    return "" if find_spec(package) else f"{package} is not installed (pip install {package})"
