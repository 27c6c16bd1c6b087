"""Check 7: does blind chance find what gradients missed?

Thousands of random sign patterns, each of the full radius, are tried on images that every white-box attack so far left
standing. Random directions are nearly always harmless, so a single one that breaks an image which gradients cannot
break, not even in a second and longer attack, shows that the gradients were not pointing anywhere.
"""

from shconv.attacks import RandomSigns
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks import searching
from shconv.audit.checks.searching import Search
from shconv.audit.findings import Finding

NUMBER = 7
NAME = "random signs"
SOURCE = "Athalye et al. 2018; Carlini et al. 2019"


def cost(audit: Audit) -> Cost:
    return searching.cost(audit, [_search(audit)])


def run(audit: Audit) -> Finding:
    draws = audit.effort.sign_draws
    found, rows = searching.run(audit, [_search(audit)])
    numbers = {"images": found.tried, "draws": draws, "broken": found.broken}
    numbers |= {"looked_again": found.seen, "hidden_from_gradients": found.hidden}
    return Finding(found.alarm, f"{found.text(f'{draws:,} random sign patterns')}.", numbers if rows else {})


def _search(audit: Audit) -> Search:
    signs = RandomSigns(audit.setting.eps, draws=audit.effort.sign_draws)
    return Search(NAME, signs, audit.effort.sign_images)
