"""Check 12, the worst case: what is left of the accuracy when every image meets every attack of the headline.

AutoAttack's standard set comes last, on what stands after all the others: it takes longest and so far broke least. Two
of its parts are PGD as in check 2 and one is Square as in check 6. They run again because they are other people's code,
which would show a fault of ours. With a time budget its parts run one after the other, the strongest for its time
first. Each begins with the images that came nearest to falling, and ends when none of the last few falls.
"""

from collections.abc import Iterator
from dataclasses import replace

from shconv.attacks import Attack, Standard, UndetectedPGD
from shconv.attacks.budget import Norm
from shconv.attacks.cost import Cost
from shconv.attacks.losses import Loss
from shconv.audit.audit import Audit
from shconv.audit.cases import worst_cases
from shconv.audit.checks import headline
from shconv.audit.checks.side import at_most, cost_of, missing
from shconv.audit.findings import Finding
from shconv.audit.verdict import worst_case_sentences

NUMBER = 12
NAME = "worst case"
SOURCE = "Carlini et al. 2019, On Evaluating Adversarial Robustness; Croce and Hein 2020"
PARTS = {  # and how many images in a row each may miss, as a share of the patience
    "AutoAttack's APGD": (("apgd-ce", "apgd-t"), 1.0),
    "AutoAttack's FAB": (("fab-t",), 0.5),
    "AutoAttack's Square": (("square",), 0.5),
}
PLANNED = 1 / 64  # share of the full counts, from which on time is planned for more than the first part in L-infinity
OVERHEAD = 2.5  # of AutoAttack's time over that of its passes, before it has been measured


def cost(audit: Audit) -> Cost:
    """Where time is short only AutoAttack's first part is planned: the others take what the other checks leave."""
    total = sum((cost_of(each, int(audit.standing("undetected").sum())) for _, each in _past_detector(audit)), Cost(0))
    for threat, _ in _runs(audit):
        n = min(int(audit.standing(threat).sum()), audit.effort.standard_images)
        for _, attack, patience in _parts(audit, threat):
            total += cost_of(attack, OVERHEAD * min(n, patience or n))
            if audit.effort.share < PLANNED:
                return total
    return total


def run(audit: Audit) -> Finding:
    for label, attack in _past_detector(audit):
        audit.attack(label, attack, threat="undetected")
    for threat, route in _runs(audit):
        standing = audit.standing(threat, shared=route == "both" and not audit.effort.patience)
        on = at_most(audit, standing, audit.effort.standard_images, "AutoAttack", threat)
        order = headline.nearest_first(audit, on, threat) if audit.effort.patience and on.any() else None
        for label, attack, patience in _parts(audit, threat):
            left = on & audit.standing(threat, shared=route == "both" and not patience)
            if left.any():
                audit.attack(label, attack, on=left, route=route, threat=threat, order=order, patience=patience)
    cases = worst_cases(audit)
    text = " ".join([*worst_case_sentences(audit.setting, cases), *_notes(audit)])
    return Finding(None, text, cases)


def _parts(audit: Audit, threat: Norm) -> Iterator[tuple[str, Standard, int]]:
    """AutoAttack whole, or its parts with their patience."""
    radius, patience = audit.setting.radius(threat), audit.effort.patience
    if not patience:
        yield "AutoAttack", Standard(radius, threat), 0
        return
    for label, (attacks, share) in PARTS.items():
        yield label, Standard(radius, threat, attacks), max(1, round(share * patience))


def _past_detector(audit: Audit) -> Iterator[tuple[str, Attack]]:
    """What fools a detector together with the classifier, where there is one."""
    steps = audit.effort.steps[-1]
    attack = UndetectedPGD(audit.setting.eps, steps=steps, restarts=audit.effort.restarts, until_broken=True)
    losses: tuple[Loss, ...] = ("cross_entropy", "margin")
    for loss in losses if audit.subject.has_detector else ():
        label = f"PGD-{steps}x{attack.restarts} past the detector, {loss.replace('_', '-')}"
        yield label, replace(attack, loss=loss)


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
            if row["attack"].startswith("AutoAttack") and row["spared"]:
                yield (
                    f"{row['attack']}, {row['threat']}, attacked the {row['n']} images that came closest to a wrong "
                    f"class. The last of these were not broken, so the other {row['spared']} were left out."
                )
        yield from Standard(audit.setting.eps).notes(audit.subject.classes)
