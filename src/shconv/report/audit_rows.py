"""The rows that an audit writes, as typed objects: the attacks tried, the findings of its checks and the verdict.
One Audit for each network and training seed; an audit that was stopped has no verdict yet."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shconv.report.cells import NOT_RUN
from shconv.report.fields import ends, number, optional, share, typed, whole
from shconv.report.paper import network_name
from shconv.report.rows import AUDIT, parsed, read_json_lines

ALARM = "alarm"
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
    """How often the network is right: ``correct`` of ``n`` images, after ``attacks``, which ``untried`` never met."""

    accuracy: float | None
    interval: tuple[float, float] | None
    correct: int | None
    n: int | None
    attacks: int | None
    untried: int | None

    @classmethod
    def of(cls, record: Mapping[str, Any], n: int | None) -> "Share":
        given, attacks = whole(record, "n"), whole(record, "attacks")
        known = attacks != 0  # a worst case over no attack says nothing
        return cls(
            accuracy=share(record, "accuracy") if known else None,
            interval=ends(record, "interval") if known else None,
            correct=whole(record, "correct") if known else None,
            n=n if given is None else given,
            attacks=attacks,
            untried=whole(record, "untried") or None,
        )


@dataclass(frozen=True)
class Twin:
    """The network's worst case less its twin's on the same images, in shares of 1, and McNemar's exact p."""

    name: str
    accuracy: float | None  # the twin's
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None

    @property
    def words(self) -> str:
        return "twin" if self.name == "twin" else f"twin {self.name}"

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Twin":
        return cls(
            network_name(optional(record, "name", str) or "twin"),
            share(record, "twin_accuracy"),
            number(record, "difference"),
            ends(record, "interval"),
            number(record, "p"),
        )


@dataclass(frozen=True)
class Verdict:
    """``worst_case`` by threat: linf, l2, ..., and ``confident``, over the confident images alone."""

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
        keys = [key for key in ("linf", "confident") if key in worst]
        cases = {
            key: Share.of(typed(worst, key, dict), n if key != "confident" else None)
            for key in dict.fromkeys([*keys, *worst])
        }
        twin = optional(record, "twin", dict)
        return cls(
            n=n,
            clean=Share.of(typed(record, "clean", dict), n),
            worst_case=cases,
            twin=Twin.of(twin) if twin else None,
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
    return tuple(_audit(*key, held) for key, held in parts.items()), notes


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
