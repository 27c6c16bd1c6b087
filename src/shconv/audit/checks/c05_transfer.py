"""Check 5: do another network's adversarial examples beat the network's own?

PGD runs on the vanilla twin, on other seeds of the training and on further checkpoints, and its examples are tried on
the network. An attacker who sees the network's own gradient should do better than one who sees another's. Fair terms:
one white-box run and one transferred run together, against two white-box runs. Where the transferred examples add more
than a second run, the network's gradient hides directions that break it: it is masked, not robust. Then every
image that still stands meets them.
"""

from typing import Any

from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.comparison import compared, counts, left, pgd, run_pgd, usual_steps
from shconv.audit.checks.side import cost_of, of, points
from shconv.audit.findings import Finding
from shconv.audit.subject import Subject

NUMBER = 5
NAME = "transfer"
SOURCE = "Tramer et al. 2017; Carlini et al. 2019"
ALARM = "transferred examples beat the white box, or add more to it than a second run, the paired interval excluding 0"


def applies(audit: Audit) -> str:
    return "" if _others(audit) else "no twin, other seed or further checkpoint was given"


def cost(audit: Audit) -> Cost:
    n, steps = int(compared(audit).sum()), usual_steps(audit)
    once = cost_of(pgd(audit, steps), n)
    return once.times(1 + len(_others(audit))) + cost_of(pgd(audit, steps, 2), n)


def run(audit: Audit) -> Finding:
    steps = usual_steps(audit)
    white, twice = run_pgd(audit, steps), run_pgd(audit, steps, restarts=2)
    if not white.attempted.any():
        return Finding(NUMBER, NAME, None, "The white box came to no image.", {"images": 0}, SOURCE)
    numbers: dict[str, Any] = {"images": int(white.attempted.sum())}
    alarms, said = [], []
    for name, other in _others(audit).items():
        moved = audit.attack(
            f"PGD-{steps} transferred", pgd(audit, steps), on=compared(audit), model=other, source=name
        )
        direct, added = counts(white, moved), counts(twice, white, moved)
        if not added.n:
            said.append(f"{name}: not tried")
            continue
        beats, adds = direct.interval[0] > 0, added.interval[0] > 0
        own, theirs = left(direct)
        if beats or adds:
            alarms.append(name)
            audit.attack(f"PGD-{steps} transferred to the rest", pgd(audit, steps), model=other, source=name)
        said.append(
            f"{name}: {of(theirs, direct.n)} right, {direct.only_first} broken by it alone; the white box and it "
            f"leave {of(left(added)[1], added.n)} right, two white-box runs {of(left(added)[0], added.n)} "
            f"({points((-added.interval[1], -added.interval[0]))})"
        )
        numbers[name] = {
            "n": direct.n,
            "white_box": own / max(direct.n, 1),
            "transferred": theirs / max(direct.n, 1),
            "only_transfer": direct.only_first,
            "difference": direct.difference,
            "interval": direct.interval,
            "added": added.difference,
            "added_interval": added.interval,
            "beats": beats,
            "adds": adds,
        }
    verdict = f"Transferred examples beat the white box ({', '.join(alarms)})" if alarms else "None beats the white box"
    whole = of(int((white.attempted & ~white.success).sum()), int(white.attempted.sum()))
    return Finding(
        NUMBER,
        NAME,
        bool(alarms),
        f"{verdict}, PGD-{steps}, which leaves {whole} right. {'; '.join(said)}.",
        numbers,
        SOURCE,
    )


def _others(audit: Audit) -> dict[str, Subject]:
    twin = {} if audit.twin is None else {audit.twin.as_twin: audit.twin}
    return {**twin, **audit.sources, **audit.seeds}
