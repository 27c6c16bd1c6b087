"""Check 7: does blind chance find what gradients missed?

Thousands of random sign patterns, each of the full radius, are tried on images that every white-box attack so far left
standing. Random directions are nearly always harmless, so a single one that breaks an image which gradients cannot
break, not even in a second and longer attack, shows that the gradients were not pointing anywhere.
"""

from shconv.attacks import RandomSigns
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks import second_look
from shconv.audit.checks.side import at_most, cost_of
from shconv.audit.checks.words import answer, searched
from shconv.audit.findings import Finding

NUMBER = 7
NAME = "random signs"
SOURCE = "Athalye et al. 2018; Carlini et al. 2019"
ALARM = "an image is broken that no white-box attack breaks, not even a second, longer one"


def applies(audit: Audit) -> str:
    return ""


def cost(audit: Audit) -> Cost:
    n = min(int(audit.standing("linf").sum()), audit.effort.sign_images)
    return cost_of(_signs(audit), n) + second_look.cost(audit, n)


def run(audit: Audit) -> Finding:
    on = at_most(audit, audit.standing("linf"), audit.effort.sign_images, NAME)
    stood = int(on.sum())
    names = f"{audit.effort.sign_draws:,} random sign patterns"
    if not stood:
        return Finding(NUMBER, NAME, False, f"{searched(names, 0, 0, 0, 0, 0)}.", {}, SOURCE)
    outcome = audit.attack(NAME, _signs(audit), on=on)
    tried, broken = (int(each.sum()) for each in (outcome.attempted, outcome.success))
    look = second_look.second_look(audit, outcome.success, NAME)
    return Finding(
        NUMBER,
        NAME,
        answer(look.hidden, broken, look.seen, stood, tried),
        f"{searched(names, stood, tried, broken, look.seen, look.hidden)}.",
        {
            "images": tried,
            "draws": audit.effort.sign_draws,
            "broken": broken,
            "looked_again": look.seen,
            "hidden_from_gradients": look.hidden,
        },
        SOURCE,
    )


def _signs(audit: Audit) -> RandomSigns:
    return RandomSigns(audit.setting.eps, draws=audit.effort.sign_draws)
