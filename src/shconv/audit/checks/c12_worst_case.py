"""Check 12, the worst case: what is left of the accuracy when every image meets every attack of the headline.

AutoAttack's standard set comes last, on what stands after all the others: it takes longest and so far broke least. Two
of its parts are PGD as in check 2 and one is Square as in check 6. They run again because they are other people's code,
which would show a fault of ours. With a time budget it begins with the images that came nearest to falling, and ends
when none of the last few falls.
"""

from collections.abc import Iterator

from shconv.attacks import Standard
from shconv.attacks.budget import Norm
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.cases import worst_cases
from shconv.audit.checks import headline
from shconv.audit.checks.side import at_most, cost_of, missing
from shconv.audit.findings import Finding
from shconv.audit.verdict import worst_case_sentences

NUMBER = 12
NAME = "worst case"
SOURCE = "Carlini et al. 2019, On Evaluating Adversarial Robustness; Croce and Hein 2020"
ALARM = "none: the alarms of the other checks are about this number"
PLANNED = 1 / 64  # share of the full counts, from which on time is planned for AutoAttack
OVERHEAD = 2.5  # of AutoAttack's time over that of its passes, before it has been measured


def applies(audit: Audit) -> str:
    return ""


def cost(audit: Audit) -> Cost:
    """Where time is short nothing is planned for AutoAttack: it takes what the other checks leave."""
    total = Cost(0)
    if audit.effort.share < PLANNED:
        return total
    for threat, _ in _runs(audit):
        images = headline.patient(audit, min(int(audit.standing(threat).sum()), audit.effort.standard_images))
        total += cost_of(Standard(audit.setting.radius(threat), threat), OVERHEAD * images)
    return total


def run(audit: Audit) -> Finding:
    patience = audit.effort.patience
    for threat, route in _runs(audit):
        standing = audit.standing(threat, shared=route == "both" and not patience)
        on = at_most(audit, standing, audit.effort.standard_images, "AutoAttack", threat)
        if on.any():
            order = headline.nearest_first(audit, on, threat) if patience else None
            attack = Standard(audit.setting.radius(threat), threat)
            audit.attack("AutoAttack", attack, on=on, route=route, threat=threat, order=order, patience=patience)
    cases = worst_cases(audit)
    text = " ".join([*worst_case_sentences(audit.setting, cases), *_notes(audit)])
    return Finding(NUMBER, NAME, None, text, cases, SOURCE)


def _runs(audit: Audit) -> Iterator[tuple[Norm, str]]:
    """Threats and how AutoAttack looks at the network: by its view or as it is; not at all without a gradient."""
    if not missing("pyautoattack") and audit.effort.standard_images:
        for threat in headline.THREATS:
            yield from ((threat, route) for route in headline.routes(audit)[:1])


def _notes(audit: Audit) -> Iterator[str]:
    """What is different about AutoAttack, in sentences."""
    if why := missing("pyautoattack"):
        yield f"AutoAttack was left out: {why}."
    elif not audit.effort.standard_images:
        yield "AutoAttack was left out for lack of time."
    elif not headline.routes(audit):
        yield "AutoAttack was left out: three of its attacks need a gradient, and the fourth, Square, is in check 6."
    else:
        for row in audit.ledger.attacks():
            if row["attack"] == "AutoAttack" and row["spared"]:
                yield (
                    f"AutoAttack, {row['threat']}, attacked the {row['n']} images that came closest to a wrong class. "
                    f"None of the last {audit.effort.patience} was broken, so the other {row['spared']} were left out."
                )
        yield from Standard(audit.setting.eps).notes(audit.subject.classes)
