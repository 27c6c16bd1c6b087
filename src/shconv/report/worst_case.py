"""The worst case of a network, per image: an image counts as right only where no attack of a threat model fools it.
An upper bound on the accuracy under any attack of that budget, never a proof of robustness."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shconv.report.cells import Cell, Score, mean
from shconv.report.paper import is_shc
from shconv.report.rows import Outcomes, Row, on_shared_images
from shconv.report.run import Run

OBJECTIVES = ("least_likely", "untargeted")
ROUTES = ("both", "convolution", "hypernetwork")


@dataclass(frozen=True)
class Threat:
    """An L-infinity budget and the paper's attacks that stay within it."""

    budget: float
    attacks: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"L∞ {self.budget:g}"


THREATS = (
    Threat(0.02, ("fgsm", "ifgsm")),
    Threat(0.0625, ("fgsm", "ifgsm", "rand_fgsm")),
    Threat(0.1, ("fgsm", "ifgsm", "rand_fgsm", "fgsm_heavy")),
)


@dataclass(frozen=True)
class WorstCase:
    """One network and seed under one threat model.

    ``outcomes`` are over the images that all ``used`` rows share; ``missing`` names the attacks that were not run, or
    whose outcomes are not there; ``beyond`` those that went past the budget and are left out.
    """

    model: str
    seed: int
    threat: Threat
    used: tuple[Row, ...]
    outcomes: Outcomes
    missing: tuple[str, ...]
    beyond: tuple[str, ...]

    @property
    def score(self) -> Score:
        return Score(
            seed=self.seed,
            n=len(self.outcomes.index),
            wanted=next((row.wanted for row in self.used if row.wanted is not None), None),
            accuracy=self.outcomes.accuracy,
            interval=self.outcomes.interval,
            attacks=len(self.used),
            attacks_wanted=len(self.used) + len(self.missing),
        )

    @property
    def table_mean(self) -> float | None:
        """Mean accuracy over this budget's columns of Table 2, which take the gradient of both routes."""
        return mean(row.accuracy for row in self.used if (row.route or "both") == "both")

    @property
    def strongest(self) -> Row:
        """The single attack that leaves the fewest images right."""
        return min(self.used, key=lambda row: (row.accuracy if row.accuracy is not None else 2.0, row.id))


def worst_cases(run: Run, model: str, threat: Threat) -> dict[int, WorstCase]:
    """By seed; a seed without any attack of the threat model, or without an image they share, is left out."""
    rows = [row for row in run.rows if row.model == model and row.attack in threat.attacks]
    found = (_worst_case(run, model, seed, threat, rows) for seed in sorted({row.seed for row in rows}))
    return {worst.seed: worst for worst in found if worst is not None}


def worst_case_cell(run: Run, model: str, threat: Threat) -> Cell:
    return Cell(scores=tuple(worst.score for worst in worst_cases(run, model, threat).values()))


def _worst_case(run: Run, model: str, seed: int, threat: Threat, rows: Iterable[Row]) -> WorstCase | None:
    attacks: dict[tuple[str, str | None, str], Row] = {}
    # Table 4 repeats a part of Table 2, and adds to it where a route was only run there: Table 2's rows come last
    for row in sorted(rows, key=lambda row: row.experiment == "table2"):
        if row.seed == seed and row.experiment in ("table2", "table4") and row.id in run.outcomes:
            attacks[row.attack, row.objective, row.route or "both"] = row
    beyond = {key for key, row in attacks.items() if not _within(row, threat.budget)}
    used = {key: row for key, row in attacks.items() if key not in beyond}
    routes = ROUTES if is_shc(model) else ROUTES[:1]
    wanted = [(attack, objective, route) for attack in threat.attacks for objective in OBJECTIVES for route in routes]
    if not used:
        return None
    index, correct = on_shared_images([run.outcomes[row.id] for row in used.values()])
    if not len(index):
        return None
    return WorstCase(
        model=model,
        seed=seed,
        threat=threat,
        used=tuple(used.values()),
        outcomes=Outcomes(index, np.logical_and.reduce(correct)),
        missing=tuple("/".join(key) for key in wanted if key not in used),
        beyond=tuple(sorted(attacks[key].id for key in beyond)),
    )


def _within(row: Row, budget: float) -> bool:
    """Did the row stay in the budget? Images are float32, so a little beyond it is still on it."""
    return row.linf_max is None or row.linf_max <= budget + 1e-5
