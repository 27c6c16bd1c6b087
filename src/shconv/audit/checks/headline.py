"""The white-box attacks that make the worst case, on every image still standing: cheap ones first, on two losses and
aimed at the likeliest classes, in L-infinity and L2, through the routes of an SHC network; then dear ones, on the
images nearest to falling first, as long as these fall."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

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
    patience: int  # of a dear one: after how many images in a row that stand it ends, 0 where it takes all of them


def planned(audit: Audit) -> Iterator[Planned]:
    """The attacks in their order; an image that one breaks is not attacked by the next."""
    for threat in THREATS:
        for attacks, patience in ((_cheap, 0), (_dear, audit.effort.patience)):
            for route in routes(audit):
                yield from (Planned(*each, route, threat, patience) for each in attacks(audit, threat))


def routes(audit: Audit) -> tuple[str, ...]:
    """Through which a gradient comes that is worth following: none, where the network has none and no view has. The
    first one is AutoAttack's."""
    own = (*audit.subject.routes, *(["frozen"] if audit.subject.is_shc else []))
    view = () if audit.view is None else (audit.view.route,)
    if audit.view is not None and audit.view.beside:
        return (*own, *view)
    return (*view, *(() if audit.blind else own))


def cost(audit: Audit) -> Cost:
    """As if every image that stands now stood to the end; of a dear attack those that it is likely to meet."""
    standing = {threat: int(audit.standing(threat).sum()) for threat in THREATS}
    met = ((each.attack, standing[each.threat], each.patience) for each in planned(audit))
    return sum((cost_of(attack, min(n, patience or n)) for attack, n, patience in met), Cost(0))


def run(audit: Audit) -> dict[str, Outcome]:
    outcomes = {}
    for label, attack, route, threat, patience in planned(audit):
        on = audit.standing(threat, shared=route == "both" and not patience)
        if on.any():
            order = nearest_first(audit, on, threat) if patience else None
            how: dict[str, Any] = {"route": route, "threat": threat, "order": order, "patience": patience}
            outcomes[f"{label}, {threat}, {route}"] = audit.attack(label, attack, on=on, **how)
    return outcomes


def nearest_first(audit: Audit, on: Flags, threat: Norm) -> list[int]:
    """Places of the images (N,), those first whose margin a few steps of PGD bring nearest to 0."""
    model = audit.subject.model if audit.view is None or audit.view.beside else audit.view.model
    attack = replace(_pgd(audit, threat, audit.effort.steps[0], "margin"), until_broken=False)
    places = np.flatnonzero(on)
    reached = np.full(len(places), -np.inf)  # images that time does not suffice for come last, as they lie
    done = 0
    with suppress(TimeUp):
        for batch in batches(audit, on):
            here = slice(done, done + len(batch.x))
            reached[here] = loss_at(model, made_by(audit, attack, model, batch), batch.y, margin)
            done = here.stop
    found: list[int] = places[np.argsort(-reached, kind="stable")].tolist()
    return found


def _cheap(audit: Audit, norm: Norm) -> Iterator[tuple[str, PGD]]:
    classes, usual = audit.subject.classes, audit.effort.usual_steps
    for loss in reversed(_losses(audit)):
        yield f"PGD-{usual} {_said(loss)}", _pgd(audit, norm, usual, loss)
    targeted: Loss = "dlr" if classes >= 4 else "margin"
    targets = min(audit.effort.targets, classes - 1)
    yield f"PGD-{usual} {targeted} to {targets} targets", replace(_pgd(audit, norm, usual, targeted), targets=targets)


def _dear(audit: Audit, norm: Norm) -> Iterator[tuple[str, PGD]]:
    most, restarts = audit.effort.steps[-1], audit.effort.restarts
    for loss in _losses(audit) if most != audit.effort.usual_steps or restarts != 1 else ():
        attack = replace(_pgd(audit, norm, most, loss), restarts=restarts)
        yield f"PGD-{most}x{restarts} {_said(loss)}", attack


def _said(loss: Loss) -> str:
    """In a label, none of those of attacks that are compared (comparison.py): those have other images."""
    return {"margin": "on the margin"}.get(loss, loss.replace("_", "-"))


def _losses(audit: Audit) -> tuple[Loss, Loss]:
    return "cross_entropy", "dlr" if audit.subject.classes >= 3 else "margin"


def _pgd(audit: Audit, norm: Norm, steps: int, loss: Loss) -> PGD:
    return PGD(audit.setting.radius(norm), norm, steps, loss=loss, until_broken=True)
