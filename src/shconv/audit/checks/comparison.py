"""The attacks that checks 1, 2 and 5 run side by side on one sample of images, whether broken before or not. They share
labels, so the audit computes each once, whichever check asks first."""

from dataclasses import replace

import numpy as np

from shconv.attacks import PGD
from shconv.audit.audit import Audit
from shconv.audit.findings import Flags, Outcome
from shconv.report.computed.intervals import Paired


def compared(audit: Audit) -> Flags:
    return audit.sample(audit.effort.compared_images)


def usual_steps(audit: Audit) -> int:
    """Of the white box that routes and transfer are compared with."""
    return audit.effort.steps[1]


def one_step(audit: Audit) -> PGD:
    """FGSM on the true class: one step of the whole radius from the clean image (Goodfellow et al. 2015)."""
    return PGD(audit.setting.eps, steps=1, random_start=False, step_size=audit.setting.eps)


def pgd(audit: Audit, steps: int, restarts: int = 1) -> PGD:
    """Cross-entropy, random starts; an image that is broken stays as it is."""
    return PGD(audit.setting.eps, steps=steps, restarts=restarts, until_broken=True)


def run_margin(audit: Audit, steps: int) -> Outcome:
    """As run_pgd, but on the margin of the logits, which does not saturate."""
    attack = replace(pgd(audit, steps), loss="margin")
    return audit.attack(f"PGD-{steps} margin", attack, on=compared(audit))


def run_one_step(audit: Audit, route: str = "both") -> Outcome:
    return audit.attack("one step", one_step(audit), on=compared(audit), route=route)


def run_pgd(audit: Audit, steps: int, restarts: int = 1, route: str = "both") -> Outcome:
    label = f"PGD-{steps}" + (f"x{restarts}" if restarts > 1 else "")
    return audit.attack(label, pgd(audit, steps, restarts), on=compared(audit), route=route)


def counts(first: Outcome, *second: Outcome) -> Paired:
    """Who leaves which image right: the first attack, and the second ones together, where all came to the image."""
    both = np.logical_and.reduce([first.attempted, *(each.attempted for each in second)])
    broken = np.logical_or.reduce([each.success for each in second])
    return Paired.of(~first.success[both], ~broken[both])


def left(counts: Paired) -> tuple[int, int]:
    """How many of the counted images the first attack leaves right, and how many the second."""
    return counts.both + counts.only_first, counts.both + counts.only_second
