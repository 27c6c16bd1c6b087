"""Check 10, first part: does the attack show signs of having failed, whatever accuracy it reports?

PGD runs while everything it sees is written down: the logits and the gradient's norm at every point of its path. The
six indicators of Pintor et al. (2022), as far as they apply: gradients that are unavailable (zero before the image is
broken), predictions that are unstable under slight noise, silent success (a point on the path is wrong, the returned
one is not), incomplete optimisation (the loss still rises at the end), and failure without a budget. Their sixth,
failure to transfer from a surrogate, cannot arise: the network attacked is the network judged. Each says that the
attack, and not the network, decides the accuracy. Break-point angle and falling steps, of their first version, are
reported beside them.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import PGD
from shconv.attacks.cost import Cost
from shconv.attacks.losses import margin
from shconv.audit.audit import Audit
from shconv.audit.checks.comparison import pgd
from shconv.audit.checks.side import Batch, cost_of, cross_entropy, loss_at, made_by, measured, right, size
from shconv.audit.findings import Finding
from shconv.audit.words import of, percent

NUMBER = 10
NAME = "indicators of attack failure"
SOURCE = "Pintor et al. 2022, Indicators of Attack Failure"
DRAWS = 10  # of noise
UNAVAILABLE, UNSTABLE, RISING, MOSTLY = 0.05, 0.1, 0.05, 0.5
LAST = 0.2  # of the steps, in which a finished climb no longer rises
FEWEST = 5  # images standing, to speak of most of them


class Seen(nn.Module):
    """A network that writes down what an attack sees of it, for images whose classes are y (n,).

    losses: cross-entropy at each of P points, (n,). wrong: whether it is misclassified there. norms: of the gradients
    that the attack took, at points on the way.
    """

    steady = False  # Python runs at every call, which a replayed graph would leave out
    holds_a_batch = True

    def __init__(self, model: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.model, self.y = model, y
        self.losses: list[Tensor] = []
        self.wrong: list[Tensor] = []
        self.norms: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.losses.append(cross_entropy(logits.detach(), self.y))
        self.wrong.append(logits.detach().argmax(1) != self.y)
        if x.requires_grad:
            self.norms.append(torch.zeros(len(x), device=x.device))  # stays where the network has no gradient at all
            x.register_hook(partial(self._note, len(self.norms) - 1))
        return logits

    def path(self) -> list[NDArray[Any]]:
        """losses (P, n), wrong (P, n) and norms (G, n)"""
        return [torch.stack(each).cpu().numpy() for each in (self.losses, self.wrong, self.norms)]

    def _note(self, at: int, g: Tensor) -> None:
        self.norms[at] = g.detach().flatten(1).norm(dim=1)


def cost(audit: Audit) -> Cost:
    n = size(audit, audit.effort.indicator_images)
    return cost_of(pgd(audit), n) + cost_of(_unbounded(audit), n) + Cost(DRAWS + 3).times(n)


def run(audit: Audit) -> Finding:
    rng = audit.generator(NAME)
    found = measured(audit, audit.effort.indicator_images, lambda batch: indicators(audit, batch, rng))
    raised, standing, n = list(faults(found)), found["standing"].astype(bool), len(found["standing"])
    unstable = float(np.median(found["unstable"]))
    numbers: dict[str, Any] = {
        "images": n,
        "standing": int(standing.sum()),
        "unavailable_gradients": int(found["unavailable"].sum()),
        "unstable_predictions": unstable,
        "silent_success": int(found["silent"].sum()),
        "incomplete_optimisation": int(found["incomplete"][standing].sum()),
        "unconstrained_failure": int(found["unconstrained"].sum()),
        "break_point_angle": float(np.median(found["angle"][standing])) if standing.any() else None,
        "falling_steps": float(found["falling"].mean()),
        "raised": raised,
    }
    verdict = f"Raised: {', '.join(raised)}" if raised else "No indicator is raised"
    text = (
        f"{verdict}. On {n} images under PGD-{audit.effort.usual_steps}: zero gradients on "
        f"{numbers['unavailable_gradients']}; predictions vary by {percent(unstable)} under slight noise; silent "
        f"success on {numbers['silent_success']}; the loss still rises on "
        f"{of(numbers['incomplete_optimisation'], numbers['standing'])} that survive; "
        f"{of(numbers['unconstrained_failure'], n)} survive an attack without a budget."
    )
    return Finding(bool(raised), text, numbers)


def faults(found: dict[str, NDArray[Any]]) -> Iterator[str]:
    """The indicators that are raised, by name."""
    left = found["standing"].astype(bool)
    if found["unavailable"].mean() >= UNAVAILABLE:
        yield "unavailable gradients"
    if np.median(found["unstable"]) > UNSTABLE:
        yield "unstable predictions"
    if found["silent"].any():
        yield "silent success"
    if left.sum() >= FEWEST and found["incomplete"][left].mean() > MOSTLY:
        yield "incomplete optimisation"
    if found["unconstrained"].any():
        yield "unconstrained attack failure"


def indicators(audit: Audit, batch: Batch, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """By name, each (n,)."""
    model, (x, y, _) = audit.subject.model, batch
    seen = Seen(model, y)
    standing = right(model, made_by(audit, pgd(audit), seen, batch), y)
    loss, wrong, norm = seen.path()
    before = ~np.logical_or.accumulate(wrong[: len(norm)])  # not broken yet
    climb = rescaled(loss)
    return {
        "standing": standing,
        "unavailable": ((norm == 0) & before).any(0),
        "unstable": variation(model, x, y, audit.setting.eps / 8, rng),
        "silent": wrong.any(0) & standing,
        "incomplete": still_rising(climb),
        "angle": break_point_angle(climb),
        "falling": (np.diff(loss, axis=0) < 0).mean(0),
        "unconstrained": right(model, made_by(audit, _unbounded(audit), model, batch), y),
    }


def rescaled(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best loss so far (P, n), from 0 at the first point to 1 at the last; 0 throughout where it never rises."""
    best = np.maximum.accumulate(loss)
    gain = best[-1] - best[0]
    climb: NDArray[np.float64] = (best - best[0]) / np.where(gain > 0, gain, 1.0)
    return climb


def still_rising(climb: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether more than 5 % of the rise falls into the last fifth of the steps; (n,)."""
    last = max(1, round(LAST * (len(climb) - 1)))
    flags: NDArray[np.bool_] = climb[-1] - climb[-1 - last] > RISING
    return flags


def break_point_angle(climb: NDArray[np.float64]) -> NDArray[np.float64]:
    """|cos| of the angle at the point of the curve furthest from the line through its ends, (n,): near 1 where the
    loss rises evenly to the end, so that more steps would help, smaller where it has flattened."""
    t = np.linspace(0, 1, len(climb))[:, None]
    at = np.argmax(np.abs(climb - t * climb[-1]), axis=0)
    corner = np.stack([t[at, 0], climb[at, np.arange(climb.shape[1])]])
    back, on = -corner, np.stack([np.ones(climb.shape[1]), climb[-1]]) - corner
    lengths = np.linalg.norm(back, axis=0) * np.linalg.norm(on, axis=0)
    cosines: NDArray[np.float64] = np.abs((back * on).sum(0)) / np.where(lengths > 0, lengths, 1.0)
    return np.where(lengths > 0, cosines, 1.0)


def variation(model: nn.Module, x: Tensor, y: Tensor, radius: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mean change of the margin under uniform noise within radius, over its size on the image, at most 1; (n,)."""
    start = loss_at(model, x, y, margin)
    changes = []
    for _ in range(DRAWS):
        noise = torch.from_numpy(rng.uniform(-radius, radius, tuple(x.shape))).to(x)
        changes.append(np.abs(loss_at(model, (x + noise).clamp(0, 1), y, margin) - start))
    mean: NDArray[np.float64] = np.mean(changes, axis=0) / np.maximum(np.abs(start), 1e-12)
    return np.minimum(mean, 1.0)


def _unbounded(audit: Audit) -> PGD:
    """It may go anywhere in [0, 1]."""
    return PGD(1.0, steps=audit.effort.usual_steps, restarts=3, until_broken=True)
