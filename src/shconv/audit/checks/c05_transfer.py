"""Check 5: do another network's adversarial examples beat the network's own?

PGD runs on the vanilla twin, on other seeds of the training and on further checkpoints, and its examples are tried on
the network. An attacker who sees the network's own gradient should do better than one who sees another's. Fair terms:
one white-box run and one transferred run together, against two white-box runs. Where the transferred examples add more
than a second run, the network's gradient hides directions that break it: it is masked, not robust. Then every
image that still stands meets them.
"""

from collections.abc import Mapping
from typing import Any

from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.comparison import compared, counts, left, pgd, run_pgd
from shconv.audit.checks.side import cost_of, size
from shconv.audit.findings import Finding
from shconv.audit.subject import Subject
from shconv.audit.words import of, points
from shconv.numbers import counted
from shconv.paired import Paired

NUMBER = 5
NAME = "transfer"
SOURCE = "Tramer et al. 2017; Carlini et al. 2019"


def applies(audit: Audit) -> str:
    return "" if _others(audit) else "no twin, other seed or further checkpoint was given"


def cost(audit: Audit) -> Cost:
    n = size(audit, audit.effort.compared_images)
    return cost_of(pgd(audit), n).times(1 + len(_others(audit))) + cost_of(pgd(audit, restarts=2), n)


def run(audit: Audit) -> Finding:
    white, twice, attack = run_pgd(audit), run_pgd(audit, restarts=2), pgd(audit)
    if not white.tried:
        return Finding(None, "The white-box attack reached no image.", {"images": 0})
    label, pairs = f"PGD-{attack.steps} transferred", dict[str, tuple[Paired, Paired]]()
    for name, other in _others(audit).items():
        moved = audit.attack(label, attack, on=compared(audit), model=other.model, source=name)
        pairs[name] = counts(white, moved), counts(twice, white, moved)
        if _beats(pairs[name][0]) or _beats(pairs[name][1]):
            audit.attack(f"{label} to the rest", attack, model=other.model, source=name)
    rows = {name: _row(*each) for name, each in pairs.items() if each[0].n and each[1].n}
    alarm = any(row["beats"] or row["adds"] for row in rows.values()) if rows else None
    whole = int((white.attempted & ~white.success).sum()), white.tried
    return Finding(alarm, text(attack.steps, whole, pairs), {"images": white.tried, **rows})


def _beats(paired: Paired) -> bool:
    return paired.interval[0] > 0


def _row(direct: Paired, added: Paired) -> dict[str, Any]:
    own, theirs = left(direct)
    return {
        "n": direct.n,
        "white_box": own / direct.n,
        "transferred": theirs / direct.n,
        "only_transfer": direct.only_first,
        "difference": direct.difference,
        "interval": direct.interval,
        "added": added.difference,
        "added_interval": added.interval,
        "beats": _beats(direct),
        "adds": _beats(added),
    }


def text(steps: int, whole: tuple[int, int], pairs: Mapping[str, tuple[Paired, Paired]]) -> str:
    """By source: the white box and the transferred examples alone, then two white boxes and one of each.

    whole: images that are correct under the white-box attack, and images that it attacked.
    """
    met = {name: each for name, each in pairs.items() if each[0].n and each[1].n}
    beats = [name for name, (direct, _) in met.items() if _beats(direct)]
    adds = [name for name, (_, added) in met.items() if _beats(added) and name not in beats]
    verdict = []
    if beats:
        verdict.append(f"Transferred examples break more than the white-box attack ({', '.join(beats)})")
    if adds:
        verdict.append(f"Transferred examples add more to the white-box attack than a second run ({', '.join(adds)})")
    if not met:
        verdict.append("No transferred example was tried")
    elif not beats and not adds:
        verdict.append("No transferred examples break significantly more than the white-box attack")
    said = [
        f"{name}: accuracy {of(left(direct)[1], direct.n)} where the white-box attack gives {left(direct)[0]}, "
        f"{counted(direct.only_first, 'image')} broken by the transfer alone, accuracy {of(left(added)[1], added.n)} "
        f"under both together and {of(left(added)[0], added.n)} under two white-box runs "
        f"({points((-added.interval[1], -added.interval[0]))})"
        if name in met
        else f"{name}: not tried"
        for name, (direct, added) in pairs.items()
    ]
    return f"{'. '.join(verdict)}. Accuracy under the white-box attack, PGD-{steps}: {of(*whole)}. {'; '.join(said)}."


def _others(audit: Audit) -> dict[str, Subject]:
    twin = {} if audit.twin is None else {audit.twin.as_twin: audit.twin}
    return {**twin, **audit.sources, **audit.seeds}
