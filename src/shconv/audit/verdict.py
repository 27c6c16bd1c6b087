"""From what was found to words: the worst case with its intervals, the alarms with their numbers, the comparison with
the twin, what was tried and what was not. No alarm is never called robustness."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shconv.audit.audit import Audit
from shconv.audit.cases import BLIND, NO_ATTACK, Case, against_twin, share, spread, worst_cases
from shconv.audit.ledger import THREATS
from shconv.audit.setting import Setting
from shconv.audit.words import percent
from shconv.experiments.run_folder import Row
from shconv.numbers import counted, in_points, radius_text
from shconv.paired import SIGNIFICANT, p_text

WORST_CASE = 12  # the check that raises no alarm
FEW = 20  # confident images below which their worst case is said to rest on few


def judge(audit: Audit, twin: Audit | None, seeds: Sequence[Audit]) -> dict[str, Any]:
    """The verdict on a network whose checks have run, beside its twin and its other seeds: the fields of its row."""
    findings, cases = audit.ledger.findings(), worst_cases(audit)
    against = None if twin is None else against_twin(audit, twin)
    over_seeds = spread([audit, *seeds]) if seeds else None
    n, name = len(audit.correct), audit.subject.name
    clean = share(int(audit.correct.sum()), n)
    text = [f"{name} on clean images: {_words(clean)}.", *worst_case_sentences(audit.setting, cases)]
    text += [*check_sentences(findings), *source_sentences(audit, cases["linf"])]
    if twin is not None and against is not None:
        text.append(twin_sentence(name, twin.subject.as_twin, against))
    if over_seeds is not None:
        text.append(seeds_sentence(over_seeds))
    text += _tried(audit, findings)
    text.append("A worst case is an upper bound on the accuracy under attack: another attack can only lower it.")
    numbers = {"n": n, "clean": clean, "worst_case": cases, "twin": against, "seeds": over_seeds}
    raised = [row["name"] for row in findings if row["alarm"]]
    return {**numbers, "preflight": audit.said, "alarms": raised, "text": text}


def worst_case_sentences(setting: Setting, cases: Mapping[str, Case]) -> list[str]:
    return [worst_case_sentence(threat_name(setting, threat), cases[threat]) for threat in THREATS if threat in cases]


def worst_case_sentence(where: str, case: Case) -> str:
    """A worst case in words; where images were not attacked, what happened to those that were, and that it is none."""
    if case["reason"] in (NO_ATTACK, BLIND):
        return f"Worst case {where}: {case['reason']}, so nothing is known."
    if case["reason"]:
        return (
            f"No worst case {where}: {case['attacked']} of {case['clean']} correct images were attacked, and "
            f"{case['left']} of them are still correct. The other {case['untried']} were not attacked."
        )
    shared, confident = case["shared"], case["confident"]
    said = [f"Worst case {where} over {counted(case['attacks'], 'attack')}: {_words(case)}."]
    if case["correct"] == 0:
        said.append("No image survived.")
    if not shared["reason"] and shared["attacks"] < case["attacks"]:
        said.append(
            f"{counted(shared['attacks'], 'attack')} of these can be run on any network, and attacked every image that "
            f"had survived; under these the accuracy is {percent(shared['accuracy'])}. The others go through the "
            "network's own gradient routes, were made on other networks, or came to a part of the images."
        )
    if confident["n"] and not confident["reason"]:
        said.append(
            f"On the correct images with confidence above {confident['min_confidence']:g}: {_words(confident)}. "
            f"They belong to {confident['classes']} of the {confident['of_classes']} classes, "
            f"{confident['largest']} of them to one class."
        )
        if confident["largest"] > confident["n"] / 2 and confident["of_classes"] > 2:
            said.append("Most of them are of one class, so this number says nothing about the other classes.")
        if confident["n"] < FEW:
            said.append(
                f"{counted(confident['n'], 'image')} {'is' if confident['n'] == 1 else 'are'} too few to say much."
            )
    most = ", ".join(f"{label} {broken}" for label, broken in list(case["broken_by"].items())[:3])
    if most:
        said.append(f"Images broken first by each attack: {most}.")
    return " ".join(said)


def check_sentences(findings: Sequence[Row]) -> Iterator[str]:
    """Every check that ran in one list: those that raised an alarm, raised none, or have no answer."""
    able = [row for row in findings if not row["not_run"] and row["check"] != WORST_CASE]
    raised, calm, open_ = ([row for row in able if row["alarm"] is alarm] for alarm in (True, False, None))
    told = len(raised) + len(calm)
    if not told:
        yield "No check gave an answer: this audit says nothing about masked gradients."
    elif not raised:
        yield (
            f"None of the {counted(told, 'check')} with an answer raised an alarm. This is no evidence of robustness. "
            "It only means that these checks did not show the accuracies above to be too high."
        )
    else:
        yield f"{len(raised)} of the {counted(told, 'check')} with an answer raised an alarm."
        yield from (f"Alarm, {_check_name(row)}: {row['text']}" for row in raised)
        yield (
            "With an alarm, this network's accuracy under attack, including the worst case, cannot be taken as "
            "evidence of robustness."
        )
    for words, rows in (("No alarm", calm), ("No answer", open_)):
        if rows:
            yield f"{words}: {'; '.join(_check_name(row) for row in rows)}."


def source_sentences(audit: Audit, linf: Case) -> Iterator[str]:
    """What would tell more about a network without a gradient."""
    if audit.blind and not (audit.twin or audit.sources or audit.seeds) and linf["left"]:
        yield (
            f"{audit.subject.name} has no gradient that attacks could follow. Give a source network: another "
            "checkpoint for the same task (--sources, in Python sources=). Examples made on it need no gradient of "
            "this network, and usually break more images than searches do."
        )


def _check_name(row: Row) -> str:
    return f"check {row['check']}, {row['name']}"


def twin_sentence(name: str, twin: str, against: Case) -> str:
    """The comparison of two networks' worst cases within L-infinity, or why there is none."""
    if against["reason"]:
        return f"No comparison with the {twin}: {against['reason']}."
    low, high = map(in_points, against["interval"])
    words = f"{name} is not significantly different from its twin"
    if against["p"] < SIGNIFICANT:
        words = f"{name} is {'above' if against['difference'] > 0 else 'below'} its twin under these attacks"
    others = [
        f"{whose} {percent(case['accuracy'])} over {counted(case['attacks'], 'attack')}"
        for whose, case in ((name, against["all"]["network"]), (f"the {twin}", against["all"]["twin"]))
        if case["accuracy"] is not None and case["attacks"] != against["attacks"]
    ]
    more = f" Over all attacks on each of them, which are not the same: {', '.join(others)}." if others else ""
    left = f" Left out, because only one of them was attacked in full: {', '.join(against['left_out'])}."
    return (
        f"Comparison with its {twin}, on the same {counted(against['n'], 'image')} and over the same "
        f"{counted(against['attacks'], 'attack')}, worst case within L-infinity: {name} "
        f"{percent(against['accuracy'])}, its twin {percent(against['twin_accuracy'])}, difference "
        f"{in_points(against['difference'])} points (95 % interval {low} to {high}; McNemar's exact "
        f"{p_text(against['p'])}). {words}.{left if against['left_out'] else ''}{more}"
    )


def seeds_sentence(over: Case) -> str:
    """Mean and spread over training seeds, of those that have a worst case."""
    left_out = "; ".join(f"{name}: {why}" for name, why in over["left_out"].items())
    without = f" Without a worst case: {left_out}." if left_out else ""
    if over["sd"] is None:
        return f"No spread over training seeds: fewer than two have a worst case within L-infinity.{without}"
    return (
        f"Over {len(over['accuracy'])} training seeds, worst case within L-infinity: mean "
        f"{percent(over['mean'])}, standard deviation {100 * over['sd']:.1f} points, "
        f"{percent(over['lowest'])} to {percent(over['highest'])}.{without}"
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
        yield f"Stopped early by the time budget: {'; '.join(dict.fromkeys(cut))}."
    nearest = [f"{_label(row)} ({row['n']} of {row['n'] + row['spared']})" for row in rows if row.get("spared")]
    if nearest:
        yield (
            "On the images that came closest to a wrong class only, as the last of these were not broken: "
            f"{'; '.join(nearest)}."
        )
    absent = [f"{_check_name(row)} ({row['not_run']})" for row in findings if row["not_run"]]
    late = [_label(row) for row in rows if not row["n"] and not row["complete"]]
    absent += [f"for lack of time, {', '.join(late)}"] if late else []
    if absent:
        yield f"Not tried: {'; '.join(absent)}."
    outside = sum(row["outside"] for row in rows)
    if outside:
        yield f"{counted(outside, 'misclassified example')} lay outside the ball or [0, 1] and did not count."
    nan = sum(row["nan"] for row in rows)
    if nan:
        images = counted(nan, "attacked image")
        yield f"The network returned NaN or infinity on {images}, which counts as misclassified."


def _label(row: Row) -> str:
    return _attack_words(row["attack"], row["threat"], row["source"] or "", [row["route"]])


def _attack_words(attack: str, threat: str, source: str, routes: Sequence[str]) -> str:
    """PGD-50, linf, through both, convolution; or PGD-50, linf, transfer from twin."""
    through = f"through {', '.join(routes)}" if [*routes] != ["both"] else ""
    made = f"transfer from {source}" if source else ""
    return ", ".join(part for part in (attack, threat, through, made) if part)


def threat_name(setting: Setting, threat: str) -> str:
    linf = f"within L-infinity {radius_text(setting.eps)}"
    return {
        "linf": linf,
        "l2": f"within L2 {radius_text(setting.eps_l2)}",
        "pixels": "when a few pixels may change freely",
        "undetected": f"{linf} and past the detector",
    }[threat]


def _words(case: Case) -> str:
    low, high = case["interval"]
    return (
        f"correct on {case['correct']} of {case['n']}, {percent(case['accuracy'])} "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )
