"""The attacks that checks 1, 2 and 5 run side by side on one sample of images, whether broken before or not. They share
labels, so the audit computes each once, whichever check asks first."""

import numpy as np

from shconv.attacks import PGD
from shconv.attacks.losses import Loss
from shconv.audit.audit import Audit
from shconv.audit.findings import Flags, Outcome, any_of
from shconv.paired import Paired


def compared(audit: Audit) -> Flags:
    return audit.sample(audit.effort.compared_images)


def one_step(audit: Audit) -> PGD:
    """FGSM on the true class: one step of the whole radius from the clean image (Goodfellow et al. 2015)."""
    return PGD(audit.setting.eps, steps=1, random_start=False, step_size=audit.setting.eps)


def pgd(audit: Audit, steps: int | None = None, restarts: int = 1, loss: Loss = "cross_entropy") -> PGD:
    """Random starts, the usual steps; an image that is broken stays as it is."""
    steps = audit.effort.usual_steps if steps is None else steps
    return PGD(audit.setting.eps, steps=steps, restarts=restarts, loss=loss, until_broken=True)


def run_one_step(audit: Audit, route: str = "both") -> Outcome:
    return audit.attack("one step", one_step(audit), on=compared(audit), route=route)


def run_pgd(
    audit: Audit, steps: int | None = None, restarts: int = 1, loss: Loss = "cross_entropy", route: str = "both"
) -> Outcome:
    attack = pgd(audit, steps, restarts, loss)
    label = f"PGD-{attack.steps}" + (f"x{restarts}" if restarts > 1 else "") + (" margin" if loss == "margin" else "")
    return audit.attack(label, attack, on=compared(audit), route=route)


def counts(first: Outcome, *second: Outcome) -> Paired:
    """Who leaves which image right: the first attack, and the second ones together, where all came to the image."""
    both = np.logical_and.reduce([first.attempted, *(each.attempted for each in second)])
    broken = any_of([each.success for each in second], len(both))
    return Paired.of(~first.success[both], ~broken[both])


def left(counts: Paired) -> tuple[int, int]:
    """How many of the counted images the first attack leaves right, and how many the second."""
    return counts.both + counts.only_first, counts.both + counts.only_second
