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
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import PGD
from shconv.attacks.cost import Cost
from shconv.attacks.losses import margin
from shconv.audit.audit import Audit
from shconv.audit.checks.comparison import pgd, usual_steps
from shconv.audit.checks.side import Batch, batches, cost_of, cross_entropy, loss_at, made_by, of, percent, right
from shconv.audit.findings import Finding, Flags

NUMBER = 10
NAME = "indicators of attack failure"
SOURCE = "Pintor et al. 2022, Indicators of Attack Failure"
ALARM = (
    "zero gradients on 5 % of the images, predictions that vary by more than 10 % under slight noise, any silent "
    "success, a loss still rising on most images left standing, or any image standing without a budget"
)
DRAWS = 10  # of noise
UNAVAILABLE, UNSTABLE, RISING, MOSTLY = 0.05, 0.1, 0.05, 0.5
LAST = 0.2  # of the steps, in which a finished climb no longer rises
FEWEST = 5  # images standing, to speak of most of them


class Path(NamedTuple):
    """What an attack saw of n images, with P points each."""

    loss: NDArray[np.float64]  # (P, n), cross-entropy
    wrong: NDArray[np.bool_]  # (P, n)
    norm: NDArray[np.float64]  # (G, n), of the gradients it took, at points on the way


class Seen(nn.Module):
    """A network that writes down what an attack sees of it, for images whose classes are y (n,)."""

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

    def path(self) -> Path:
        held = (torch.stack(each).cpu().numpy() for each in (self.losses, self.wrong, self.norms))
        return Path(*held)

    def _note(self, at: int, g: Tensor) -> None:
        self.norms[at] = g.detach().flatten(1).norm(dim=1)


def applies(audit: Audit) -> str:
    return ""


def cost(audit: Audit) -> Cost:
    n = int(audit.sample(audit.effort.indicator_images).sum())
    return cost_of(pgd(audit, usual_steps(audit)), n) + cost_of(_unbounded(audit), n) + Cost(DRAWS + 3).times(n)


def run(audit: Audit) -> Finding:
    rng, parts = audit.generator(NAME), []
    for batch in batches(audit, audit.sample(audit.effort.indicator_images)):
        parts.append(indicators(audit, batch, rng))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    raised, n = list(faults(found)), len(found["standing"])
    left = found["standing"].astype(bool)
    unstable = float(np.median(found["unstable"]))
    counted = {name: int(found[name].sum()) for name in ("unavailable", "silent", "unconstrained")}
    numbers: dict[str, Any] = {
        "images": n,
        "standing": int(left.sum()),
        "unavailable_gradients": counted["unavailable"],
        "unstable_predictions": unstable,
        "silent_success": counted["silent"],
        "incomplete_optimisation": int(found["incomplete"][left].sum()),
        "unconstrained_failure": counted["unconstrained"],
        "break_point_angle": float(np.median(found["angle"][left])) if left.any() else None,
        "falling_steps": float(found["falling"].mean()),
        "raised": raised,
    }
    verdict = f"Raised: {', '.join(raised)}" if raised else "No indicator is raised"
    rising = of(numbers["incomplete_optimisation"], numbers["standing"])
    text = (
        f"{verdict}. On {n} images under PGD-{usual_steps(audit)}: zero gradients on {counted['unavailable']}; "
        f"predictions vary by {percent(unstable)} under slight noise; silent success on {counted['silent']}; the loss "
        f"still rises on {rising} that survive; {of(counted['unconstrained'], n)} survive an attack without a budget."
    )
    return Finding(NUMBER, NAME, bool(raised), text, numbers, SOURCE)


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
    standing = right(model, made_by(audit, pgd(audit, usual_steps(audit)), seen, batch), y)
    path = seen.path()
    before = ~np.logical_or.accumulate(path.wrong[: len(path.norm)])  # not broken yet
    climb = rescaled(path.loss)
    return {
        "standing": standing,
        "unavailable": ((path.norm == 0) & before).any(0),
        "unstable": variation(model, x, y, audit.setting.eps / 8, rng),
        "silent": path.wrong.any(0) & standing,
        "incomplete": still_rising(climb),
        "angle": break_point_angle(climb),
        "falling": (np.diff(path.loss, axis=0) < 0).mean(0),
        "unconstrained": _stands(audit, batch),
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


def _stands(audit: Audit, batch: Batch) -> Flags:
    """Against an attack that may go anywhere in [0, 1]."""
    model = audit.subject.model
    return right(model, made_by(audit, _unbounded(audit), model, batch), batch.y)


def _unbounded(audit: Audit) -> PGD:
    return PGD(1.0, steps=usual_steps(audit), restarts=3, until_broken=True)
