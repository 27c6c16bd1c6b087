"""The rows that an audit writes, as typed objects: the attacks tried, the findings of its checks and the verdict.
One Audit for each network and training seed; an audit that was stopped has no verdict yet."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shconv.report.folder.fields import ends, number, optional, share, typed, whole
from shconv.report.folder.rows import AUDIT, parsed, read_json_lines
from shconv.report.output.cells import NOT_RUN
from shconv.report.published import network_name

ALARM = "alarm"
CONFIDENT = "confident"  # the images that are right with a high p_y, under the L-infinity threat
SHARED = "/shared"  # after a threat: over the attacks that any network can meet
# The twelve checks, for those that left no row
CHECKS = {
    1: "gradient routes",
    2: "attack strength",
    3: "random start",
    4: "budget curve",
    5: "transfer",
    6: "gradient-free",
    7: "random signs",
    8: "gradient diagnostics",
    9: "loss surface",
    10: "indicators of attack failure",
    11: "ablations",
    12: "worst case",
}


@dataclass(frozen=True)
class Tried:
    """One attack: ``successes`` of ``n`` images broken; ``accuracy`` over all images where it was tried on all."""

    label: str
    parameters: Mapping[str, Any]
    route: str | None
    threat: str
    epsilon: float | None
    source: str | None  # the network the examples were made on, where it is another one
    n: int
    successes: int
    accuracy: float | None
    interval: tuple[float, float] | None
    headline: bool  # does it count for the worst case
    complete: bool
    seconds: float | None
    spared: int = 0  # images further from a wrong class than the last ones tried, which all survived

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Tried":
        n, successes = whole(record, "n") or 0, whole(record, "successes") or 0
        epsilon = number(record, "epsilon")
        if successes > n:
            raise ValueError(f'"successes" is {successes}, of {n} images')
        return cls(
            label=typed(record, "attack", str),
            parameters=optional(record, "parameters", dict) or {},
            route=optional(record, "route", str),
            threat=typed(record, "threat", str),
            epsilon=epsilon if epsilon is not None and math.isfinite(epsilon) else None,  # a count of pixels has none
            source=optional(record, "source", str),
            n=n,
            successes=successes,
            accuracy=share(record, "accuracy"),
            interval=ends(record, "interval"),
            headline=typed(record, "headline", bool),
            complete=typed(record, "complete", bool),
            seconds=number(record, "seconds"),
            spared=whole(record, "spared") or 0,
        )


@dataclass(frozen=True)
class Finding:
    """What one check found; ``not_run`` says why it was not run, ``array`` names the file its figure is drawn from."""

    check: int
    name: str
    alarm: bool | None
    text: str
    not_run: str
    numbers: Mapping[str, Any]
    source: str
    array: str | None
    seconds: float | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Finding":
        check = whole(record, "check")
        if check is None:
            raise ValueError('"check" is missing')
        return cls(
            check=check,
            name=typed(record, "name", str),
            alarm=optional(record, "alarm", bool),
            text=optional(record, "text", str) or "",
            not_run=optional(record, "not_run", str) or "",
            numbers=optional(record, "numbers", dict) or {},
            source=optional(record, "source", str) or "",
            array=optional(record, "array", str),
            seconds=number(record, "seconds"),
        )

    @property
    def result(self) -> str:
        if self.not_run:
            return NOT_RUN
        return {True: ALARM, False: "no alarm", None: "neither"}[self.alarm]


@dataclass(frozen=True)
class Share:
    """How often the network is right: ``correct`` of ``n`` images after ``attacks``, or ``reason``, why none is known.

    ``untried`` images were not attacked; of the ``attacked`` ones ``left`` are still correct.
    """

    accuracy: float | None
    interval: tuple[float, float] | None
    correct: int | None
    n: int | None
    attacks: int | None
    untried: int | None
    reason: str | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any], n: int | None) -> "Share":
        given, attacks, untried = whole(record, "n"), whole(record, "attacks"), whole(record, "untried") or None
        reason = _why_unknown(record)
        known = not reason
        attacked, left = whole(record, "attacked"), whole(record, "left")
        if untried and attacked and left is not None:
            reason += f"; {left:,} of the {attacked:,} attacked are still right"
        return cls(
            accuracy=share(record, "accuracy") if known else None,
            interval=ends(record, "interval") if known else None,
            correct=whole(record, "correct") if known else None,
            n=n if given is None else given,
            attacks=attacks,
            untried=untried,
            reason=reason or None,
        )


def _why_unknown(record: Mapping[str, Any]) -> str:
    """A share after no attack, or one that counts images which were not attacked as correct, is no result."""
    untried = whole(record, "untried")
    derived = f"{untried:,} image{' was' if untried == 1 else 's were'} not attacked" if untried else ""
    derived = "no image" if whole(record, "n") == 0 else derived
    derived = "no attack was tried" if whole(record, "attacks") == 0 else derived
    return optional(record, "reason", str) or derived


@dataclass(frozen=True)
class Twin:
    """Two worst cases on the same images and over the same ``attacks``: the network's minus its twin's in shares of 1,
    McNemar's exact p; or the ``reason`` why there is no comparison."""

    name: str
    network: float | None  # the network's accuracy
    accuracy: float | None  # the twin's
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    attacks: int | None
    reason: str

    @property
    def words(self) -> str:
        return "twin" if self.name == "twin" else f"twin {self.name}"

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Twin":
        reason = optional(record, "reason", str) or ""
        return cls(
            network_name(optional(record, "name", str) or "twin"),
            None if reason else share(record, "accuracy"),
            None if reason else share(record, "twin_accuracy"),
            None if reason else number(record, "difference"),
            None if reason else ends(record, "interval"),
            None if reason else number(record, "p"),
            whole(record, "attacks"),
            reason,
        )

    def without(self, reason: str) -> "Twin":
        return Twin(self.name, None, None, None, None, None, None, reason)


@dataclass(frozen=True)
class Verdict:
    """``worst_case`` by threat: linf, l2, ...; after a slash "shared", over the attacks that any network can meet; and
    ``confident``, over the confident images alone."""

    n: int
    clean: Share
    worst_case: Mapping[str, Share]
    twin: Twin | None
    text: tuple[str, ...]
    preflight: tuple[str, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Verdict":
        n = whole(record, "n") or 0
        worst = typed(record, "worst_case", dict)
        linf = typed(worst, "linf", dict) if "linf" in worst else {}
        inherited = {key: linf[key] for key in ("attacks", "untried", "reason") if key in linf}
        cases = {}
        for key in dict.fromkeys([*(key for key in ("linf", CONFIDENT) if key in worst), *worst]):
            case = typed(worst, key, dict)
            if key == CONFIDENT:
                cases[key] = Share.of(case if "attacks" in case else {**inherited, **case}, None)
                continue
            if shared := optional(case, "shared", dict):
                cases[f"{key}{SHARED}"] = Share.of(shared, n)
            cases[key] = Share.of(case, n)
        twin = optional(record, "twin", dict)
        against = Twin.of(twin) if twin else None
        if against and not against.reason and "linf" in cases and cases["linf"].reason:
            against = against.without(f"of this network {cases['linf'].reason}")
        return cls(
            n=n,
            clean=Share.of(typed(record, "clean", dict), n),
            worst_case=cases,
            twin=against,
            text=tuple(map(str, optional(record, "text", list) or ())),
            preflight=tuple(map(str, optional(record, "preflight", list) or ())),
        )


@dataclass(frozen=True)
class Audit:
    """All that was tried on one network of one training seed, in the order tried."""

    model: str
    seed: int
    tried: tuple[Tried, ...]
    findings: tuple[Finding, ...]
    verdict: Verdict | None

    @property
    def name(self) -> str:
        return network_name(self.model)

    @property
    def checks(self) -> tuple[Finding, ...]:
        """The findings by number, and for a check that left none one that says so."""
        why = "the audit has not come to it" if self.verdict is None else "not asked for"
        held = {finding.check for finding in self.findings}
        absent = [Finding(k, name, None, "", why, {}, "", None, None) for k, name in CHECKS.items() if k not in held]
        return tuple(sorted([*self.findings, *absent], key=lambda finding: finding.check))

    def epsilon(self, threat: str) -> float | None:
        """The budget that was audited: the largest among the attacks that count for the worst case."""
        known = [each.epsilon for each in self.tried if each.headline and each.threat == threat]
        return max((epsilon for epsilon in known if epsilon is not None), default=None)


def read_audits(path: Path) -> tuple[tuple[Audit, ...], list[str]]:
    """The audits of a rows.jsonl, in the order begun, and notes on what was left out.

    Raises InputError, naming the line, where a row cannot be an audit's.
    """
    records, _ = read_json_lines(path)
    rows, notes = parsed(path, [each for each in records if each[1].get("experiment") == AUDIT], _part)
    parts: dict[tuple[str, int], list[Tried | Finding | Verdict]] = {}
    for key, part in rows:
        parts.setdefault(key, []).append(part)
    audits = tuple(_audit(*key, held) for key, held in parts.items())
    return tuple(_beside(audit, audits) for audit in audits), notes


def _beside(audit: Audit, audits: tuple[Audit, ...]) -> Audit:
    """Without a difference from a twin of which the folder's own rows tell no worst case."""
    twin = audit.verdict.twin if audit.verdict else None
    for other in audits:
        if twin and audit.verdict and not twin.reason and other is not audit and other.name == twin.name:
            worst = other.verdict.worst_case.get("linf") if other.verdict else None
            if worst and worst.reason:
                verdict = replace(audit.verdict, twin=twin.without(f"of {other.name} {worst.reason}"))
                return replace(audit, verdict=verdict)
    return audit


def _part(record: Mapping[str, Any]) -> tuple[tuple[str, int], Tried | Finding | Verdict]:
    """(network, seed) and what the row says of it; a network's name may hold slashes."""
    id: str = typed(record, "id", str)
    match = re.fullmatch(r"audit/(.+)/seed(\d+)/(?:attack/.+|check/.+|verdict)", id)
    if match is None:
        raise ValueError(f'"id" is {id!r}, not audit/MODEL/seedS/...')
    kinds: dict[str, type[Tried] | type[Finding] | type[Verdict]]
    kinds = {"attack": Tried, "finding": Finding, "verdict": Verdict}
    kind = typed(record, "kind", str)
    if kind not in kinds:
        raise ValueError(f'"kind" is {kind!r}, not one of {", ".join(kinds)}')
    return (match[1], int(match[2])), kinds[kind].of(record)


def _audit(model: str, seed: int, parts: list[Tried | Finding | Verdict]) -> Audit:
    verdicts = [part for part in parts if isinstance(part, Verdict)]
    return Audit(
        model,
        seed,
        tuple(part for part in parts if isinstance(part, Tried)),
        tuple(part for part in parts if isinstance(part, Finding)),
        verdicts[-1] if verdicts else None,
    )
