"""Check 1: does a part of the gradient break more than the whole gradient?

The same attacks, one step and many, run on the same images through every gradient route of an SHC network: both routes,
the convolution's (M held constant), the hypernetwork's, the strict one (only paths through an M), kernels frozen at the
clean image, and mixtures. Outputs never change, only the direction that the attack is given. The full gradient is
locally the best direction there is, so a route that leaves fewer images right shows that further off it misleads: what
is left standing against it is masked, not robust.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.comparison import counts, left, one_step, pgd, run_one_step, run_pgd
from shconv.audit.checks.side import cost_of, size
from shconv.audit.findings import Finding, Outcome
from shconv.audit.words import percent, points
from shconv.intervals import wilson

NUMBER = 1
NAME = "gradient routes"
SOURCE = "Sun et al. 2017, Table 4; Athalye et al. 2018"

Table = dict[str, dict[str, Any]]


def applies(audit: Audit) -> str:
    return "" if audit.subject.is_shc else "it has no SHC layer"


def cost(audit: Audit) -> Cost:
    n = size(audit, audit.effort.compared_images)
    once = cost_of(one_step(audit), n) + cost_of(pgd(audit), n)
    return once.times(len(_routes(audit)) + 1)  # the strict route makes two passes of one


def run(audit: Audit) -> Finding:
    single = {route: run_one_step(audit, route) for route in _routes(audit)}
    many = {route: run_pgd(audit, route=route) for route in _routes(audit)}
    tables = {"one step": _table(single), f"PGD-{audit.effort.usual_steps}": _table(many)}
    n = max((row["n"] for table in tables.values() for row in table.values()), default=0)
    if not n:
        return Finding(None, "No image was attacked through two routes.", {"images": 0})
    below = [f"{attack}, {route}" for attack, table in tables.items() for route in table if table[route]["below"]]
    numbers = {"images": n, "below_both": below, **tables}
    return Finding(bool(below), text(tables), numbers, _arrays(many), "routes")


def text(tables: Mapping[str, Table]) -> str:
    """Whether a route gives a lower accuracy than both, the worst such route, and the accuracy under each route."""
    lower = [(attack, *entry) for attack, table in tables.items() for entry in table.items() if entry[1]["below"]]
    said = "No route gives a significantly lower accuracy than both routes together."
    if lower:
        attack, route, most = max(lower, key=lambda entry: float(entry[2]["difference"]))
        said = (
            f"The full gradient misleads: the accuracy under {attack} is {percent(most['accuracy'])} through route "
            f"{route} and {percent(most['both'])} through both, on the same {most['n']} images "
            f"({points(most['interval'])})."
        )
    sizes = {row["n"] for table in tables.values() for row in table.values()}
    shown = ". ".join(
        f"{attack}: "
        + ", ".join(
            f"{route} {percent(row['accuracy'])}" + (f" of {row['n']}" if len(sizes) > 1 else "")
            for route, row in table.items()
        )
        for attack, table in tables.items()
        if table
    )
    images = f"{max(sizes)} images" if len(sizes) == 1 else "the images that each attacked"
    return f"{said} Accuracy by route, on {images}, all of them correct without an attack. {shown}."


def _routes(audit: Audit) -> list[str]:
    mixtures = [f"mixture:{weight:g}" for weight in audit.effort.mixtures]
    return ["both", "convolution", "hypernetwork", "strict", "frozen", *mixtures]


def _table(outcomes: dict[str, Outcome]) -> Table:
    """By route: accuracy, and how far it lies below that of both routes; without those that came to no image."""
    table = {}
    for route, outcome in outcomes.items():
        paired = counts(outcomes["both"], outcome)
        if not paired.n:
            continue
        table[route] = {
            "n": paired.n,
            "accuracy": left(paired)[1] / paired.n,
            "both": left(paired)[0] / paired.n,
            "difference": paired.difference,
            "interval": paired.interval,
            "below": paired.interval[0] > 0,
        }
    return table


def _arrays(outcomes: dict[str, Outcome]) -> dict[str, NDArray[Any]]:
    reached = {name: outcome for name, outcome in outcomes.items() if outcome.tried}
    n = [outcome.tried for outcome in reached.values()]
    right = [int((outcome.attempted & ~outcome.success).sum()) for outcome in reached.values()]
    ends = np.array([wilson(k, m) for k, m in zip(right, n, strict=True)]).reshape(-1, 2)
    accuracy = np.array(right) / np.array(n)
    return {"names": np.array(list(reached)), "accuracy": accuracy, "low": ends[:, 0], "high": ends[:, 1]}
