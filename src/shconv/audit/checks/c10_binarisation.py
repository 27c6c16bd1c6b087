"""Check 10, second part, the binarisation test: does the attack find an adversarial example that certainly exists?

For each image the network's last layer is replaced by a linear read-out of its penultimate features that tells the
clean image and random points inside the ball (class 0) from one random point on the ball's boundary (class 1). So an
adversarial example exists, and the decision boundary lies close to it. An attack that follows useful gradients finds
one nearly always; PGD with restarts failing on more than 5 % of the images is too weak for this network, and its
accuracies prove nothing. Random signs are the control: where they succeed too, passing is easy and says little.
The read-out is fitted by least squares, which is exact with fewer points than features (the paper: logistic
regression). At most half as many inner points as features are taken: with nearly as many, chance rules the exact fit
and random signs pass too. Logits are as far apart as the network's own, so that a loss which saturates there saturates
here.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from shconv.attacks import PGD, RandomSigns
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.comparison import pgd, usual_steps
from shconv.audit.checks.penultimate import Binary, Features
from shconv.audit.checks.side import Batch, batches, cost_of, made_by, of, right
from shconv.audit.findings import Finding, Flags
from shconv.experiments.network import routed

NUMBER = 10
NAME = "binarisation test"
SOURCE = "Zimmermann et al. 2022, Increasing Confidence in Adversarial Robustness Evaluations"
ALARM = "PGD succeeds on fewer than 95 % of the binarised networks"
PASS = 0.95
INNER = 0.95  # of the radius: inner points lie within
CLOSE = 0.95  # of the way from the inner points to the boundary point lies the decision boundary
RESTARTS = 3  # at least
DRAWS = 200  # random signs, the control
MISSES = "PGD misses more than 5 % of the examples that exist"
FINDS = "PGD finds at least 95 % of the examples that exist"


class Readout(NamedTuple):
    w: Tensor  # (n, F)
    b: Tensor  # (n,)
    scale: Tensor  # (n,)
    separated: Flags  # (n,), whether it tells the boundary point from all inner ones


def applies(audit: Audit) -> str:
    return Features(audit.subject, audit.images[:2]).missing


def cost(audit: Audit) -> Cost:
    n = int(audit.sample(audit.effort.binarisation_images).sum())
    routes = 2 if audit.subject.is_shc else 1
    attack = cost_of(_attack(audit), n).times(routes)
    return attack + cost_of(_control(audit), n) + Cost(audit.effort.binarisation_points + 5).times(n)


def run(audit: Audit) -> Finding:
    features = Features(audit.subject, audit.images[:2])
    points = min(audit.effort.binarisation_points, features.size // 2)
    if points < 2:
        return Finding(NUMBER, NAME, None, f"{features.size} features are too few for the test.", {}, SOURCE)
    found: dict[str, list[Flags]] = {"separated": [], "control": [], "both": [], "convolution": []}
    for batch in batches(audit, audit.sample(audit.effort.binarisation_images)):
        readout = fit(audit, features, batch, points)
        network = Binary(features, readout.w, readout.b, readout.scale).eval()
        inner = batch._replace(y=torch.zeros_like(batch.y))
        for name in ("both", "convolution") if audit.subject.is_shc else ("both",):
            with routed(network, name) as seen:
                made = made_by(audit, _attack(audit), seen, inner)
            found[name].append(~right(network, made, inner.y))
        found["control"].append(~right(network, made_by(audit, _control(audit), network, inner), inner.y))
        found["separated"].append(readout.separated)
    return _finding(audit, features, points, {name: np.concatenate(each) for name, each in found.items() if each})


def _finding(audit: Audit, features: Features, points: int, found: dict[str, Flags]) -> Finding:
    separated = found.pop("separated")
    n = int(separated.sum())
    steps, restarts = _attack(audit).steps, _attack(audit).restarts
    hits = {name: int(flags[separated].sum()) for name, flags in found.items()}
    alarm = None if not n else hits["both"] / n < PASS
    verdict = {None: "No read-out could be fitted", True: MISSES, False: FINDS}[alarm]
    text = (
        f"{verdict}: PGD-{steps}x{restarts} succeeds on {of(hits['both'], n)} binarised networks, {DRAWS} random "
        f"signs on {of(hits['control'], n)} ({points} inner points, {features.size} features"
        + (f"; {len(separated) - n} images could not be separated)." if n < len(separated) else ").")
        + (
            f" Through the convolution route PGD succeeds on {of(hits['convolution'], n)}."
            if "convolution" in hits
            else ""
        )
        + (
            " Random signs succeed so often that this says little."
            if alarm is False and hits["control"] > n / 2
            else ""
        )
    )
    numbers: dict[str, Any] = {"images": n, "inner_points": points, "features": features.size, "successes": hits}
    return Finding(NUMBER, NAME, alarm, text, {**numbers, "not_separated": len(separated) - n}, SOURCE)


@torch.no_grad()
def fit(audit: Audit, features: Features, batch: Batch, points: int) -> Readout:
    """A read-out for each image: -1 at the clean image and `points` - 1 inner points, 1 at a boundary point."""
    x, epsilon = batch.x, audit.setting.eps
    rng = audit.generator(NAME, int(batch.places[0]))
    noise = [rng.uniform(-INNER * epsilon, INNER * epsilon, tuple(x.shape)) for _ in range(points - 1)]
    corner = epsilon * (2.0 * rng.integers(0, 2, tuple(x.shape)) - 1)
    moves = [np.zeros(tuple(x.shape)), *noise, corner]
    f = torch.stack([features((x + torch.from_numpy(d).to(x)).clamp(0, 1)) for d in moves], 1).double()  # (n, P + 1, F)
    wanted = torch.cat([f.new_full((points, 1), -1.0), f.new_ones(1, 1)])
    fitted = [_least_squares(each, wanted) for each in f.cpu()]
    w = torch.stack([w for w, _ in fitted]).to(x)
    b = torch.stack([b for _, b in fitted]).to(x) - (2 * CLOSE - 1)
    s = ((f.to(x) * w[:, None]).sum(2) + b[:, None]).cpu().numpy()  # (n, P + 1)
    logits = audit.subject.model(x)
    spread = (logits.amax(1) - logits.amin(1)).clamp(1e-3, 1e6) / 2
    return Readout(w, b, spread, (s[:, :-1] < 0).all(1) & (s[:, -1] > 0))


def _least_squares(f: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest w (F,), with its b (), for which <w, f> + b is as wanted (P, 1), from f (P, F)."""
    centre = f.mean(0)
    w = torch.linalg.lstsq(f - centre, wanted - wanted.mean(), driver="gelsd").solution[:, 0]
    return w, wanted.mean() - w @ centre


def _attack(audit: Audit) -> PGD:
    return pgd(audit, usual_steps(audit), restarts=max(audit.effort.restarts, RESTARTS))


def _control(audit: Audit) -> RandomSigns:
    return RandomSigns(audit.setting.eps, draws=DRAWS)
