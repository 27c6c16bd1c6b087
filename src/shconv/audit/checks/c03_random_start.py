"""Check 3: does an attack that starts beside the clean image break much more than one that starts on it?

Both may go equally far in all: one step of FGSM against RAND+FGSM, half a random step and half a gradient step, and PGD
with and without a random start. On a smooth loss a random start is no great help. Where it is, the gradient at the
clean images themselves has been bent away, as training on single steps does, and attacks that start there see masking.
"""

from collections.abc import Mapping
from typing import Any

from shconv.attacks import FGSM, PGD, Attack, RandFGSM
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.comparison import counts, left
from shconv.audit.checks.side import cost_of, size
from shconv.audit.findings import Finding
from shconv.audit.words import of, points
from shconv.paired import Paired

NUMBER = 3
NAME = "random start"
SOURCE = "Tramer et al. 2017; Athalye et al. 2018"
LARGE = 0.1  # what the table calls a large drop: ours


def cost(audit: Audit) -> Cost:
    n = size(audit, audit.effort.start_images)
    return sum((cost_of(still, n) + cost_of(started, n) for still, started in _pairs(audit).values()), Cost(0))


def run(audit: Audit) -> Finding:
    on = audit.sample(audit.effort.start_images)
    pairs = {}
    for name, (still, started) in _pairs(audit).items():
        without = audit.attack(f"{name} from the clean image", still, on=on)
        pairs[name] = counts(without, audit.attack(f"{name} from a random start", started, on=on))
    numbers = {name: _row(paired) for name, paired in pairs.items() if paired.n}
    alarm = any(row["large"] for row in numbers.values()) if numbers else None
    return Finding(alarm, text(pairs), numbers)


def _row(paired: Paired) -> dict[str, Any]:
    plain, random = left(paired)
    return {
        "n": paired.n,
        "without": plain / paired.n,
        "with": random / paired.n,
        "drop": paired.difference,
        "interval": paired.interval,
        "large": paired.difference >= LARGE and paired.interval[0] > 0,
    }


def text(pairs: Mapping[str, Paired]) -> str:
    """By attack, the accuracy without and with a random start, and whether a start breaks many more."""
    met = {name: paired for name, paired in pairs.items() if paired.n}
    if not met:
        return "No image was attacked both with and without a random start."
    large = [name for name, paired in met.items() if _row(paired)["large"]]
    verdict = f"With a random start {' and '.join(large)} break" if large else "With a random start no attack breaks"
    verdict += "s" if len(large) == 1 else ""
    said = [
        f"{name}: accuracy {of(left(paired)[0], paired.n)} without a random start, {of(left(paired)[1], paired.n)} "
        f"with one ({points((-paired.interval[1], -paired.interval[0]))})"
        for name, paired in met.items()
    ]
    return f"{verdict} at least 10 points more images, at equal total distance. {'; '.join(said)}."


def _pairs(audit: Audit) -> dict[str, tuple[Attack, Attack]]:
    """By name: without a random start, and with one."""
    eps, steps = audit.setting.eps, audit.effort.steps[0]
    return {
        "FGSM": (FGSM(objective="untargeted", epsilon=eps), RandFGSM.total(eps, objective="untargeted")),
        f"PGD-{steps}": (PGD(eps, steps=steps, random_start=False), PGD(eps, steps=steps)),
    }
