"""Check 12, the worst case: what is left of the accuracy when every image meets every attack of the headline."""

from shconv.audit.audit import Audit
from shconv.audit.findings import Finding
from shconv.audit.setting import Cost
from shconv.audit.verdict import worst_case_sentences, worst_cases

NUMBER = 12
NAME = "worst case"
SOURCE = "Carlini et al. 2019, On Evaluating Adversarial Robustness"
ALARM = "raises none: it is the number that the alarms are about"


def applies(audit: Audit) -> str:
    return ""


def cost(audit: Audit) -> Cost:
    """It only counts what the other checks did."""
    return Cost(0)


def run(audit: Audit) -> Finding:
    cases = worst_cases(audit)
    return Finding(NUMBER, NAME, None, " ".join(worst_case_sentences(audit.setting, cases)), cases, SOURCE)
