"""From what was found to words: the worst case with its intervals, the alarms with their numbers, the comparison with
the twin, what was tried and what was not. No alarm is never called robustness."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from shconv.audit.audit import Audit
from shconv.audit.findings import Flags
from shconv.audit.ledger import THREATS
from shconv.audit.paired import PairedCounts
from shconv.audit.plan import HEADLINE
from shconv.audit.setting import Setting
from shconv.experiments.run_folder import Row
from shconv.experiments.study import CONFIDENT
from shconv.intervals import wilson

Case = dict[str, Any]
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Verdict:
    """Sentences, the alarms' names, and the numbers behind both: the fields of the verdict's row."""

    text: tuple[str, ...]
    alarms: tuple[str, ...]
    numbers: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        return {**self.numbers, "alarms": list(self.alarms), "text": list(self.text)}


def worst_cases(audit: Audit) -> dict[str, Case]:
    """By threat, what is left when every image met every attack of the headline; and "confident", of L-infinity's."""
    cases = {threat: _case(audit, threat) for threat in THREATS if threat == "linf" or audit.ledger.tried(threat).any()}
    return {**cases, "confident": cases["linf"]["confident"]}


def judge(
    audit: Audit, findings: Sequence[Row], preflight: Sequence[str], twin: Audit | None, seeds: Sequence[Audit]
) -> Verdict:
    """The verdict on a network whose checks have run, from their rows, beside its twin and its other seeds."""
    cases = worst_cases(audit)
    against = None if twin is None else _against_twin(audit, twin)
    spread = _spread([audit, *seeds]) if seeds else None
    raised = [row for row in findings if row["alarm"]]
    text = [
        _clean(audit),
        *worst_case_sentences(audit.setting, cases),
        *_alarms(findings),
        *_comparison(audit, twin, against),
        *_seeds(spread),
        *_tried(audit, findings),
        "A worst case is an upper bound on the accuracy under attack: another attack can only lower it.",
    ]
    n, correct = len(audit.correct), int(audit.correct.sum())
    numbers = {"n": n, "clean": _share(correct, n), "worst_case": cases, "twin": against, "seeds": spread}
    return Verdict(tuple(text), tuple(row["name"] for row in raised), {**numbers, "preflight": list(preflight)})


def worst_case_sentences(setting: Setting, cases: Mapping[str, Case]) -> list[str]:
    return [_worst(setting, threat, cases[threat]) for threat in THREATS if threat in cases]


def _case(audit: Audit, threat: str) -> Case:
    standing = audit.standing(threat)
    broken = Counter(
        label for label, right in zip(audit.broken_by(threat), audit.correct, strict=True) if label and right
    )
    return {
        **_share(int(standing.sum()), len(standing)),
        "attacks": sum(
            bool(row["n"]) and row["headline"] and row["threat"] == threat for row in audit.ledger.attacks()
        ),
        "broken_by": dict(broken.most_common()),
        "untried": int(_untried(audit, threat).sum()),
        "clean": int(audit.correct.sum()),
        "confident": _share(int((standing & audit.confident).sum()), int(audit.confident.sum())),
    }


def _worst(setting: Setting, threat: str, case: Case) -> str:
    where = threat_name(setting, threat)
    if not case["attacks"]:
        return f"Worst case {where}: no attack was tried, so nothing is known."
    confident, met = case["confident"], case["clean"] - case["untried"]
    if case["untried"] > met:
        broken = sum(case["broken_by"].values())
        few = f"Only {met} of {case['clean']} images right when clean were attacked {where}"
        return f"{few}: {broken} broken. That makes no worst case."
    held = (
        f" Of the {confident['n']} clean ones with confidence above {CONFIDENT:g}: {_words(confident)}."
        if confident["n"]
        else ""
    )
    untried = f" {case['untried']} of the images met no attack and count as right." if case["untried"] else ""
    most = ", ".join(f"{label} {count}" for label, count in list(case["broken_by"].items())[:3])
    first = f" First broken by {most}." if most else ""
    weak = " Nothing is left." if case["correct"] == 0 else ""
    return f"Worst case {where} over {_count(case['attacks'], 'attack')}: {_words(case)}.{weak}{held}{untried}{first}"


def _clean(audit: Audit) -> str:
    n, correct = len(audit.correct), int(audit.correct.sum())
    return f"{audit.subject.name} on clean images: {_words(_share(correct, n))}."


def _alarms(findings: Sequence[Row]) -> Iterator[str]:
    ran = [row for row in findings if not row["not_run"] and row["alarm"] is not None]
    raised = [row for row in ran if row["alarm"]]
    if not ran:
        yield "No check that can raise an alarm has run: this audit tells nothing about masked gradients."
    elif not raised:
        yield (
            f"None of the {_count(len(ran), 'check')} that ran raised an alarm. That is no evidence of robustness: it "
            "says only that these checks did not show the worst case above to be too high."
        )
    else:
        yield f"{len(raised)} of the {_count(len(ran), 'check')} that ran raised an alarm."
        yield from (f"Alarm, check {row['check']}, {row['name']}: {row['text']}" for row in raised)
        yield (
            "While an alarm stands, the accuracy under attack of this network, the worst case included, cannot be "
            "taken for robustness."
        )


def _comparison(audit: Audit, twin: Audit | None, against: Case | None) -> Iterator[str]:
    if twin is None or against is None:
        return
    pair = (audit, twin)
    absent = [each.subject.name for each in pair if not each.ledger.tried("linf").any()]
    if absent:
        yield f"No comparison with the {twin.subject.as_twin}: no attack was tried on {' and '.join(absent)}."
        return
    low, high = (f"{100 * end:+.1f}" for end in against["interval"])
    words = "these images show no difference"
    late = [each.subject.name for each in pair if _left_out(each)]
    if any(_untried(each).any() for each in pair):
        words = "some images met no attack, so this decides nothing"
    elif late:
        words = f"{' and '.join(late)} missed checks of the worst case for lack of time, so this decides nothing"
    elif against["p"] < SIGNIFICANT:
        side = "above" if against["difference"] > 0 else "below"
        words = f"{audit.subject.name} is {side} its twin under these attacks"
    cut = [each.subject.name for each in pair if not _whole(each)]
    yield (
        f"Beside its {twin.subject.as_twin} on the same {against['n']} images, worst case "
        f"{threat_name(audit.setting, 'linf')}: {_percent(against['accuracy'])} against "
        f"{_percent(against['twin_accuracy'])}, a difference of {100 * against['difference']:+.1f} points "
        f"(95 % interval {low} to {high}; McNemar's exact {_p(against['p'])}): {words}."
        + (f" Attacks on {' and '.join(cut)} were cut short: the two were not tried equally hard." if cut else "")
    )


def _against_twin(audit: Audit, twin: Audit) -> Case:
    ours, theirs = audit.standing("linf"), twin.standing("linf")
    counts = PairedCounts.of(ours, theirs)
    return {
        "name": twin.subject.name,
        "n": counts.n,
        "accuracy": float(ours.mean()),
        "twin_accuracy": float(theirs.mean()),
        "only_network": counts.only_first,
        "only_twin": counts.only_second,
        "difference": counts.difference,
        "interval": list(counts.interval),
        "p": counts.p,
        "clean": _difference(audit.correct, twin.correct),
    }


def _difference(first: Flags, second: Flags) -> Case:
    counts = PairedCounts.of(first, second)
    return {"difference": counts.difference, "interval": list(counts.interval), "p": counts.p}


def _spread(audits: Sequence[Audit]) -> Case:
    """Over the seeds of training: the worst case of each, their mean and standard deviation."""
    accuracy = {f"seed{audit.subject.seed}": float(audit.standing("linf").mean()) for audit in audits}
    clean = [float(audit.correct.mean()) for audit in audits]
    values = list(accuracy.values())
    return {
        "accuracy": accuracy,
        "mean": mean(values),
        "sd": stdev(values),
        "lowest": min(values),
        "highest": max(values),
        "clean_mean": mean(clean),
        "clean_sd": stdev(clean),
    }


def _seeds(spread: Case | None) -> Iterator[str]:
    if spread is not None:
        yield (
            f"Over {len(spread['accuracy'])} seeds of training, worst case within L-infinity: mean "
            f"{_percent(spread['mean'])}, standard deviation {100 * spread['sd']:.1f} points, "
            f"{_percent(spread['lowest'])} to {_percent(spread['highest'])}."
        )


def _tried(audit: Audit, findings: Sequence[Row]) -> Iterator[str]:
    rows = audit.ledger.attacks()
    tried: dict[tuple[str, str, str], list[str]] = {}
    for row in (row for row in rows if row["n"]):
        tried.setdefault((row["attack"], row["threat"], row["source"] or ""), []).append(row["route"])
    words = [_attack_words(*attack, routes) for attack, routes in tried.items()]
    yield f"Tried: {'; '.join(words)}." if words else "No attack was tried."
    cut = [f"{_label(row)} ({row['n']} images)" for row in rows if row["n"] and not row["complete"]]
    if cut:
        yield f"Cut short by the budget: {'; '.join(dict.fromkeys(cut))}."
    absent = [f"check {row['check']}, {row['name']} ({row['not_run']})" for row in findings if row["not_run"]]
    late = [_label(row) for row in rows if not row["n"] and not row["complete"]]
    absent += [f"for lack of time, {', '.join(late)}"] if late else []
    if absent:
        yield f"Not tried: {'; '.join(absent)}."
    outside = sum(row["outside"] for row in rows if row["headline"])
    if outside:
        yield f"{_count(outside, 'misclassified example')} had left the ball or [0, 1] and did not count."
    nan = sum(row["nan"] for row in rows)
    if nan:
        yield f"The network returned NaN on {_count(nan, 'attacked image')}, which counts as misclassified."


def _label(row: Row) -> str:
    return _attack_words(row["attack"], row["threat"], row["source"] or "", [row["route"]])


def _attack_words(attack: str, threat: str, source: str, routes: Sequence[str]) -> str:
    """PGD-50, linf, through both, convolution; or PGD-50, linf, transfer from twin."""
    through = f"through {', '.join(routes)}" if [*routes] != ["both"] else ""
    made = f"transfer from {source}" if source else ""
    return ", ".join(part for part in (attack, threat, through, made) if part)


def _untried(audit: Audit, threat: str = "linf") -> Flags:
    """(N,): right on the clean image, and met no attack of the headline."""
    never: Flags = audit.ledger.tried(threat) == 0
    return audit.correct & never


def _left_out(audit: Audit) -> bool:
    """Did a check of the headline not run, or not to its end, for lack of time?"""
    return any(row["check"] in HEADLINE and row["not_run"].startswith("left ") for row in audit.ledger.findings())


def _whole(audit: Audit) -> bool:
    """Did every attack of the headline come to its end?"""
    return all(row["complete"] for row in audit.ledger.attacks() if row["headline"])


def threat_name(setting: Setting, threat: str) -> str:
    if threat == "pixels":
        return "when few pixels change at will"
    if threat == "l2":
        return f"within L2 {setting.eps_l2:.3g}"
    return f"within L-infinity {255 * setting.eps:.3g}/255"


def _share(correct: int, n: int) -> Case:
    interval = list(wilson(correct, n))
    return {"correct": correct, "n": n, "accuracy": correct / n if n else None, "interval": interval}


def _words(share: Case) -> str:
    low, high = share["interval"]
    return (
        f"right on {share['correct']} of {share['n']}, {_percent(share['accuracy'])} "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"
