"""Check 6: do searches without gradients find what gradients missed?

Square sees scores, the boundary attack and HopSkipJump see decisions only; they run on images that every white-box
attack so far left standing. A gradient tells more than any such search, so an image that falls to one of them, and not
to a second and longer white-box attack either, was protected by useless gradients alone. LocSearchAdv changes few
pixels by any amount, which is another threat: it has a worst case of its own and raises no alarm.
"""

from typing import Any

import numpy as np

from shconv.attacks import Attack, HardLabel, Square
from shconv.attacks.cost import Cost
from shconv.attacks.presets import locsearch_for
from shconv.audit.audit import Audit
from shconv.audit.checks import second_look
from shconv.audit.checks.side import at_most, cost_of, missing, of
from shconv.audit.checks.words import answer, searched
from shconv.audit.findings import Finding, Outcome

NUMBER = 6
NAME = "gradient-free"
SOURCE = "Andriushchenko et al. 2020; Brendel et al. 2018; Chen et al. 2020; Athalye et al. 2018"
ALARM = "an image is broken that no white-box attack breaks, not even a second, longer one"

SHARE = 0.6  # of the time left for a search that others come after


def applies(audit: Audit) -> str:
    return ""


def cost(audit: Audit) -> Cost:
    n, total = int(audit.standing("linf").sum()), Cost(0)
    for _, attack, images in _searches(audit):
        total += cost_of(attack, min(n, images)) + second_look.cost(audit, min(n, images))
    return total + cost_of(_pixels(audit), int(audit.sample(audit.effort.pixel_images).sum()))


def run(audit: Audit) -> Finding:
    numbers: dict[str, Any] = {}
    said, looks = [], []
    stood = int(audit.standing("linf").sum())
    for name, attack, images in _searches(audit):
        on = at_most(audit, audit.standing("linf"), images, name)
        if not on.any():
            continue
        with audit.within(1.0 if _last(audit, name) else SHARE):
            outcome = audit.attack(name, attack, on=on)
        look = second_look.second_look(audit, outcome.success, name)
        looks.append(look)
        numbers[name] = {**_numbers(outcome), "looked_again": look.seen, "hidden_from_gradients": look.hidden}
        said.append(f"{name}: {of(int(outcome.success.sum()), int(outcome.attempted.sum()))} broken")
    tried, broken = (sum(row[key] for row in numbers.values()) for key in ("n", "successes"))
    seen, hidden = sum(look.seen for look in looks), sum(look.hidden for look in looks)
    pixels = audit.attack(
        "LocSearchAdv cyclic", _pixels(audit), on=audit.sample(audit.effort.pixel_images), threat="pixels"
    )
    numbers["LocSearchAdv cyclic"] = _numbers(pixels)
    changed = of(int(pixels.success.sum()), int(pixels.attempted.sum()))
    if pixels.attempted.any():
        said.append(f"LocSearchAdv cyclic, on all correct images, may change 2.3 % of the pixels: {changed} broken")
    if why := missing("foolbox"):
        said.append(f"no decision-based attack: {why}")
    text = ". ".join([searched("searches without gradients", stood, tried, broken, seen, hidden), *_joined(said)])
    return Finding(NUMBER, NAME, answer(hidden, broken, seen, stood, tried), f"{text}.", numbers, SOURCE)


def _last(audit: Audit, name: str) -> bool:
    return name == _searches(audit)[-1][0]


def _joined(said: list[str]) -> list[str]:
    return ["; ".join(said)] if said else []


def _searches(audit: Audit) -> list[tuple[str, Attack, int]]:
    """Name, attack, images at most."""
    eps, effort = audit.setting.eps, audit.effort
    found: list[tuple[str, Attack, int]] = [
        ("Square", Square(eps, queries=effort.square_queries), effort.square_images)
    ]
    if not missing("foolbox"):
        boundary = HardLabel("boundary", eps, "linf", effort.hard_label_steps)
        jump = HardLabel("hop_skip_jump", eps, "linf", max(effort.hard_label_steps // 20, 1))  # a step asks far more
        found += [("boundary attack", boundary, effort.hard_label_images)]
        found += [("HopSkipJump", jump, effort.hard_label_images)]
    return found


def _pixels(audit: Audit) -> Attack:
    height, width = audit.images.shape[2:]
    return locsearch_for(height, width, probe="cyclic", stop_on_success=True)


def _numbers(outcome: Outcome) -> dict[str, Any]:
    tried = outcome.attempted
    queries = float(np.mean(outcome.queries[tried])) if tried.any() else None
    return {"n": int(tried.sum()), "successes": int(outcome.success.sum()), "queries": queries}
