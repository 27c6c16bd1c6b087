"""The numbers of a verdict, as JSON has them: worst cases, the comparison with a twin, the spread over seeds.
Where attacks have not come to every image there is no accuracy, only a reason."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from shconv.audit.audit import Audit
from shconv.audit.findings import Flags, any_of
from shconv.audit.ledger import THREATS
from shconv.experiments.run_folder import Row
from shconv.intervals import wilson
from shconv.numbers import counted
from shconv.paired import Paired

Case = dict[str, Any]
NO_ATTACK = "no attack was tried"
BLIND = "only attacks by gradient were tried, and the gradient is 0 on most images"


def worst_cases(audit: Audit) -> dict[str, Case]:
    """By threat, what is left when every image met every attack of the headline; and "confident", of L-infinity's."""
    wanted = {"linf", *(["undetected"] if audit.subject.has_detector else [])}
    cases = {threat: _case(audit, threat) for threat in THREATS if threat in wanted or audit.ledger.tried(threat).any()}
    return {**cases, "confident": cases["linf"]["confident"]}


def _case(audit: Audit, threat: str) -> Case:
    ledger, sound, all_of_them = audit.ledger, audit.sound(threat), np.ones(len(audit.correct), bool)
    standing, met = audit.standing(threat), ledger.tried(threat)
    rows, shared = ([row for row, _ in ledger.under(threat, each) if row["n"]] for each in (False, True))
    attacks = _count(rows)
    first = Counter(label for label, right in zip(ledger.broken_by(threat), sound, strict=True) if label and right)
    about = {**attacks, "broken_by": dict(first.most_common())}
    sharing = audit.standing(threat, shared=True), ledger.tried(threat, shared=True)
    return {
        **_over(sound, standing, met, all_of_them, about),
        "confident": _over(sound, standing, met, audit.confident, attacks) | _classes(audit),
        "shared": _over(sound, *sharing, all_of_them, _count(shared)) | {"names": [row["attack"] for row in shared]},
    }


def _count(rows: Sequence[Row]) -> Case:
    return {"attacks": len(rows), "blind": bool(rows) and all(row.get("blind") for row in rows)}


def _classes(audit: Audit) -> Case:
    """How the confident images spread over the classes, and what confident means."""
    of_each = np.bincount(audit.labels.cpu().numpy()[audit.confident], minlength=1)
    classes = {"classes": int((of_each > 0).sum()), "of_classes": audit.subject.classes, "largest": int(of_each.max())}
    return {"min_confidence": audit.setting.min_confidence, **classes}


def _over(sound: Flags, standing: Flags, met: Flags, images: Flags, about: Case) -> Case:
    """Right on how many of the images (N,), where every one that could be broken met an attack that could break it;
    else no accuracy.

    sound (N,): `Audit.sound`. met (N,): the images that attacks came to. attacked and left: how many are sound and
    met, and survive.
    """
    can = sound & images
    attacked, left = int((can & met).sum()), int((standing & met & images).sum())
    untried = int((can & ~met).sum())
    held = {"clean": int(can.sum()), "untried": untried, "attacked": attacked, "left": left, **about}
    never = f"{counted(untried, 'image')} {'was' if untried == 1 else 'were'} not attacked" if untried else ""
    why = NO_ATTACK if not about["attacks"] else BLIND if about["blind"] and left else never
    if why:
        return {"correct": None, "n": int(images.sum()), "accuracy": None, "interval": None, "reason": why, **held}
    return {**share(left, int(images.sum())), "reason": "", **held}


def against_twin(audit: Audit, twin: Audit) -> Case:
    """The worst cases of two networks image by image, over the attacks that both met; else the reason why not.

    Differences: network minus twin. An attack that only one met counts where the other had nothing left to attack.
    """
    pair, n = (audit, twin), len(audit.correct)
    about = {"name": twin.subject.name, "n": n, "clean": _difference(Paired.of(audit.correct, twin.correct))}
    absent = [each.subject.name for each in pair if not any(row["n"] for row, _ in each.ledger.under("linf"))]
    met = [{row["attack"]: each for row, each in one.ledger.under("linf", shared=True)} for one in pair]
    names = [name for name in met[0] if name in met[1]]

    def stands(place: int, names: Sequence[str]) -> Flags:
        return pair[place].correct & ~any_of([met[place][name].success for name in names], n)

    untried = [
        f"{counted(int(never.sum()), 'image')} of {each.subject.name}"
        for each, held in zip(pair, met, strict=True)
        if (never := each.correct & ~any_of([held[name].attempted for name in names], n)).any()
    ]
    reason = f"{' and '.join(untried)} had none of the attacks that both networks had in full"
    if absent:
        reason = f"{NO_ATTACK} on {' and '.join(absent)}"
    if absent or untried:
        empty = dict.fromkeys(("accuracy", "twin_accuracy", "difference", "interval", "p"))
        return {**about, "reason": reason, "attacks": 0, **empty}
    # what one met alone counts where the other had nothing left for it to attack, and is left out where it had
    alone = [[name for name in held if name not in names] for held in met]
    fair = [alone[place] if not stands(1 - place, names).any() else [] for place in (0, 1)]
    own, other = (stands(place, [*names, *fair[place]]) for place in (0, 1))
    counts = Paired.of(own, other)
    return {
        **about,
        "reason": "",
        "attacks": len(names) + sum(map(len, fair)),
        "left_out": [name for held, more in zip(alone, fair, strict=True) for name in held if name not in more],
        "accuracy": float(own.mean()),
        "twin_accuracy": float(other.mean()),
        "only_network": counts.only_first,
        "only_twin": counts.only_second,
        **_difference(counts),
        "all": {"network": _whole(audit), "twin": _whole(twin)},
    }


def _whole(audit: Audit) -> Case:
    """Accuracy over all attacks that the network met, its own routes, transfers and searches included."""
    case = _case(audit, "linf")
    return {key: case[key] for key in ("accuracy", "interval", "attacks")}


def _difference(counts: Paired) -> Case:
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
