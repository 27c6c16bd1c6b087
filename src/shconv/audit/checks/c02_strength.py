"""Check 2: does a stronger attack break more, and has the strongest one converged?

One step of the whole radius meets PGD with more and more steps on the same images. An iterated attack can do all that
one step can, so where one step does at least as well, the gradients away from the clean image are useless: robustness
against them is masked. Images on which the loss is linear along the step are no sign of that, as one step is then the
best there is, and are left out. If doubling the steps still breaks more, the attack has not converged and its accuracy
is no bound worth quoting. The check then runs the white-box attacks of the worst case on every image still standing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks import Attack
from shconv.audit.attacks.losses import margin
from shconv.audit.audit import Audit
from shconv.audit.checks import headline
from shconv.audit.checks.comparison import compared, counts, left, one_step, pgd, run_one_step, run_pgd, usual_steps
from shconv.audit.checks.side import Batch, batches, cost_of, gradient, loss_at, made_by, of, percent, points
from shconv.audit.findings import Finding, Outcome
from shconv.audit.setting import Cost

NUMBER = 2
NAME = "attack strength"
SOURCE = "Athalye et al. 2018; Carlini et al. 2019; Croce and Hein 2020"
ALARM = "one step is at least as strong as many, or doubling the steps still gains beyond the 95 % interval"
LINEAR = 0.05  # relative error of the first-order prediction below which the loss counts as linear along the step
TIE = 1e-3  # of the rise in margin


class Climb(NamedTuple):
    """Of the compared images, each (n,)."""

    told: NDArray[np.bool_]  # one of the two leaves it right, and its loss is not linear along the one step
    as_strong: NDArray[np.bool_]  # and one step breaks it alone, or raises its margin as high as the iterated attack


def applies(audit: Audit) -> str:
    return ""


def cost(audit: Audit) -> Cost:
    n = int(compared(audit).sum())
    total = cost_of(one_step(audit), 2 * n) + Cost(4, 1).times(n) + cost_of(pgd(audit, usual_steps(audit)), n)
    for steps in _ladder(audit):
        total += cost_of(pgd(audit, steps), n)
    return total + headline.cost(audit)


def run(audit: Audit) -> Finding:
    once = run_one_step(audit)
    ladder = {steps: run_pgd(audit, steps) for steps in _ladder(audit)}
    half, most = list(ladder.values())[-2:]
    climb = _climb(audit, once, ladder[usual_steps(audit)])
    against, doubled = counts(once, most), counts(half, most)
    told, as_strong = int(climb.told.sum()), int(climb.as_strong.sum())
    weak = against.interval[1] < 0 or (left(against)[1] > 0 and told > 0 and as_strong >= told / 2)
    unsettled = doubled.interval[0] > 0
    (one, many), last = left(against), list(ladder)[-1]
    said = (
        f"One step is {'at least as strong as' if weak else 'weaker than'} many: it leaves {of(one, against.n)} right, "
        f"PGD-{last} {of(many, against.n)}; of the images that it or PGD-{usual_steps(audit)} leaves "
        f"right, and whose loss is not linear along it, it does as well on {of(as_strong, told)}. "
        f"{'PGD has not converged: doubling' if unsettled else 'Doubling'} the steps to {last} changes the accuracy by "
        f"{percent(-doubled.difference)} ({points((-doubled.interval[1], -doubled.interval[0]))})."
    )
    attacks = headline.run(audit)
    rungs = {"one step": once, **{f"PGD-{steps}": outcome for steps, outcome in ladder.items()}}
    accuracy = {
        name: float((~each.success[each.attempted]).mean()) for name, each in rungs.items() if each.attempted.any()
    }
    numbers = {
        "images": against.n,
        "accuracy": accuracy,
        "one_step_as_strong": weak,
        "as_strong": as_strong,
        "compared_margins": told,
        "converged": not unsettled,
        "doubling_gain": doubled.difference,
        "doubling_interval": doubled.interval,
        "headline": headline.summary(attacks),
    }
    return Finding(NUMBER, NAME, weak or unsettled, " ".join([said, *headline.notes(audit)]), numbers, SOURCE)


def _ladder(audit: Audit) -> list[int]:
    """The numbers of steps, the last one twice the one before it."""
    most = audit.effort.steps[-1]
    return sorted({*(steps for steps in audit.effort.steps if steps <= most // 2), max(most // 2, 1), most})


def _climb(audit: Audit, once: Outcome, many: Outcome) -> Climb:
    model, done = audit.subject.model, 0
    told, as_strong = [np.zeros(0, bool)], [np.zeros(0, bool)]
    for batch in batches(audit, once.attempted & many.attempted):
        x, y, _ = batch
        single = _examples(audit, one_step(audit), once, batch, done)
        iterated = _examples(audit, pgd(audit, usual_steps(audit)), many, batch, done)
        start, one, best = (loss_at(model, at, y, margin) for at in (x, single, iterated))
        predicted = (gradient(model, x, y, margin) * (single - x)).flatten(1).sum(1).double().cpu().numpy()
        linear = (predicted > 0) & (np.abs(one - start - predicted) <= LINEAR * np.abs(predicted))
        told.append(~linear & ((one < 0) | (best < 0)))
        as_strong.append(told[-1] & ((best < 0) & (one >= best - TIE * np.abs(best - start))))
        done += len(x)
    return Climb(np.concatenate(told), np.concatenate(as_strong))


def _examples(audit: Audit, attack: Attack, outcome: Outcome, batch: Batch, done: int) -> Tensor:
    """The attack's examples of a batch, before which `done` images came: made again if an earlier check made them."""
    if outcome.adversarial is None:
        return made_by(audit, attack, audit.subject.model, batch)
    return outcome.adversarial[done : done + len(batch.x)]
