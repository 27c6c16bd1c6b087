"""What checks 6 and 7 share: searches without gradients on images that the white box left standing, and the white box's
second look at what they break: a long PGD on both losses, through the network's routes. Only what still stands then was
hidden from gradients."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np

from shconv.attacks import PGD, Attack
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.side import at_most, cost_of
from shconv.audit.findings import Flags, Outcome
from shconv.audit.words import of

MOST = 8  # images of a second look: enough to tell
LIKELY = 0.1  # of the images that searches try, for a plan: they seldom break what gradients left
SHARE = 0.6  # of the time left for a search that others come after


class Search(NamedTuple):
    name: str
    attack: Attack
    images: int  # at most


@dataclass(frozen=True)
class Searched:
    """Images: left standing for searches, tried, broken, seen by the second white box, and not broken by it either."""

    stood: int
    tried: int = 0
    broken: int = 0
    seen: int = 0
    hidden: int = 0

    @property
    def alarm(self) -> bool | None:
        """None where no image was attacked, or where nothing that was broken was looked at again."""
        if self.hidden:
            return True
        return None if (self.stood and not self.tried) or self.seen < min(self.broken, 1) else False

    def text(self, names: str) -> str:
        begin = f"{names[0].upper()}{names[1:]} break"
        if not self.stood:
            return f"No image was left for {names}, as none survived the gradient attacks"
        if not self.tried:
            return f"No image was attacked by {names}"
        if not self.broken:
            return f"{begin} no image that survived the gradient attacks"
        said = f"{begin} {of(self.broken, self.tried)} that survived the gradient attacks"
        if not self.seen:
            return f"{said}; no longer white-box attack was tried on these"
        part = "" if self.seen == self.broken else f" on {self.seen} of these"
        return f"{said}; a second, longer white-box attack{part} fails on {self.hidden}"


def cost(audit: Audit, searches: Sequence[Search]) -> Cost:
    """No upper bound: of second looks at what the searches are likely to break."""
    stood, total = int(audit.standing("linf").sum()), Cost(0)
    for search in searches:
        n = min(stood, search.images)
        total += cost_of(search.attack, n)
        for attack in _long(audit):
            total += cost_of(attack, min(LIKELY * n, MOST) * len(audit.subject.routes))
    return total


def run(audit: Audit, searches: Sequence[Search]) -> tuple[Searched, dict[str, dict[str, Any]]]:
    """All together, and each that had images, by its name."""
    total, rows = Searched(int(audit.standing("linf").sum())), {}
    met = np.zeros_like(audit.correct)
    for search in searches:
        on = at_most(audit, audit.standing("linf"), search.images, search.name)
        if not on.any():
            continue
        with audit.within(1.0 if search is searches[-1] else SHARE):
            outcome = audit.attack(search.name, search.attack, on=on)
        seen, hidden = second_look(audit, outcome.success, search.name)
        rows[search.name] = {**numbers(outcome), "looked_again": seen, "hidden_from_gradients": hidden}
        new = int((outcome.attempted & ~met).sum())
        met |= outcome.attempted
        found = (0, new, outcome.broken, seen, hidden)
        total = Searched(*(a + b for a, b in zip(astuple(total), found, strict=True)))
    return total, rows


def numbers(outcome: Outcome) -> dict[str, Any]:
    queries = float(np.mean(outcome.queries[outcome.attempted])) if outcome.tried else None
    return {"n": outcome.tried, "successes": outcome.broken, "queries": queries}


def second_look(audit: Audit, broken: Flags, by: str) -> tuple[int, int]:
    """Does a long white-box attack break the broken images (N,), of which the first MOST are looked at?

    How many met every attack, or fell to one; and of them, how many none breaks.
    """
    missed = np.zeros_like(broken)
    missed[np.flatnonzero(broken)[:MOST]] = True
    seen = missed.copy()
    for route in audit.subject.routes:
        for attack in _long(audit):
            if missed.any():
                label = f"second look after {by}, {attack.loss.replace('_', '-')}"
                outcome = audit.attack(label, attack, on=missed, route=route)
                seen &= outcome.attempted | ~missed
                missed &= outcome.attempted & ~outcome.success
    return int(seen.sum()), int(missed.sum())


def _long(audit: Audit) -> Iterator[PGD]:
    """Where the network has no gradient at all a short look is as good as a long one."""
    steps, restarts = (audit.effort.usual_steps, 1) if audit.blind else (2 * audit.effort.steps[-1], 5)
    yield PGD(audit.setting.eps, steps=steps, restarts=restarts, until_broken=True)
    yield PGD(audit.setting.eps, steps=steps, restarts=restarts, loss="margin", until_broken=True)
