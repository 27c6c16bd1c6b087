"""Check 10, second part, the binarisation test: does the attack find an adversarial example that certainly exists?

For each image the network's last layer is replaced by a linear read-out of its penultimate features that tells the
clean image and random points inside the ball (class 0) from one random point on the ball's boundary (class 1). So an
adversarial example exists, and the decision boundary lies close to it. An attack that follows useful gradients finds
one nearly always. PGD with restarts, and a longer one on what it misses, that fails on more than 5 % of the images,
beyond chance, is too weak for this network, and its accuracies prove nothing. Random signs are the control: where they
succeed too, passing is easy and says little.
The read-out is fitted by least squares, which is exact with fewer points than dimensions (the paper: logistic
regression). Only features count that move for this image within the ball: those that a ReLU holds at 0 do not. At most
half as many inner points are taken: with nearly as many, chance rules the exact fit. Logits are as far
apart as the network's own, so that a loss which saturates there saturates here.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks import PGD, RandomSigns
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.comparison import pgd
from shconv.audit.checks.penultimate import Binary, Features
from shconv.audit.checks.side import Batch, cost_of, made_by, measured, right, size
from shconv.audit.findings import Finding, Flags
from shconv.audit.words import of
from shconv.experiments.network import routed
from shconv.intervals import wilson

NUMBER = 10
NAME = "binarisation test"
SOURCE = "Zimmermann et al. 2022, Increasing Confidence in Adversarial Robustness Evaluations"
PASS = 0.95
INNER = 0.95  # of the radius: inner points lie within
CLOSE = 0.95  # of the way from the inner points to the boundary point lies the decision boundary
RESTARTS = 3  # at least
DRAWS = 200  # random signs, the control
LIVE = 1e-3  # of the standard deviation of the feature that moves most: below it a feature counts as held
LONGER = 4  # times as many steps, where PGD misses
FEWEST = 2  # inner points


class Readout(NamedTuple):
    w: Tensor  # (n, F)
    b: Tensor  # (n,)
    scale: Tensor  # (n,)
    separated: Flags  # (n,), whether it tells the boundary point from all inner ones
    points: NDArray[np.int64]  # (n,), inner points that it was fitted to


def applies(audit: Audit) -> str:
    return Features(audit.subject, audit.images[:2]).missing


def cost(audit: Audit) -> Cost:
    n = size(audit, audit.effort.binarisation_images)
    attack = cost_of(_attack(audit), n).times(len(audit.subject.routes))
    return attack + cost_of(_control(audit), n) + Cost(audit.effort.binarisation_points + 5).times(n)


def run(audit: Audit) -> Finding:
    features = Features(audit.subject, audit.images[:2])
    points = min(audit.effort.binarisation_points, features.size // 2)
    if points < FEWEST:
        return Finding(None, f"{features.size} features are too few for the test.")

    def measure(batch: Batch) -> dict[str, NDArray[Any]]:
        readout = fit(audit, features, batch, points)
        inner = batch._replace(y=torch.zeros_like(batch.y))
        network = Binary(features, readout.w, readout.b, readout.scale).eval()
        control = ~right(network, made_by(audit, _control(audit), network, inner), inner.y)
        broken = {route: _broken(audit, features, readout, inner, route) for route in audit.subject.routes}
        return {"separated": readout.separated, "points": readout.points, "control": control, **broken}

    return _finding(audit, features, measured(audit, audit.effort.binarisation_images, measure))


def _broken(audit: Audit, features: Features, readout: Readout, batch: Batch, route: str) -> Flags:
    """(n,): in which binarised networks PGD finds an example, or a longer PGD does."""
    broken: Flags = ~readout.separated
    for attack in (_attack(audit), replace(_attack(audit), steps=LONGER * audit.effort.usual_steps)):
        if broken.all():
            break
        rest = torch.from_numpy(np.flatnonzero(~broken)).to(batch.x.device)
        network = Binary(features, *(each[rest] for each in readout[:3])).eval()
        part = Batch(*(each[rest] for each in batch))
        with routed(network, route) as seen:
            made = made_by(audit, attack, seen, part)
        broken[~broken] = ~right(network, made, part.y)
    return broken & readout.separated


def _finding(audit: Audit, features: Features, found: dict[str, NDArray[Any]]) -> Finding:
    separated, points, attack = found.pop("separated"), found.pop("points"), _attack(audit)
    n = int(separated.sum())
    hits = {name: int(flags[separated].sum()) for name, flags in found.items()}
    alarm = None if not n else wilson(hits["both"], n)[1] < PASS
    numbers: dict[str, Any] = {
        "images": n,
        "inner_points": [int(each(points[separated])) if n else 0 for each in (np.min, np.max)],
        "features": features.size,
        "successes": hits,
        "interval": wilson(hits["both"], n),
        "not_separated": len(separated) - n,
    }
    return Finding(alarm, text(f"PGD-{attack.steps}x{attack.restarts}", alarm, numbers), numbers)


def text(attack: str, alarm: bool | None, numbers: Mapping[str, Any]) -> str:
    """On how many binarised networks the attack and the control succeed, and what the interval says of that."""
    n, hits, (low, high) = numbers["images"], numbers["successes"], numbers["inner_points"]
    verdict = "No read-out could be fitted"
    if alarm:
        verdict = "PGD misses more than 5 % of the examples that exist"
    elif alarm is False:
        verdict = "PGD finds at least 95 % of the examples that exist"
        if hits["both"] / n < PASS:
            verdict = f"{n} images are too few to say whether PGD misses more than 5 % of the examples that exist"
    without = f"; {numbers['not_separated']} images could not be separated" if numbers["not_separated"] else ""
    said = [
        f"{verdict}: {attack} succeeds on {of(hits['both'], n)} binarised networks, {DRAWS} random signs on "
        f"{of(hits['control'], n)} ({low if low == high else f'{low} to {high}'} inner points, {numbers['features']} "
        f"features{without})."
    ]
    if "convolution" in hits:
        said.append(f"Through the convolution route PGD succeeds on {of(hits['convolution'], n)}.")
    if alarm is False and hits["control"] > n / 2:
        said.append("Random signs succeed so often that this says little.")
    return " ".join(said)


@torch.no_grad()
def fit(audit: Audit, features: Features, batch: Batch, points: int) -> Readout:
    """A read-out for each image: -1 at the clean image and inner points, up to `points`, 1 at a boundary point."""
    x, epsilon = batch.x, audit.setting.eps
    rng = audit.generator(NAME, int(batch.places[0]))
    noise = [rng.uniform(-INNER * epsilon, INNER * epsilon, tuple(x.shape)) for _ in range(points - 1)]
    corner = epsilon * (2.0 * rng.integers(0, 2, tuple(x.shape)) - 1)
    moves = [np.zeros(tuple(x.shape)), *noise, corner]
    f = torch.stack([features((x + torch.from_numpy(d).to(x)).clamp(0, 1)) for d in moves], 1).double()  # (n, P + 1, F)
    fitted = [_fitted(each) for each in f.cpu()]
    w = torch.stack([w for w, _, _ in fitted]).to(x)
    b = torch.stack([b for _, b, _ in fitted]).to(x) - (2 * CLOSE - 1)
    used = np.array([k for _, _, k in fitted])
    s = ((f.to(x) * w[:, None]).sum(2) + b[:, None]).cpu().numpy()  # (n, P + 1)
    fitted_to = np.arange(points) < used[:, None]
    separated = ((s[:, :-1] < 0) | ~fitted_to).all(1) & (s[:, -1] > 0) & (used >= FEWEST)
    logits = audit.subject.model(x)
    spread = (logits.amax(1) - logits.amin(1)).clamp(1e-3, 1e6) / 2
    return Readout(w, b, spread, separated, used)


def _fitted(f: Tensor) -> tuple[Tensor, Tensor, int]:
    """The shortest w (F,) with its b () of a read-out of features f (P + 1, F), the boundary point's last, and how many
    inner points it fits: at most half as many as features that move."""
    moves = f.std(0)
    live = int((moves > LIVE * moves.amax()).sum())
    k = min(len(f) - 1, live // 2)
    wanted, points = torch.cat([f.new_full((k, 1), -1.0), f.new_ones(1, 1)]), torch.cat([f[:k], f[-1:]])
    centre = points.mean(0)
    w = torch.linalg.lstsq(points - centre, wanted - wanted.mean(), driver="gelsd").solution[:, 0]
    return w, wanted.mean() - w @ centre, k


def _attack(audit: Audit) -> PGD:
    return pgd(audit, restarts=max(audit.effort.restarts, RESTARTS))


def _control(audit: Audit) -> RandomSigns:
    return RandomSigns(audit.setting.eps, draws=DRAWS)
