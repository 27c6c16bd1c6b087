"""Check 12, the worst case: what is left of the accuracy when every image meets every attack of the headline.

AutoAttack's standard set comes last, on what stands after all the others: it takes longest and so far broke least.
"""

from shconv.attacks import Standard
from shconv.attacks.budget import Norm
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.cases import worst_cases
from shconv.audit.checks.side import at_most, cost_of, missing
from shconv.audit.findings import Finding
from shconv.audit.verdict import worst_case_sentences

NUMBER = 12
NAME = "worst case"
SOURCE = "Carlini et al. 2019, On Evaluating Adversarial Robustness; Croce and Hein 2020"
ALARM = "none: the alarms of the other checks are about this number"


def applies(audit: Audit) -> str:
    return ""


def cost(audit: Audit) -> Cost:
    total = Cost(0)
    for threat in _threats():
        images = min(int(audit.standing(threat, shared=True).sum()), audit.effort.standard_images)
        total += cost_of(Standard(audit.setting.radius(threat), threat), images)
    return total


def run(audit: Audit) -> Finding:
    for threat in _threats():
        on = at_most(audit, audit.standing(threat, shared=True), audit.effort.standard_images, "AutoAttack", threat)
        if on.any():
            audit.attack("AutoAttack", Standard(audit.setting.radius(threat), threat), on=on, threat=threat)
    cases = worst_cases(audit)
    text = " ".join([*worst_case_sentences(audit.setting, cases), *_notes(audit)])
    return Finding(NUMBER, NAME, None, text, cases, SOURCE)


def _threats() -> tuple[Norm, ...]:
    """Against which AutoAttack runs."""
    return () if missing("pyautoattack") else ("linf", "l2")


def _notes(audit: Audit) -> list[str]:
    """What is different about AutoAttack, in sentences."""
    if why := missing("pyautoattack"):
        return [f"AutoAttack was left out: {why}."]
    if not audit.effort.standard_images:
        return ["AutoAttack was left out for lack of time."]
    return list(Standard(audit.setting.eps).notes(audit.subject.classes))
