"""What an audit will do and how long it will take, before it starts: the largest counts whose estimated time fits the
budget, and by name what does not fit even with the smallest."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shconv.audit.audit import Audit
from shconv.audit.check import Check, why_not
from shconv.audit.clock import minutes
from shconv.audit.setting import FULL, Effort
from shconv.errors import InputError

HEADLINE = (1, 2, 5, 6, 7, 12)  # the checks whose attacks make the worst case: run on every network
_WITHOUT_GRADIENT, _LAST = (2, 5, 6, 7), 12
_LIKELY = 0.8  # of a check's cost, an upper bound: images break on the way, and checks share attacks
_ENOUGH = 1 / 8  # of the full counts tell as much as a check can tell, so that time is no reason to take more
_SPARE = 1 / 4  # of the budget: more counts than enough are taken only where all of it costs no more
_SIDE = 1 / 3  # of the budget at most goes to the checks that make no worst case
WHITE_BOX = 2  # the check whose attacks are the cheapest per image that they break
_WORST = 0.5  # of what its network has left, for it in any case
_LEAST = 0.05  # of the budget, which a check may take however cheap it should be
_SLACK = 0.5  # of its estimate: how much longer a check may take that is not to be cut
Wanted = Sequence[tuple[Audit, Check, str]]  # a network's check, and why it does not apply; "" where it does
_LADDER = tuple(2 ** (-k / 4) for k in range(41))  # shares of the full counts, down to a thousandth


@dataclass(frozen=True)
class Planned:
    """One check of one network. `left_out` says why it will not run."""

    network: str  # its key
    number: int
    name: str
    seconds: float  # estimated
    left_out: str = ""
    granted: float = 0.0  # seconds, fewer than estimated where attacks will be cut

    @property
    def cut(self) -> bool:
        return not self.left_out and self.granted < self.seconds

    @property
    def estimate(self) -> str:
        return f"{minutes(self.seconds)}, cut at {minutes(self.granted)}" if self.cut else minutes(self.seconds)


@dataclass(frozen=True)
class Plan:
    effort: Effort
    budget: float  # seconds
    begun: float  # seconds spent before
    checks: tuple[Planned, ...]

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.checks if not each.left_out)

    def until(self, planned: Planned, now: float = 0.0) -> float:
        """The time spent at which a check must end that begins at `now`: it has its part of what is left, beside those
        that come after it.

        One that is to run whole has half as long again as estimated in any case, from those that come after it, and the
        white box half of what its network has left. A side check has twice as long as estimated: it cannot be cut, but
        looks at fewer images.
        """
        if math.isinf(self.budget) or planned not in self.checks:
            return math.inf if math.isinf(self.budget) else self.begun + self.budget
        spent = min(max(now - self.begun, 0.0), self.budget)
        left, rest = self.budget - spent, self.checks[self.checks.index(planned) :]
        own = sum(each.granted for each in rest if each.network == planned.network)
        granted = sum(each.granted for each in rest)
        least = max(_LEAST * self.budget, 0.0 if planned.cut else (1 + _SLACK) * planned.seconds)
        if planned.number == WHITE_BOX:  # the number that the audit is about
            least = max(least, _WORST * left * (own / granted if granted else 1.0))
        time = max(left * (planned.granted / granted if granted else 1.0), least)
        if planned.number not in HEADLINE:
            time = 2 * planned.seconds + _LEAST * self.budget
        return self.begun + min(self.budget, spent + time)

    def of(self, network: str, check: Check) -> Planned:
        """What is planned for a check; one that was not known when the plan was made is left out."""
        for each in self.checks:
            if (each.network, each.number, each.name) == (network, check.NUMBER, check.NAME):
                return each
        return Planned(network, check.NUMBER, check.NAME, 0.0, "left out: it is not in the plan of this folder")

    def lines(self) -> list[str]:
        """The plan as a table."""
        rows = [("network", "check", "estimated")]
        rows += [(each.network, f"{each.number:2} {each.name}", each.left_out or each.estimate) for each in self.checks]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        table = ["  ".join((a.ljust(widths[0]), b.ljust(widths[1]), c)) for a, b, c in rows]
        share = f"{100 * self.effort.share:.2g} %"
        few = (
            ""
            if self.effort.share == 1
            else f"; images, steps and queries of a check are {share} of those without a limit"
        )
        cut = "; attacks stop where their share of the time ends" if any(each.cut for each in self.checks) else ""
        return [*table, f"In all about {minutes(self.seconds)}; budget {minutes(self.budget)}{few}{cut}."]

    def stored(self) -> dict[str, Any]:
        """As plain values: a run that goes on keeps the plan it began with."""
        return {**asdict(self), "budget": self.budget if math.isfinite(self.budget) else None}

    @classmethod
    def read(cls, path: Path) -> "Plan | None":
        """The plan stored in a file, None where there is none. Raises InputError for a damaged one."""
        if not path.exists():
            return None
        try:
            stored = json.loads(path.read_bytes())
            told: dict[str, Any] = stored["effort"]
            counts: dict[str, Any] = {n: tuple(each) if isinstance(each, list) else each for n, each in told.items()}
            budget = math.inf if stored["budget"] is None else float(stored["budget"])
            checks = tuple(Planned(**each) for each in stored["checks"])
            return cls(Effort(**counts), budget, float(stored["begun"]), checks)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error!r}); take another folder") from error


def make_plan(
    audits: Sequence[Audit], checks: Sequence[Check], budget: float, effort: Effort | None = None, begun: float = 0.0
) -> Plan:
    """The plan for the first audit's every check and the others' headline, within `budget` seconds from `begun` on.

    A budget is no target: an eighth of FULL is enough, and more is taken only of a budget four times as long as all of
    it. With less time smaller and smaller shares are tried; with the smallest, cheap checks get all the time they want
    and dear ones a like share of the rest: of the headline the attacks are cut there, side checks are left out.
    `effort` sets the counts instead. Leaves the chosen effort in every audit.
    """
    wanted = [
        (audit, check, why_not(check, audit))  # some look at the network to say why
        for place, audit in enumerate(audits)
        for check in in_order(checks, audit, all_of_them=not place)
    ]
    if effort is None:
        effort = FULL if math.isinf(budget) else _largest(wanted, budget)
    return Plan(effort, budget, begun, tuple(_fitting(_planned(wanted, effort), budget)))


def in_order(checks: Sequence[Check], audit: Audit, all_of_them: bool) -> list[Check]:
    """All checks or those of the headline, as they are; for a network without a gradient first those that may break it:
    views, transfer, searches."""
    usual = len(_WITHOUT_GRADIENT)
    place = {number: at for at, number in enumerate(_WITHOUT_GRADIENT)} | {_LAST: usual + 1}
    found = [check for check in checks if all_of_them or check.NUMBER in HEADLINE]
    return sorted(found, key=lambda check: place.get(check.NUMBER, usual)) if audit.blind else found


def _largest(wanted: Wanted, budget: float) -> Effort:
    """The largest effort that fits, or the smallest that there is.

    Where a network has no gradient, with searches as long as the time allows.
    """
    ladder = [FULL.scaled(share) for share in _LADDER]

    def seconds(effort: Effort) -> tuple[float, float]:
        """Of all checks, and of those that make no worst case."""
        planned = _planned(wanted, effort)
        return sum(each.seconds for each in planned), sum(e.seconds for e in planned if e.number not in HEADLINE)

    def fits(effort: Effort) -> bool:
        whole, side = seconds(effort)
        limit = budget if effort.share <= _ENOUGH else _SPARE * budget
        return whole <= limit and side <= _SIDE * limit

    def leaves_a_side(effort: Effort) -> bool:
        whole, side = seconds(effort)
        return whole - side <= (1 - _SIDE) * budget

    found = next((effort for effort in ladder if fits(effort)), ladder[-1])
    if not any(audit.blind for audit, _, _ in wanted):
        return found
    return next((longer for each in ladder if leaves_a_side(longer := found.searching_as(each))), found)


def _dealt(seconds: Sequence[float], budget: float) -> list[float]:
    """The budget among checks that want so many seconds: all they want, where there is enough.

    Where there is not, none gets more than a level that uses up the budget, so that cheap checks run whole.
    """
    left = budget
    for place, wanted in enumerate(sorted(seconds)):
        level = left / (len(seconds) - place)
        if wanted > level:
            return [min(each, level) for each in seconds]
        left -= wanted
    return list(seconds)


def _planned(wanted: Wanted, effort: Effort) -> list[Planned]:
    planned = []
    for audit, check, why in wanted:
        audit.take(effort)
        seconds = 0.0 if why else _LIKELY * audit.slower * audit.probe.seconds(check.cost(audit))
        planned.append(Planned(audit.subject.key, check.NUMBER, check.NAME, seconds, why))
    return planned


def _fitting(planned: Sequence[Planned], budget: float) -> list[Planned]:
    """With the time that each gets; without the side checks that get less than they want, the dearest one first."""
    granted = _dealt([0.0 if each.left_out else each.seconds for each in planned], budget)
    given = [replace(each, granted=seconds) for each, seconds in zip(planned, granted, strict=True)]
    short = [each for each in given if each.number not in HEADLINE and each.cut]
    if not short:
        return given
    dearest = max(short, key=lambda each: each.seconds)
    words = f"needs about {minutes(dearest.seconds)}, its share is {minutes(dearest.granted)}"
    without = replace(dearest, left_out=f"left out for lack of time: {words}")
    return _fitting([without if each is dearest else each for each in given], budget)
