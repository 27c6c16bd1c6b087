"""Check 4: does more room for the attack mean less accuracy, down to nothing?

A cheap PGD runs with radii from 0 to 1 on the same images. A larger ball contains the smaller one, so accuracy cannot
truly rise with the radius; at 0.5 any image can become plain grey, so no classifier can stay above chance; at 1 any
image can become any other, so none can stay right. Where the measured curve says otherwise it is the attack that fails,
and with it every accuracy measured by it at smaller radii. At 0.5 and 1 the attack starts on the clean image, since a
random start in so large a ball breaks networks without any gradient, and images left over get a longer attack first.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shconv.attacks import PGD
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.side import Batch, batches, cost_of, made_by, right, size
from shconv.audit.findings import Finding, Flags
from shconv.audit.words import of, percent
from shconv.intervals import wilson
from shconv.numbers import radius_text
from shconv.paired import Paired

NUMBER = 4
NAME = "budget curve"
SOURCE = "Carlini et al. 2019; Athalye et al. 2018"
GREY, ALL = 0.5, 1.0
BETWEEN = (32 / 255, 2 / 255, 16 / 255, 4 / 255, 64 / 255, 1 / 255, 8 / 255)  # in the order in which they join


class Curve(NamedTuple):
    """Accuracy by radius."""

    radii: list[float]
    standing: NDArray[np.bool_]  # (E, n), which images are left right
    classes: int

    @property
    def accuracy(self) -> NDArray[np.float64]:
        shares: NDArray[np.float64] = self.standing.mean(1)
        return shares

    def faults(self) -> list[str]:
        """In words, what no true curve can do."""
        n, rows, found = self.standing.shape[1], list(zip(self.radii, self.standing, strict=True)), []
        for (small, before), (large, after) in pairwise(rows):
            if Paired.of(after, before).interval[0] > 0:
                low, high = f"{percent(before.mean())} at {radius_text(small)}", percent(after.mean())
                found.append(f"accuracy rises from {low} to {high} at {radius_text(large)}")
        grey, everything = (int(self.standing[self.radii.index(radius)].sum()) for radius in (GREY, ALL))
        if wilson(grey, n)[0] > 1 / self.classes:
            found.append(f"at 0.5 the accuracy is {of(grey, n)}, above the {percent(1 / self.classes)} of guessing")
        if everything:
            found.append(f"at 1 the accuracy is {of(everything, n)}")
        return found

    def text(self) -> str:
        faults, rises = self.faults(), bool((np.diff(self.accuracy) > 0).any())
        verdict = (
            "The curve rises nowhere significantly, and ends as it must" if rises else "The curve falls as it must"
        )
        verdict = f"The attack fails where no attack can fail: {'; '.join(faults)}" if faults else verdict
        shown = ", ".join(
            f"{radius_text(at)}: {percent(share)}" for at, share in zip(self.radii, self.accuracy, strict=True)
        )
        return f"{verdict}. Accuracy on {self.standing.shape[1]} images by L-infinity radius, {shown}."


def cost(audit: Audit) -> Cost:
    n = size(audit, audit.effort.curve_images)
    cheap = (cost_of(_cheap(audit, radius), n) + Cost(2 * n) for radius in radii(audit))
    return sum(cheap, cost_of(_long(audit, ALL), 2 * n))


def run(audit: Audit) -> Finding:
    on, curve_radii = audit.sample(audit.effort.curve_images), radii(audit)
    parts = [[_left(audit, radius, batch) for radius in curve_radii] for batch in batches(audit, on)]
    curve = Curve(curve_radii, np.concatenate(parts, axis=1), audit.subject.classes)
    faults, chance = curve.faults(), 1 / curve.classes
    numbers = {"images": curve.standing.shape[1], "epsilon": curve_radii, "accuracy": curve.accuracy.tolist()}
    arrays = {"epsilon": np.array(curve_radii), "accuracy": curve.accuracy, "chance": np.array(chance)}
    return Finding(bool(faults), curve.text(), {**numbers, "chance": chance, "faults": faults}, arrays, "budget")


def radii(audit: Audit) -> list[float]:
    """0, the audit's own, 0.5 and 1 in any case, others between them as far as the effort goes."""
    fixed = [0.0, audit.setting.eps, GREY, ALL]
    more = [radius for radius in BETWEEN if abs(radius - audit.setting.eps) > 1e-3]
    return sorted({*fixed, *more[: max(audit.effort.curve_points - len(fixed), 0)]})


def _left(audit: Audit, radius: float, batch: Batch) -> Flags:
    """Which images of a batch (n,) stay right."""
    model = audit.subject.model
    flags = right(model, made_by(audit, _cheap(audit, radius), model, batch), batch.y)
    if radius in (GREY, ALL) and flags.any():
        rest = Batch(*(each[torch.from_numpy(flags).to(each.device)] for each in batch))
        flags[flags] = right(model, made_by(audit, _long(audit, radius), model, rest), rest.y)
    return flags


def _cheap(audit: Audit, radius: float) -> PGD:
    return PGD(radius, steps=audit.effort.curve_steps, random_start=radius not in (GREY, ALL), until_broken=True)


def _long(audit: Audit, radius: float) -> PGD:
    return PGD(radius, steps=4 * audit.effort.usual_steps, random_start=False, until_broken=True)
