"""The white-box attacks that make the worst case, on every image still standing: PGD with restarts on two losses,
targeted, in L-infinity and L2, through the routes of an SHC network."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from shconv.attacks import PGD, Attack
from shconv.attacks.budget import Norm
from shconv.attacks.cost import Cost
from shconv.attacks.losses import Loss
from shconv.audit.audit import Audit
from shconv.audit.checks.side import cost_of
from shconv.audit.findings import Outcome


class Planned(NamedTuple):
    label: str
    attack: Attack
    route: str
    threat: str


def planned(audit: Audit) -> Iterator[Planned]:
    """The attacks in their order; an image that one breaks is not attacked by the next."""
    threats: tuple[Norm, ...] = ("linf", "l2")
    for threat in threats:
        for route in ("both", "convolution", "frozen") if audit.subject.is_shc else ("both",):
            for label, attack in _pgds(audit, threat):
                yield Planned(label, attack, route, threat)


def cost(audit: Audit) -> Cost:
    """As if every image that stands now stood to the end."""
    total = Cost(0)
    for each in planned(audit):
        total += cost_of(each.attack, int(audit.standing(each.threat).sum()))
    return total


def run(audit: Audit) -> dict[str, Outcome]:
    outcomes = {}
    for each in planned(audit):
        if not audit.standing(each.threat, shared=each.route == "both").any():
            continue
        outcome = audit.attack(each.label, each.attack, route=each.route, threat=each.threat)
        outcomes[f"{each.label}, {each.threat}, {each.route}"] = outcome
    return outcomes


def summary(outcomes: dict[str, Outcome]) -> dict[str, dict[str, int]]:
    return {
        name: {"n": int(outcome.attempted.sum()), "successes": int(np.sum(outcome.success))}
        for name, outcome in outcomes.items()
    }


def _pgds(audit: Audit, norm: Norm) -> Iterator[tuple[str, PGD]]:
    effort, classes = audit.effort, audit.subject.classes
    usual, most = effort.steps[1], effort.steps[-1]
    losses: tuple[Loss, Loss] = ("cross_entropy", "dlr" if classes >= 3 else "margin")
    targeted: Loss = "dlr" if classes >= 4 else "margin"
    epsilon = audit.setting.radius(norm)
    for loss in losses:
        words = f"PGD-{most}x{effort.restarts} {loss.replace('_', '-')}"
        yield words, PGD(epsilon, norm, most, effort.restarts, loss, until_broken=True)
    targets = min(effort.targets, classes - 1)
    yield (
        f"PGD-{usual} {targeted} to {targets} targets",
        PGD(epsilon, norm, usual, 1, targeted, targets, until_broken=True),
    )
