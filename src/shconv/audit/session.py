"""One audit from its plan to its verdicts: the network with all its checks, then its twin and its other seeds with
those that make a worst case, so that like is compared with like."""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import get_args

from torch import Tensor

from shconv.attacks import PGD
from shconv.attacks.budget import Norm
from shconv.attacks.cost import Cost
from shconv.audit import probe
from shconv.audit.audit import Audit
from shconv.audit.check import Check
from shconv.audit.clock import Clock, minutes
from shconv.audit.findings import Finding
from shconv.audit.ledger import FIRST_LOOK, THREATS, Ledger, check_slug
from shconv.audit.plan import HEADLINE, Plan, Planned, in_order, make_plan
from shconv.audit.preflight import preflight, spread
from shconv.audit.setting import Effort, Setting
from shconv.audit.subject import FEW, PASSES, Subject, TimeUp
from shconv.audit.verdict import judge
from shconv.audit.views import look, view_of
from shconv.errors import InputError
from shconv.experiments.network import LATER, Network
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder

MAIN, TWIN = "network", "twin"
PREFLIGHT = 0.02  # of the budget, for each of: a first look at the network, its speed, other ranges, gradients
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
            role: {"name": each.key, **Network(each.name, each.seed, each.network).identity}
            for role, each in self.subjects.items()
        }
        usual = {each.name: each.default for each in fields(Setting) if each.default is not MISSING}
        asked = {**asdict(self.setting), "images": images, "networks": networks}
        self.folder.settle_json("audit.json", asked, usual=usual, later=LATER)

    def run(self, effort: Effort | None = None) -> Audit:
        """All networks, all checks, all verdicts; returns the network's own audit."""
        clock, paces = Clock(self.folder, self.setting.seconds, self.started), dict[str, float]()
        audited = [role for role in self.subjects if not role.startswith("source ")]
        audits = {role: self._audit(role, clock, paces, 1 / len(audited)) for role in audited}
        for place, audit in enumerate(audits.values() if self.first_look and not self._planned.exists() else ()):
            self._watch(audit)
            with audit.within(1 / (len(audits) - place)):
                first_look(audit)
            self._watch(None)
        if (plan := Plan.read(self._planned)) is None:  # else the one that this folder's run began with
            plan = make_plan([*audits.values()], self.checks, clock.left(), effort, clock.spent)
            self.folder.save_json(self._planned.name, plan.stored())
        for line in plan.lines():
            self.progress.say(line)
        for role, audit in audits.items():
            audit.take(plan.effort)
            self._watch(audit)
            for check in in_order(self.checks, audit, all_of_them=role == MAIN):
                planned = plan.of(audit.subject.key, check)
                audit.until = plan.until(planned, audit.clock.spent)
                if audit.ledger.finding(check.NUMBER, check.NAME) is None:
                    self._check(audit, check, planned)
        seeds = [audit for role, audit in audits.items() if role.startswith("seed ")]
        for role, audit in reversed(audits.items()):
            beside = (audits.get(TWIN), seeds) if role == MAIN else (None, [])
            if audit.ledger.verdict_id not in self.folder.rows:
                arrays = {"correct": audit.correct, "confident": audit.confident}
                arrays |= {f"standing_{threat}": audit.standing(threat) for threat in THREATS}
                audit.ledger.add_verdict(judge(audit, *beside), arrays)
        return audits[MAIN]

    @property
    def _planned(self) -> Path:
        return self.folder.path / "plan.json"

    def _audit(self, role: str, clock: Clock, paces: dict[str, float], part: float) -> Audit:
        """The audit of a network, and what is odd about it. What is not needed to attack it may take a small share of
        its part of the time: fewer images are looked at, where they are dear."""
        subject, n = self.subjects[role], len(self.images)
        share = PREFLIGHT * self.setting.seconds * part
        speed = probe.measure(subject, self.images, self.labels, share)
        ledger = Ledger(self.folder, subject.key, self.index.cpu().numpy(), looked=self._planned.exists())
        audit = Audit(subject, self.images, self.labels, self.index, self.setting, ledger, clock, speed, self.progress)
        audit.paces = paces

        def some(passes: Cost) -> int:
            """How many images may take so many passes."""
            return max(FEW, int(min(speed.fitting(passes, share), n)))

        seen = spread(n, min(some(Cost(2, 2)), subject.batch_size))
        x, y = self.images[seen], self.labels[seen]
        audit.sight = look(subject, x, y, self.setting.eps)
        audit.said = preflight(subject, self.images, self.labels, audit.judged, audit.sight, some(Cost(4)))
        if not audit.correct.any():
            raise InputError(" ".join([f"{subject.name} classifies none of {n} images correctly.", *audit.said]))
        audit.view = view_of(subject, x[:_VIEWED], y[:_VIEWED], self.setting.eps, audit.sight)
        audit.said += [] if audit.view is None else [audit.view.said]
        if role == MAIN:
            audit.twin = self.subjects.get(TWIN)
            audit.sources = {each.name: each for word, each in self.subjects.items() if word.startswith("source ")}
            audit.seeds = {each.key: each for word, each in self.subjects.items() if word.startswith("seed ")}
        else:
            audit.sources = {self.subjects[MAIN].key: self.subjects[MAIN]}
        for sentence in audit.said:
            self.progress.say(sentence)
        return audit

    def _watch(self, audit: Audit | None) -> None:
        """Every network's passes look at the clock of this one, or of none."""
        watch = None if audit is None else audit.watch
        for subject in self.subjects.values():
            subject.model.watch = subject.one_draw.watch = watch
        if audit is not None and audit.view is not None:
            audit.view.model.watch = watch

    def _check(self, audit: Audit, check: Check, planned: Planned) -> None:
        started, key = time.monotonic(), audit.subject.key
        audit.ledger.check = check_slug(check.NUMBER, check.NAME)
        finding = Finding(None, "", not_run=planned.left_out or _too_late(audit, planned))
        if not finding.not_run:
            left = "no time limit" if math.isinf(audit.remaining()) else f"at most {minutes(audit.remaining())}"
            self.progress.say(f"{key}, check {check.NUMBER}, {check.NAME}: {left}")
            finding = _found(audit, check)
        seconds = time.monotonic() - started
        finding = replace(finding, check=check.NUMBER, name=check.NAME, source=check.SOURCE, seconds=seconds)
        audit.ledger.add_finding(finding)
        audit.clock.save()
        alarm = {True: "ALARM. ", False: "no alarm. ", None: ""}[finding.alarm]
        text = finding.text or f"check {check.NUMBER}, {check.NAME}: {finding.not_run}"
        self.progress.say(f"  {key}: {alarm}{text}")


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
        return price * audit.probe.seconds(attack.cost.times(n)) <= share * audit.remaining()

    def run(attack: PGD, threat: str, route: str = "both") -> None:
        model = audit.subject.one_draw if many and route == "both" else None
        audit.attack(f"first look, PGD-{attack.steps}", attack, route=route, threat=threat, model=model)

    # the view comes first where there is one: its gradient is the better one
    routes = (*([] if audit.view is None else [audit.view.route]), *audit.subject.routes)
    norms: tuple[Norm, ...] = get_args(Norm)
    for threat in norms:
        ladder = [PGD(setting.radius(threat), threat, steps, until_broken=not many) for steps in _FEW_STEPS]
        for route in routes:
            first = threat == "linf" and route == routes[0]
            attack = next((each for each in ladder if cheap(each, threat, _MOST)), ladder[-1]) if first else ladder[0]
            if first or cheap(attack, threat, _LOOK):
                run(attack, threat, route)
        longer = PGD(setting.radius(threat), threat, _MANY_STEPS, until_broken=False)
        if many and cheap(longer, threat, _LONGER):
            run(longer, threat)


def _found(audit: Audit, check: Check) -> Finding:
    """What a check finds. One whose attacks were cut short may raise an alarm, but not say that there is none."""
    try:
        finding = check.run(audit)
    except TimeUp:
        return Finding(None, "", not_run="left unfinished: the time was used up while it ran")
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
