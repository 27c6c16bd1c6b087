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
from shconv.audit.ledger import FIRST_LOOK, Ledger
from shconv.audit.plan import HEADLINE, Plan, Planned, make_plan
from shconv.audit.preflight import preflight
from shconv.audit.setting import Effort, Setting
from shconv.audit.subject import Subject, TimeUp
from shconv.audit.verdict import judge
from shconv.errors import InputError
from shconv.experiments.network import Network
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import Row, RunFolder

MAIN, TWIN = "network", "twin"
NORMS: dict[str, Literal["linf", "l2"]] = {"linf": "linf", "l2": "l2"}
_FEW_STEPS = 10
_LOOK = 0.02  # of the budget, for one attack of the first look
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
        clock = Clock(self.folder, self.setting.seconds)
        said = {role: preflight(each, self.images, self.labels) for role, each in self._audited().items()}
        for sentence in (sentence for sentences in said.values() for sentence in sentences):
            self.progress.say(sentence)
        audits = {role: self._audit(role, clock, said[role]) for role in said}
        for audit in audits.values() if self.first_look and not self._planned.exists() else ():
            first_look(audit)
        plan = self._plan(list(audits.values()), effort)
        for line in plan.lines():
            self.progress.say(line)
        for role, audit in audits.items():
            audit.effort = plan.effort
            for subject in self.subjects.values():
                subject.model.watch = audit.watch
            for check in self.checks if role == MAIN else [each for each in self.checks if each.NUMBER in HEADLINE]:
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

    def _audit(self, role: str, clock: Clock, said: Sequence[str]) -> Audit:
        subject = self.subjects[role]
        speed = probe.measure(subject, self.images, self.labels)
        ledger = Ledger(self.folder, subject.key, self.index.cpu().numpy(), looked=self._planned.exists())
        audit = Audit(subject, self.images, self.labels, self.index, self.setting, ledger, clock, speed, self.progress)
        if not audit.correct.any():
            raise InputError(
                " ".join([f"{subject.name} classifies none of {len(self.images)} images correctly.", *said])
            )
        if role == MAIN:
            audit.twin = self.subjects.get(TWIN)
            audit.sources = {each.name: each for word, each in self.subjects.items() if word.startswith("source ")}
            audit.seeds = {each.key: each for word, each in self.subjects.items() if word.startswith("seed ")}
        else:
            audit.sources = {self.subjects[MAIN].key: self.subjects[MAIN]}
        return audit

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
        arrays |= {f"standing_{threat}": audit.standing(threat) for threat in ("linf", "l2", "pixels")}
        audit.ledger.add_verdict(verdict.row(), arrays)


def first_look(audit: Audit) -> None:
    """A few steps on every image, so that the plan is about those that stand. Not where that is dear by itself."""
    audit.ledger.check = FIRST_LOOK
    for threat, norm in NORMS.items():
        for route in ("both", "convolution") if audit.subject.is_shc else ("both",):
            attack = PGD(audit.setting.radius(threat), norm, _FEW_STEPS, until_broken=True)
            seconds = audit.probe.seconds(Cost(*attack.cost).times(int(audit.standing(threat).sum())))
            if seconds <= _LOOK * audit.setting.seconds:
                audit.attack(f"first look, PGD-{_FEW_STEPS}", attack, route=route, threat=threat)


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
