"""Check 2: does a stronger attack break more, and has the strongest one converged?

One step of the whole radius meets PGD with more and more steps on the same images. An iterated attack can do all that
one step can, so where one step, or mere noise, does at least as well, the gradients away from the clean image are
useless: robustness against them is masked. How high the margin rises is compared with the better of PGD on the
cross-entropy and on the margin, as one loss alone may end a little below one step. Images on which the loss is linear
along the step are no sign of that, as one step is then the best there is, and are left out. If PGD on the margin breaks
many more than on cross-entropy, the latter saturates and hides its gradient. If doubling the steps still breaks more,
the attack has not converged and its accuracy is no bound worth quoting. The check then runs the white-box attacks of
the worst case on every image that still stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shconv.attacks import Attack
from shconv.attacks.cost import Cost
from shconv.attacks.losses import margin
from shconv.audit.audit import Audit
from shconv.audit.checks import headline
from shconv.audit.checks.comparison import counts, left, one_step, pgd, run_one_step, run_pgd
from shconv.audit.checks.side import Batch, batches, cost_of, gradient, loss_at, made_by, size
from shconv.audit.findings import Finding, Outcome
from shconv.audit.words import of, points
from shconv.numbers import counted, in_points
from shconv.paired import Paired

NUMBER = 2
NAME = "attack strength"
SOURCE = "Athalye et al. 2018; Carlini et al. 2019; Croce and Hein 2020"
LINEAR = 0.05  # relative error of the first-order prediction below which the loss counts as linear along the step
TIE = 1e-3  # of the rise in margin
NOISES = 4  # random sign patterns
FEWEST = 5  # images that can tell, for half of them to say anything
SATURATED = 0.1  # of the images, that only the margin breaks: ours


@dataclass(frozen=True)
class Strength:
    """Accuracies in pairs, the weaker attack's first."""

    steps: tuple[int, int]  # of the usual attack and of the longest
    once: Paired  # one step, and the longest
    losses: Paired  # cross-entropy and the margin, usual steps
    doubled: Paired  # half the longest, and the longest
    told: int  # images that one step or the usual attack leaves right, with a loss that is not linear along the step
    as_strong: int  # of them both losses' usual attacks leave right, and one step or noise raises the margin as high

    @property
    def weak(self) -> bool:
        standing = left(self.once)[1]
        return self.once.interval[1] < 0 or (standing > 0 and self.told >= FEWEST and self.as_strong >= self.told / 2)

    @property
    def saturated(self) -> bool:
        return self.losses.difference >= SATURATED and self.losses.interval[0] > 0

    @property
    def unsettled(self) -> bool:
        return self.doubled.interval[0] > 0

    @property
    def alarm(self) -> bool | None:
        """None where no image met both attacks of a pair."""
        if self.weak or self.saturated or self.unsettled:
            return True
        return False if self.once.n and self.losses.n and self.doubled.n else None

    def text(self) -> str:
        return " ".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        usual, longest = (f"PGD-{steps}" for steps in self.steps)
        n, (one, many) = self.once.n, left(self.once)
        if n:
            word = "as strong as" if one == many else "weaker than" if one > many else "stronger than"
            yield (
                f"One step is {word} {longest}: accuracy {of(one, n)} under one step, {of(many, n)} under {longest}."
            )
        else:
            yield f"No image was attacked by both one step and {longest}."
        if n and self.told:
            yield (
                f"{counted(self.told, 'image')} survived one step or {usual} and had a loss that is not linear along "
                f"the step. On {self.as_strong} of these, one step or noise raises the margin as high as {usual} on "
                "either loss."
            )
        if n and self.weak:
            yield "So one step, or noise, is as strong as many steps: gradients away from the clean image are useless."
        if self.losses.n:
            entropy, margins = (of(each, self.losses.n) for each in left(self.losses))
            end = ": cross-entropy saturates." if self.saturated else "."
            yield f"{usual}: accuracy {entropy} with the cross-entropy as loss, {margins} with the margin{end}"
        if self.doubled.n:
            low, high = self.doubled.interval
            yield (
                f"Doubling the steps to {self.steps[1]} changes the accuracy by "
                f"{in_points(-self.doubled.difference)} points ({points((-high, -low))})"
                + (": PGD has not converged." if self.unsettled else ".")
            )

    def numbers(self) -> dict[str, Any]:
        return {
            "images": self.once.n,
            "one_step_as_strong": self.weak,
            "as_strong": self.as_strong,
            "compared_margins": self.told,
            "saturated": self.saturated,
            "margin_gain": self.losses.difference,
            "margin_interval": self.losses.interval,
            "converged": not self.unsettled,
            "doubling_gain": self.doubled.difference,
            "doubling_interval": self.doubled.interval,
        }


def cost(audit: Audit) -> Cost:
    each = cost_of(one_step(audit), 2) + Cost(6 + NOISES, 1) + cost_of(pgd(audit), 2)
    for steps in _ladder(audit):
        each += cost_of(pgd(audit, steps), 1)
    return each.times(size(audit, audit.effort.compared_images)) + headline.cost(audit)


def run(audit: Audit) -> Finding:
    attacks = headline.run(audit) if audit.blind else {}  # what attacks compared say is known of such a network
    usual, most = audit.effort.usual_steps, audit.effort.steps[-1]
    once, ladder = run_one_step(audit), {steps: run_pgd(audit, steps) for steps in _ladder(audit)}
    on_margin = run_pgd(audit, loss="margin")
    found = Strength(
        (usual, most),
        counts(once, ladder[most]),
        counts(ladder[usual], on_margin),
        counts(ladder[_half(most)], ladder[most]),
        *_climb(audit, once, ladder[usual], on_margin),
    )
    attacks = attacks or headline.run(audit)
    rungs = {"one step": once, **{f"PGD-{steps}": outcome for steps, outcome in ladder.items()}}
    accuracy = {name: float((~each.success[each.attempted]).mean()) for name, each in rungs.items() if each.tried}
    broken = {name: {"n": each.tried, "successes": each.broken} for name, each in attacks.items()}
    return Finding(found.alarm, found.text(), {**found.numbers(), "accuracy": accuracy, "headline": broken})


def _ladder(audit: Audit) -> list[int]:
    """The numbers of steps, with half of the longest."""
    return sorted({*audit.effort.steps, _half(audit.effort.steps[-1])})


def _half(steps: int) -> int:
    return max(1, steps // 2)


def _climb(audit: Audit, once: Outcome, many: Outcome, on_margin: Outcome) -> tuple[int, int]:
    """How many images can tell one step from many, and on how many one step or noise does as well."""
    model, rng, done, told, as_strong = audit.subject.model, audit.generator(NAME), 0, 0, 0
    attacks = ((one_step(audit), once), (pgd(audit), many), (pgd(audit, loss="margin"), on_margin))
    for batch in batches(audit, np.logical_and.reduce([outcome.attempted for _, outcome in attacks])):
        x, y, _ = batch
        single, *iterated = (_examples(audit, *each, batch, done) for each in attacks)
        start, one, *reached = (loss_at(model, at, y, margin) for at in (x, single, *iterated))
        best = np.max(reached, axis=0)
        signs = (torch.from_numpy(2 * rng.integers(0, 2, tuple(x.shape)) - 1).to(x) for _ in range(NOISES))
        noises = [loss_at(model, (x + audit.setting.eps * each).clamp(0, 1), y, margin) for each in signs]
        predicted = (gradient(model, x, y, margin) * (single - x)).flatten(1).sum(1).double().cpu().numpy()
        linear = (predicted > 0) & (np.abs(one - start - predicted) <= LINEAR * np.abs(predicted))
        tells = ~linear & ((one < 0) | (best < 0))
        as_high = np.max([one, *noises], axis=0) >= best - TIE * np.abs(best - start)
        told, as_strong = told + int(tells.sum()), as_strong + int((tells & (best < 0) & as_high).sum())
        done += len(x)
    return told, as_strong


def _examples(audit: Audit, attack: Attack, outcome: Outcome, batch: Batch, done: int) -> Tensor:
    """The attack's examples of a batch, before which `done` images came: made again if an earlier check made them."""
    if outcome.adversarial is None:
        return made_by(audit, attack, audit.subject.model, batch)
    return outcome.adversarial[done : done + len(batch.x)]
