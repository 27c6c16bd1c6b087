"""The rows that an audit writes, as typed objects: the attacks tried, the findings of its checks and the verdict.
One Audit for each network and training seed; an audit that was stopped has no verdict yet."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from shconv.numbers import counted
from shconv.report.folder.fields import Ends, Options, Share, Texts, optional, read, typed, whole
from shconv.report.folder.rows import AUDIT, parsed, read_json_lines
from shconv.report.numbers import DASH, NOT_RUN, percent, points, points_span, said, span
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


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One attack: ``successes`` of ``n`` images broken; ``accuracy`` over all images where it was tried on all."""

    attack: str
    parameters: Options = field(default_factory=dict)
    route: str | None
    threat: str
    epsilon: float | None
    source: str | None  # the network the examples were made on, where it is another one
    n: int = 0
    successes: int = 0
    accuracy: Share | None
    interval: Ends | None
    headline: bool  # does it count for the worst case
    complete: bool
    seconds: float | None
    spared: int = 0  # images further from a wrong class than the last ones tried, which all survived

    @classmethod
    def of(cls, record: Options) -> "Tried":
        tried = read(cls, record)
        if tried.successes > tried.n:
            raise ValueError(f'"successes" is {tried.successes}, of {tried.n} images')
        counts = tried.epsilon is not None and not math.isfinite(tried.epsilon)  # pixels, and has no radius
        return replace(tried, epsilon=None) if counts else tried


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found; ``not_run`` says why it was not run, ``array`` names the file its figure is drawn from."""

    check: int
    name: str
    alarm: bool | None = None
    text: str = ""
    not_run: str = ""
    numbers: Options = field(default_factory=dict)
    source: str = ""
    array: str | None = None
    seconds: float | None = None

    @property
    def result(self) -> str:
        if self.not_run:
            return NOT_RUN
        return {True: ALARM, False: "no alarm", None: "no answer"}[self.alarm]


@dataclass(frozen=True)
class Accuracy:
    """How often the network is right: ``correct`` of ``n`` images after ``attacks``, or ``reason``, why none is known.

    ``untried`` images were not attacked; of the ``attacked`` ones ``left`` are still correct.
    """

    accuracy: Share | None
    interval: Ends | None
    correct: int | None
    n: int | None
    attacks: int | None
    untried: int | None
    attacked: int | None
    left: int | None
    reason: str | None = None

    @property
    def text(self) -> str | None:
        """In per cent with its interval; a dash and the reason where there is none."""
        if self.accuracy is None:
            return f"{DASH} ({self.reason})" if self.reason else None
        return percent(self.accuracy, 1) + said(self.interval, lambda ends: f" ({span(ends)})")

    @classmethod
    def of(cls, record: Options, n: int | None) -> "Accuracy":
        """Without a number after no attack, and where images that were not attacked would count as correct."""
        record = {**record, "n": n if record.get("n") is None else record["n"]}
        known = read(cls, {**record, **dict.fromkeys(("accuracy", "interval", "correct"))})
        untried = known.untried or None
        why = known.reason or ""
        if not why and known.attacks == 0:
            why = "no attack was tried"
        elif not why and known.n == 0:
            why = "no image"
        elif not why and untried:
            why = f"{counted(untried, 'image')} {'was' if untried == 1 else 'were'} not attacked"
        if not why:
            return replace(read(cls, record), untried=None)
        if untried and known.attacked and known.left is not None:
            why += f"; {known.left:,} of the {known.attacked:,} attacked are still right"
        return replace(known, untried=untried, reason=why)


@dataclass(frozen=True)
class Twin:
    """Two worst cases on the same images and over the same ``attacks``: the network's minus its twin's in shares of 1,
    McNemar's exact p; or the ``reason`` why there is no comparison."""

    name: str = "twin"
    accuracy: Share | None = None  # the network's
    twin_accuracy: Share | None = None
    difference: float | None = None
    interval: Ends | None = None
    p: float | None = None
    attacks: int | None = None
    reason: str = ""

    @property
    def words(self) -> str:
        return "twin" if self.name == "twin" else f"twin {self.name}"

    @property
    def text(self) -> str:
        """The difference in points with its interval; a dash and the reason where there is none."""
        if self.difference is None:
            return f"{DASH} ({self.reason or 'not compared'})"
        return points(self.difference) + said(self.interval, lambda ends: f" ({points_span(ends)})")

    @classmethod
    def of(cls, record: Options) -> "Twin":
        name, reason = network_name(optional(record, "name", str) or "twin"), optional(record, "reason", str)
        return read(cls, {"name": name, "reason": reason} if reason else {**record, "name": name})


@dataclass(frozen=True)
class Verdict:
    """``worst_case`` by threat: linf, l2, ...; after a slash "shared", over the attacks that any network can meet; and
    ``confident``, over the confident images alone."""

    n: int
    clean: Accuracy
    worst_case: Mapping[str, Accuracy]
    twin: Twin | None
    text: Texts = ()
    preflight: Texts = ()

    @classmethod
    def of(cls, record: Options) -> "Verdict":
        worst = typed(record, "worst_case", dict)
        n = 0 if record.get("n") is None else whole(record, "n")
        linf = typed(worst, "linf", dict) if "linf" in worst else {}
        inherited = {key: linf[key] for key in ("attacks", "untried", "reason") if key in linf}
        cases = {}
        for key in dict.fromkeys([*(key for key in ("linf", CONFIDENT) if key in worst), *worst]):
            case = typed(worst, key, dict)
            if key == CONFIDENT:
                cases[key] = Accuracy.of(case if "attacks" in case else {**inherited, **case}, None)
                continue
            if shared := optional(case, "shared", dict):
                cases[f"{key}{SHARED}"] = Accuracy.of(shared, n)
            cases[key] = Accuracy.of(case, n)
        told = optional(record, "twin", dict)
        twin = Twin.of(told) if told else None
        if twin and not twin.reason and "linf" in cases and cases["linf"].reason:
            twin = Twin(twin.name, reason=f"of this network {cases['linf'].reason}")
        return read(cls, record, n=n, clean=Accuracy.of(typed(record, "clean", dict), n), worst_case=cases, twin=twin)


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
        absent = [Finding(check=k, name=name, not_run=why) for k, name in CHECKS.items() if k not in held]
        return tuple(sorted([*self.findings, *absent], key=lambda finding: finding.check))

    @property
    def worst_cases(self) -> Mapping[str, Accuracy]:
        """None yet where there is no verdict."""
        return self.verdict.worst_case if self.verdict else {}

    def epsilon(self, threat: str) -> float | None:
        """The budget that was audited: the largest among the attacks that count for the worst case."""
        known = [each.epsilon for each in self.tried if each.headline and each.threat == threat]
        return max((epsilon for epsilon in known if epsilon is not None), default=None)


Part = Tried | Finding | Verdict


def read_audits(path: Path) -> tuple[tuple[Audit, ...], list[str]]:
    """The audits of a rows.jsonl, in the order begun, and notes on what was left out.

    Raises InputError, naming the line, where a row cannot be an audit's.
    """
    records, _ = read_json_lines(path)
    rows, notes = parsed(path, [each for each in records if each[1].get("experiment") == AUDIT], _part)
    parts: dict[tuple[str, int], list[Part]] = {}
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
                twin = Twin(twin.name, reason=f"of {other.name} {worst.reason}")
                return replace(audit, verdict=replace(audit.verdict, twin=twin))
    return audit


def _part(record: Options) -> tuple[tuple[str, int], Part]:
    """(network, seed) and what the row says of it; a network's name may hold slashes."""
    id = typed(record, "id", str)
    match = re.fullmatch(r"audit/(.+)/seed(\d+)/(?:attack/.+|check/.+|verdict)", id)
    if match is None:
        raise ValueError(f'"id" is {id!r}, not audit/MODEL/seedS/...')
    kinds: dict[str, Callable[[Options], Part]]
    kinds = {"attack": Tried.of, "finding": partial(read, Finding), "verdict": Verdict.of}
    kind = typed(record, "kind", str)
    if kind not in kinds:
        raise ValueError(f'"kind" is {kind!r}, not one of {", ".join(kinds)}')
    return (match[1], int(match[2])), kinds[kind](record)


def _audit(model: str, seed: int, parts: list[Part]) -> Audit:
    tried = tuple(part for part in parts if isinstance(part, Tried))
    findings = tuple(part for part in parts if isinstance(part, Finding))
    verdicts = [part for part in parts if isinstance(part, Verdict)]
    return Audit(model, seed, tried, findings, verdicts[-1] if verdicts else None)
