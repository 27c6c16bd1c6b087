"""The white-box attacks that make the worst case, on every image still standing: cheap ones first, on two losses and
aimed at the likeliest classes, in L-infinity and L2, through the routes of an SHC network; then dear ones, on the
images nearest to falling first, as long as these fall."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from shconv.attacks import PGD, Attack
from shconv.attacks.budget import Norm
from shconv.attacks.cost import Cost
from shconv.attacks.losses import Loss, margin
from shconv.audit.audit import Audit
from shconv.audit.checks.side import batches, cost_of, loss_at, made_by
from shconv.audit.findings import Flags, Outcome
from shconv.audit.subject import TimeUp

THREATS: tuple[Norm, ...] = ("linf", "l2")


class Planned(NamedTuple):
    label: str
    attack: Attack
    route: str
    threat: Norm
    dear: bool


def planned(audit: Audit) -> Iterator[Planned]:
    """The attacks in their order; an image that one breaks is not attacked by the next."""
    for threat in THREATS:
        for dear in (False, True):
            for route in routes(audit):
                for label, attack in _dear(audit, threat) if dear else _cheap(audit, threat):
                    yield Planned(label, attack, route, threat, dear)


def routes(audit: Audit) -> tuple[str, ...]:
    """Through which a gradient comes that is worth following: none, where the network has none and no view has."""
    own = (*audit.subject.routes, *(["frozen"] if audit.subject.is_shc else []))
    view = () if audit.view is None else (audit.view.route,)
    return (*view, *(() if audit.blind else own))


def cost(audit: Audit) -> Cost:
    """As if every image that stands now stood to the end."""
    total = Cost(0)
    for each in planned(audit):
        n = int(audit.standing(each.threat).sum())
        total += cost_of(each.attack, patient(audit, n) if each.dear else n)
    return total


def patient(audit: Audit, n: int) -> int:
    """How many of n images a dear attack is likely to meet."""
    return min(n, audit.effort.patience or n)


def run(audit: Audit) -> dict[str, Outcome]:
    outcomes = {}
    for label, attack, route, threat, dear in planned(audit):
        on = audit.standing(threat, shared=route == "both" and not (dear and audit.effort.patience))
        if not on.any():
            continue
        order = nearest_first(audit, on, threat) if dear and audit.effort.patience else None
        patience = audit.effort.patience if dear else 0
        outcomes[f"{label}, {threat}, {route}"] = audit.attack(
            label, attack, on=on, route=route, threat=threat, order=order, patience=patience
        )
    return outcomes


def nearest_first(audit: Audit, on: Flags, threat: Norm) -> list[int]:
    """Places of the images (N,), those first whose margin a few steps of PGD bring nearest to 0."""
    model = audit.subject.model if audit.view is None else audit.view.model
    attack = replace(_pgd(audit, threat, audit.effort.steps[0], "margin"), until_broken=False)
    reached: list[float] = []
    try:
        for batch in batches(audit, on):
            reached += loss_at(model, made_by(audit, attack, model, batch), batch.y, margin).tolist()
    except TimeUp:
        pass  # the others come last, as they lie
    places = np.flatnonzero(on)
    values = np.full(len(places), -np.inf)
    values[: len(reached)] = reached
    found: list[int] = places[np.argsort(-values, kind="stable")].tolist()
    return found


def summary(outcomes: dict[str, Outcome]) -> dict[str, dict[str, int]]:
    return {
        name: {"n": int(outcome.attempted.sum()), "successes": int(np.sum(outcome.success))}
        for name, outcome in outcomes.items()
    }


def _cheap(audit: Audit, norm: Norm) -> Iterator[tuple[str, PGD]]:
    effort, classes, usual = audit.effort, audit.subject.classes, audit.effort.steps[1]
    losses: tuple[Loss, Loss] = ("dlr" if classes >= 3 else "margin", "cross_entropy")
    for loss in losses:
        yield f"PGD-{usual} {_words(loss)}", _pgd(audit, norm, usual, loss)
    targeted: Loss = "dlr" if classes >= 4 else "margin"
    targets = min(effort.targets, classes - 1)
    attack = replace(_pgd(audit, norm, usual, targeted), targets=targets)
    yield f"PGD-{usual} {targeted} to {targets} targets", attack


def _dear(audit: Audit, norm: Norm) -> Iterator[tuple[str, PGD]]:
    effort, most = audit.effort, audit.effort.steps[-1]
    if most == effort.steps[1] and effort.restarts == 1:
        return
    losses: tuple[Loss, Loss] = ("cross_entropy", "dlr" if audit.subject.classes >= 3 else "margin")
    for loss in losses:
        yield (
            f"PGD-{most}x{effort.restarts} {_words(loss)}",
            replace(_pgd(audit, norm, most, loss), restarts=effort.restarts),
        )


def _pgd(audit: Audit, norm: Norm, steps: int, loss: Loss) -> PGD:
    return PGD(audit.setting.radius(norm), norm, steps, loss=loss, until_broken=True)


def _words(loss: Loss) -> str:
    return loss.replace("_", "-")
