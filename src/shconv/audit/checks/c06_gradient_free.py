"""Check 6: do searches without gradients find what gradients missed?

Square sees scores, the boundary attack and HopSkipJump see decisions only; they run on images that every white-box
attack so far left standing. A gradient tells more than any such search, so an image that falls to one of them, and not
to a second and longer white-box attack either, was protected by useless gradients alone. LocSearchAdv changes few
pixels by any amount, which is another threat: it has a worst case of its own and raises no alarm.
"""

from typing import Any

from shconv.attacks import Attack, HardLabel, Square
from shconv.attacks.cost import Cost
from shconv.attacks.presets import locsearch_for
from shconv.audit.audit import Audit
from shconv.audit.checks import searching
from shconv.audit.checks.searching import Search
from shconv.audit.checks.side import cost_of, missing, size
from shconv.audit.findings import Finding
from shconv.audit.words import of

NUMBER = 6
NAME = "gradient-free"
SOURCE = "Andriushchenko et al. 2020; Brendel et al. 2018; Chen et al. 2020; Athalye et al. 2018"
PIXELS = "LocSearchAdv cyclic"


def cost(audit: Audit) -> Cost:
    return searching.cost(audit, _searches(audit)) + cost_of(_pixels(audit), size(audit, audit.effort.pixel_images))


def run(audit: Audit) -> Finding:
    found, rows = searching.run(audit, _searches(audit))
    said = [f"{name}: {of(row['successes'], row['n'])} broken" for name, row in rows.items()]
    pixels = audit.attack(PIXELS, _pixels(audit), on=audit.sample(audit.effort.pixel_images), threat="pixels")
    if pixels.tried:
        changed = of(pixels.broken, pixels.tried)
        said.append(f"{PIXELS}, on all correct images, may change 2.3 % of the pixels: {changed} broken")
    if why := missing("foolbox"):
        said.append(f"no decision-based attack: {why}")
    parts = [found.text("searches without gradients"), *(["; ".join(said)] if said else [])]
    numbers: dict[str, Any] = {**rows, PIXELS: searching.numbers(pixels)}
    return Finding(found.alarm, f"{'. '.join(parts)}.", numbers)


def _searches(audit: Audit) -> list[Search]:
    eps, effort = audit.setting.eps, audit.effort
    found = [Search("Square", Square(eps, queries=effort.square_queries), effort.square_images)]
    if not missing("foolbox"):
        boundary = HardLabel("boundary", eps, "linf", effort.hard_label_steps)
        jump = HardLabel("hop_skip_jump", eps, "linf", max(effort.hard_label_steps // 20, 1))  # a step asks far more
        found.append(Search("boundary attack", boundary, effort.hard_label_images))
        found.append(Search("HopSkipJump", jump, effort.hard_label_images))
    return found


def _pixels(audit: Audit) -> Attack:
    height, width = audit.images.shape[2:]
    return locsearch_for(height, width, probe="cyclic", stop_on_success=True)
