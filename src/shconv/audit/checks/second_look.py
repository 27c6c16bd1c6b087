"""Before a search without gradients counts as beating the white box, the white box looks again at what it missed:
a long PGD on both losses, through the network's routes. Only what still stands then was hidden from gradients."""

from typing import NamedTuple

import numpy as np

from shconv.attacks import PGD
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.side import cost_of
from shconv.audit.findings import Flags

MOST = 8  # images: enough to tell
LIKELY = 0.1  # of the images that searches try, for a plan: they seldom break what gradients left


class Look(NamedTuple):
    seen: int  # images that met every attack, or fell to one
    hidden: int  # of them, those that none breaks


def second_look(audit: Audit, broken: Flags, by: str) -> Look:
    """Does a long white-box attack break the broken images (N,), of which the first MOST are looked at?"""
    missed = np.zeros_like(broken)
    missed[np.flatnonzero(broken)[:MOST]] = True
    seen = missed.copy()
    for route in audit.subject.routes:
        for attack in _attacks(audit):
            if missed.any():
                label = f"second look after {by}, {attack.loss.replace('_', '-')}"
                outcome = audit.attack(label, attack, on=missed, route=route)
                seen &= outcome.attempted | ~missed
                missed &= outcome.attempted & ~outcome.success
    return Look(int(seen.sum()), int(missed.sum()))


def cost(audit: Audit, images: int) -> Cost:
    """Of a look at what a search is likely to break of so many images: no upper bound."""
    total = Cost(0)
    for attack in _attacks(audit):
        total += cost_of(attack, min(LIKELY * images, MOST) * len(audit.subject.routes))
    return total


def _attacks(audit: Audit) -> list[PGD]:
    """Where the network has no gradient at all a short look is as good as a long one."""
    steps, restarts = (audit.effort.steps[1], 1) if audit.blind else (2 * audit.effort.steps[-1], 5)
    return [
        PGD(audit.setting.eps, steps=steps, restarts=restarts, loss=loss, until_broken=True)
        for loss in ("cross_entropy", "margin")
    ]
