"""The numbers of a verdict, as JSON has them: worst cases, the comparison with a twin, the spread over seeds.
Where attacks have not come to every image there is no accuracy, only a reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from shconv.audit.audit import Audit
from shconv.audit.findings import Flags
from shconv.audit.ledger import THREATS
from shconv.intervals import wilson
from shconv.report.computed.intervals import Paired

Case = dict[str, Any]
NO_ATTACK = "no attack was tried"


def worst_cases(audit: Audit) -> dict[str, Case]:
    """By threat, what is left when every image met every attack of the headline; and "confident", of L-infinity's."""
    wanted = {"linf", *(["undetected"] if audit.subject.has_detector else [])}
    cases = {threat: _case(audit, threat) for threat in THREATS if threat in wanted or audit.ledger.tried(threat).any()}
    return {**cases, "confident": cases["linf"]["confident"]}


def _case(audit: Audit, threat: str) -> Case:
    standing, met = audit.standing(threat), audit.ledger.tried(threat) > 0
    sound = audit.sound(threat)
    first = zip(audit.broken_by(threat), sound, strict=True)
    broken = Counter(label for label, right in first if label and right)
    rows = [row for row, _ in audit.ledger.headline(threat) if row["n"]]
    shared = [row["attack"] for row in rows if row.get("shared")]
    about = {"attacks": len(rows), "broken_by": dict(broken.most_common())}
    whole = np.ones(len(standing), bool)
    sharing = audit.ledger.tried(threat, shared=True) > 0
    return {
        **_over(sound, standing, met, whole, about),
        "confident": _over(sound, standing, met, audit.confident, {"attacks": len(rows)}) | _classes(audit),
        "shared": _over(sound, audit.standing(threat, shared=True), sharing, whole, {"attacks": len(shared)})
        | {"names": shared},
    }


def _classes(audit: Audit) -> Case:
    """How the confident images spread over the classes, and what confident means."""
    of_each = np.bincount(audit.labels.cpu().numpy()[audit.confident], minlength=1)
    classes = {"classes": int((of_each > 0).sum()), "of_classes": audit.subject.classes, "largest": int(of_each.max())}
    return {"min_confidence": audit.setting.min_confidence, **classes}


def _over(sound: Flags, standing: Flags, met: Flags, images: Flags, about: Case) -> Case:
    """Right on how many of the images (N,), where every one that could be broken met an attack; else no accuracy.

    sound (N,): `Audit.sound`. met (N,): the images that attacks came to. attacked and left: how many are sound and
    met, and survive.
    """
    can = sound & images
    attacked, left = int((can & met).sum()), int((standing & met & images).sum())
    untried = int((can & ~met).sum())
    held = {"clean": int(can.sum()), "untried": untried, "attacked": attacked, "left": left, **about}
    never = f"{count(untried, 'image')} {'was' if untried == 1 else 'were'} not attacked" if untried else ""
    why = never if about["attacks"] else NO_ATTACK
    if why:
        return {"correct": None, "n": int(images.sum()), "accuracy": None, "interval": None, "reason": why, **held}
    return {**share(left, int(images.sum())), "reason": "", **held}


def against_twin(audit: Audit, twin: Audit) -> Case:
    """The worst cases of two networks image by image, over the attacks that both met; else the reason why not.

    Differences: network minus twin. An attack that only one met counts where the other had nothing left to attack.
    """
    pair = (audit, twin)
    about = {"name": twin.subject.name, "n": len(audit.correct), "clean": _difference(audit.correct, twin.correct)}
    absent = [each.subject.name for each in pair if not any(row["n"] for row, _ in each.ledger.headline("linf"))]
    if absent:
        return _no_difference(about, f"{NO_ATTACK} on {' and '.join(absent)}")
    broken = [
        {
            row["attack"]: (record.success, record.attempted)
            for row, record in each.ledger.headline("linf")
            if row.get("shared")
        }
        for each in pair
    ]
    names = [name for name in broken[0] if name in broken[1]]
    stands = [_stands(each, held, names) for each, held in zip(pair, broken, strict=True)]
    untried = [
        f"{count(int(never.sum()), 'image')} of {each.subject.name}"
        for each, held in zip(pair, broken, strict=True)
        if (never := each.correct & ~_any([held[name][1] for name in names], len(each.correct))).any()
    ]
    if untried:
        return _no_difference(about, f"{' and '.join(untried)} had none of the attacks that both networks had in full")
    # what one met alone counts where the other had nothing left for it to attack, and is left out where it had
    alone = [[name for name in held if name not in names] for held in broken]
    fair = [alone[place] if not stands[1 - place].any() else [] for place in (0, 1)]
    stands = [_stands(each, held, [*names, *more]) for each, held, more in zip(pair, broken, fair, strict=True)]
    counts = Paired.of(*stands)
    return {
        **about,
        "reason": "",
        "attacks": len(names) + sum(map(len, fair)),
        "left_out": [name for held, more in zip(alone, fair, strict=True) for name in held if name not in more],
        "accuracy": float(stands[0].mean()),
        "twin_accuracy": float(stands[1].mean()),
        "only_network": counts.only_first,
        "only_twin": counts.only_second,
        "difference": counts.difference,
        "interval": list(counts.interval),
        "p": counts.p,
        "all": {"network": _whole(audit), "twin": _whole(twin)},
    }


def _stands(audit: Audit, held: Mapping[str, tuple[Flags, Flags]], names: Sequence[str]) -> Flags:
    flags: Flags = audit.correct & ~_any([held[name][0] for name in names], len(audit.correct))
    return flags


def _any(flags: Sequence[Flags], n: int) -> Flags:
    either: Flags = np.logical_or.reduce([np.zeros(n, bool), *flags])
    return either


def _whole(audit: Audit) -> Case:
    """Accuracy over all attacks that the network met, its own routes, transfers and searches included."""
    case = _case(audit, "linf")
    return {key: case[key] for key in ("accuracy", "interval", "attacks")}


def _no_difference(about: Case, reason: str) -> Case:
    empty = ("accuracy", "twin_accuracy", "difference", "interval", "p")
    return {**about, "reason": reason, "attacks": 0, **dict.fromkeys(empty)}


def _difference(first: Flags, second: Flags) -> Case:
    counts = Paired.of(first, second)
    return {"difference": counts.difference, "interval": list(counts.interval), "p": counts.p}


def spread(audits: Sequence[Audit]) -> Case:
    """Over the seeds of training: the worst case of each, their mean and standard deviation.

    A seed whose images did not all meet an attack has none and is named in `left_out`.
    """
    cases = {f"seed{audit.subject.seed}": _case(audit, "linf") for audit in audits}
    accuracy = {name: case["accuracy"] for name, case in cases.items() if case["accuracy"] is not None}
    clean, values = [float(audit.correct.mean()) for audit in audits], list(accuracy.values())
    return {
        "accuracy": accuracy,
        "left_out": {name: case["reason"] for name, case in cases.items() if name not in accuracy},
        "mean": mean(values) if values else None,
        "sd": stdev(values) if len(values) > 1 else None,
        "lowest": min(values, default=None),
        "highest": max(values, default=None),
        "clean_mean": mean(clean),
        "clean_sd": stdev(clean),
    }


def share(correct: int, n: int) -> Case:
    """Of no images there is neither accuracy nor interval."""
    return {
        "correct": correct,
        "n": n,
        "accuracy": correct / n if n else None,
        "interval": list(wilson(correct, n)) if n else None,
    }


def count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"
