"""One audit from its plan to its verdicts: the network with all its checks, then its twin and its other seeds with
those that make a worst case, so that like is compared with like."""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from shconv.attacks import PGD
from shconv.attacks.cost import Cost
from shconv.audit import probe
from shconv.audit.audit import Audit
from shconv.audit.check import Check
from shconv.audit.clock import Clock, minutes
from shconv.audit.findings import Finding
from shconv.audit.ledger import FIRST_LOOK, THREATS, Ledger
from shconv.audit.plan import HEADLINE, Plan, Planned, in_order, make_plan
from shconv.audit.preflight import LEAST_IMAGES, preflight, spread
from shconv.audit.setting import Effort, Setting
from shconv.audit.subject import PASSES, Subject, TimeUp
from shconv.audit.verdict import judge
from shconv.audit.views import look, view_of
from shconv.errors import InputError
from shconv.experiments.network import Network
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import Row, RunFolder

MAIN, TWIN = "network", "twin"
NORMS: dict[str, Literal["linf", "l2"]] = {"linf": "linf", "l2": "l2"}
_PREFLIGHT = 0.02  # of the budget, for each of: measuring the speed, other ranges, gradients
_VIEWED = 32  # images on which a view is looked for
_FEW_STEPS, _MANY_STEPS = (10, 5, 2, 1), 50
_MOST, _LONGER, _LOOK = 0.6, 0.3, 0.05  # of the time left, for the first attack of the first look, a longer one, others
Subjects = dict[str, Subject]  # by role: MAIN, TWIN, "seed S", "source NAME"


@dataclass(eq=False)
class Session:
    """What the networks of one call share. Images (N, C, H, W), labels and places (N,) are on the networks' device."""

    folder: RunFolder
    setting: Setting
    progress: ExperimentProgress
    checks: Sequence[Check]
    subjects: Subjects
    images: Tensor
    labels: Tensor
    index: Tensor
    first_look: bool = False  # break what breaks easily before the plan is made
    started: float | None = None  # when the clock began, by time.monotonic

    def __post_init__(self) -> None:
        """Raises InputError where the folder's rows are of another setting, other networks or other images."""
        held = (self.images, self.labels, self.index)
        images = hashlib.sha256(b"".join(each.cpu().numpy().tobytes() for each in held)).hexdigest()[:16]
        networks = {
            role: {"name": each.key, "weights": Network(each.name, each.seed, each.network).digest}
            for role, each in self.subjects.items()
        }
        self.folder.settle_json("audit.json", {**asdict(self.setting), "images": images, "networks": networks})

    def run(self, effort: Effort | None = None) -> Audit:
        """All networks, all checks, all verdicts; returns the network's own audit."""
        clock, paces = Clock(self.folder, self.setting.seconds, self.started), dict[str, float]()
        audits, said = {}, {}
        for role in self._audited():
            audits[role], said[role] = self._audit(role, clock, paces)
            for sentence in said[role]:
                self.progress.say(sentence)
        for place, audit in enumerate(audits.values() if self.first_look and not self._planned.exists() else ()):
            self._watch(audit)
            with audit.within(1 / (len(audits) - place)):
                first_look(audit)
            self._watch(None)
        plan = self._plan(list(audits.values()), effort)
        for line in plan.lines():
            self.progress.say(line)
        for role, audit in audits.items():
            audit.take(plan.effort)
            self._watch(audit)
            for check in in_order(self.checks, audit):
                if role != MAIN and check.NUMBER not in HEADLINE:
                    continue
                planned = plan.of(audit.subject.key, check)
                audit.until = plan.until(planned, audit.clock.spent)
                if audit.ledger.finding(check.NUMBER, check.NAME) is None:
                    self._check(audit, check, planned)
        for role, audit in reversed(audits.items()):
            beside = {other: each for other, each in audits.items() if role == MAIN and other != MAIN}
            self._judge(audit, said[role], beside)
        return audits[MAIN]

    @property
    def _planned(self) -> Path:
        return self.folder.path / "plan.json"

    def _audited(self) -> Subjects:
        return {role: each for role, each in self.subjects.items() if not role.startswith("source ")}

    def _audit(self, role: str, clock: Clock, paces: dict[str, float]) -> tuple[Audit, list[str]]:
        """The audit of a network, and what is odd about it. What is not needed to attack it may take a small share of
        the time: fewer images are looked at, where they are dear."""
        subject, n = self.subjects[role], len(self.images)
        share = _PREFLIGHT * self.setting.seconds / len(self._audited())
        speed = probe.measure(subject, self.images, self.labels, share)
        ledger = Ledger(self.folder, subject.key, self.index.cpu().numpy(), looked=self._planned.exists())
        audit = Audit(subject, self.images, self.labels, self.index, self.setting, ledger, clock, speed, self.progress)
        audit.paces = paces

        def some(passes: Cost) -> int:
            """How many images may take so many passes."""
            return max(LEAST_IMAGES, int(min(speed.fitting(passes, share), n)))

        part = spread(n, min(some(Cost(2, 3)), subject.batch_size))
        x, y = self.images[part], self.labels[part]
        audit.sight = look(subject, x, y, self.setting.eps)
        said = preflight(subject, self.images, self.labels, audit.judged, audit.sight, some(Cost(4)))
        if not audit.correct.any():
            raise InputError(" ".join([f"{subject.name} classifies none of {n} images correctly.", *said]))
        audit.view = view_of(subject, x[:_VIEWED], y[:_VIEWED], self.setting.eps, audit.sight)
        said += [] if audit.view is None else [audit.view.said]
        if role == MAIN:
            audit.twin = self.subjects.get(TWIN)
            audit.sources = {each.name: each for word, each in self.subjects.items() if word.startswith("source ")}
            audit.seeds = {each.key: each for word, each in self.subjects.items() if word.startswith("seed ")}
        else:
            audit.sources = {self.subjects[MAIN].key: self.subjects[MAIN]}
        return audit, said

    def _watch(self, audit: Audit | None) -> None:
        """Every network's passes look at the clock of this one, or of none."""
        watch = None if audit is None else audit.watch
        for subject in self.subjects.values():
            subject.model.watch = subject.one_draw.watch = watch
        if audit is not None and audit.view is not None:
            audit.view.model.watch = watch

    def _plan(self, audits: Sequence[Audit], effort: Effort | None) -> Plan:
        """The plan that this folder's run began with, or a new one."""
        stored = Plan.read(self._planned)
        if stored is not None:
            return stored
        clock = audits[0].clock
        plan = make_plan(audits, self.checks, clock.left(), effort, clock.spent)
        self.folder.save_json(self._planned.name, plan.stored())
        return plan

    def _check(self, audit: Audit, check: Check, planned: Planned) -> None:
        started = time.monotonic()
        audit.ledger.check = planned.slug
        why = planned.left_out or _too_late(audit, planned)
        if why:
            finding = Finding(check.NUMBER, check.NAME, None, "", source=check.SOURCE, not_run=why)
        else:
            self.progress.say(f"{audit.subject.key}, check {check.NUMBER}, {check.NAME}: {_left(audit)}")
            finding = _run(audit, check)
        finding = replace(finding, seconds=time.monotonic() - started)
        audit.ledger.add_finding(finding)
        audit.clock.save()
        alarm = {True: "ALARM. ", False: "no alarm. ", None: ""}[finding.alarm]
        text = finding.text or f"check {check.NUMBER}, {check.NAME}: {finding.not_run}"
        self.progress.say(f"  {audit.subject.key}: {alarm}{text}")

    def _judge(self, audit: Audit, said: Sequence[str], beside: Mapping[str, Audit]) -> None:
        if audit.ledger.verdict_id in self.folder.rows:
            return
        seeds = [each for role, each in beside.items() if role.startswith("seed ")]
        verdict = judge(audit, audit.ledger.findings(), said, beside.get(TWIN), seeds)
        arrays = {"correct": audit.correct, "confident": audit.confident}
        arrays |= {f"standing_{threat}": audit.standing(threat) for threat in THREATS}
        audit.ledger.add_verdict(verdict.row(), arrays)


def first_look(audit: Audit) -> None:
    """A few cheap steps on every image, so that the plan is about those that stand.

    The first attack runs in any case, with fewer steps where there is no time for more; the others where they take a
    small part of the time left. A random network is seen through one draw at each step: eight are dear, and few images
    need them.
    """
    audit.ledger.check, setting = FIRST_LOOK, audit.setting
    many = audit.subject.is_random
    price = 1 / PASSES if many else 1.0  # of a pass that is estimated

    def cheap(attack: PGD, threat: str, share: float) -> bool:
        n = int(audit.standing(threat).sum())
        return price * audit.probe.seconds(Cost(*attack.cost).times(n)) <= share * audit.remaining()

    def run(attack: PGD, threat: str, route: str = "both") -> None:
        model = audit.subject.one_draw if many and route == "both" else None
        label = f"first look, PGD-{attack.steps}"
        audit.attack(label, attack, route=route, threat=threat, model=model)

    for threat, norm in NORMS.items():
        for route in _routes(audit):
            ladder = [PGD(setting.radius(threat), norm, steps, until_broken=not many) for steps in _FEW_STEPS]
            first = threat == "linf" and route == _routes(audit)[0]
            attack = next((each for each in ladder if cheap(each, threat, _MOST)), ladder[-1]) if first else ladder[0]
            if first or cheap(attack, threat, _LOOK):
                run(attack, threat, route)
        longer = PGD(setting.radius(threat), norm, _MANY_STEPS, until_broken=False)
        if many and cheap(longer, threat, _LONGER):
            run(longer, threat)


def _routes(audit: Audit) -> tuple[str, ...]:
    """The view comes first where there is one: its gradient is the better one."""
    view = () if audit.view is None else (audit.view.route,)
    return (*view, *audit.subject.routes)


def report_parts(session: Session, audit: Audit) -> tuple[tuple[Row, ...], tuple[Finding, ...], dict[str, Any]]:
    """The folder's rows of the audit, the network's findings, and its verdict's row."""
    rows = tuple(row for row in session.folder.rows.values() if row["experiment"] == "audit")
    findings = tuple(audit.ledger.read_finding(row) for row in audit.ledger.findings())
    return rows, findings, session.folder.rows[audit.ledger.verdict_id]


def _run(audit: Audit, check: Check) -> Finding:
    """What a check finds. One whose attacks were cut short may raise an alarm, but not say that there is none."""
    try:
        finding = check.run(audit)
    except TimeUp:
        why = "left unfinished: the time was used up while it ran"
        return Finding(check.NUMBER, check.NAME, None, "", source=check.SOURCE, not_run=why)
    cut = [row for row in audit.ledger.attacks() if row["checked_by"] == audit.ledger.check and not row["complete"]]
    if finding.alarm is not False or not cut:
        return finding
    return replace(finding, alarm=None, text=f"{finding.text} The time budget stopped it early, so it has no answer.")


def _too_late(audit: Audit, planned: Planned) -> str:
    """Why a check that was planned does not run any more: attacks stop between batches, the others cannot."""
    left = audit.remaining()
    if planned.seconds and not left:
        return "left out: the time was used up before it"
    if planned.number not in HEADLINE and planned.seconds > left:
        return f"left out for lack of time: needs about {minutes(planned.seconds)}, {minutes(left)} were left"
    return ""


def _left(audit: Audit) -> str:
    left = audit.remaining()
    return "no time limit" if math.isinf(left) else f"{minutes(left)} left"
