"""The worst case of a network, per image: an image counts as right only where no attack of a threat model fools it.
An upper bound on the accuracy under any attack of that budget, never a proof of robustness. Networks are compared over
the same attacks, through both routes; an SHC network's own routes are a number of their own."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shconv.report.folder.rows import Outcomes, Row, on_shared_images
from shconv.report.folder.run import Run
from shconv.report.output.cells import DASH, Cell, Score, mean
from shconv.report.published import is_shc

OBJECTIVES = ("least_likely", "untargeted")
ROUTES = ("both", "convolution", "hypernetwork")
Key = tuple[str, str | None, str]  # attack, objective, route


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


def worst_cases(run: Run, model: str, threat: Threat, own: bool = False) -> dict[int, WorstCase]:
    """By seed, over the attacks through both routes, which every network can meet; ``own``: through all routes.

    A seed without any such attack of the threat model, or without an image they share, is left out.
    """
    found = {seed: _attacks(run, model, seed, threat) for seed in _seeds(run, model)}
    if not own:
        found = {seed: _through_both(attacks) for seed, attacks in found.items()}
    return _worst_cases(run, model, threat, found, ROUTES if own and is_shc(model) else ROUTES[:1])


def over_same_attacks(
    run: Run, vanilla: str, shc: str, threat: Threat
) -> tuple[dict[int, WorstCase], dict[int, WorstCase]]:
    """Of a pair, by seed, over the attacks through both routes that both networks met."""
    found: tuple[dict[int, dict[Key, Row]], ...] = ({}, {})
    for seed in _seeds(run, vanilla):
        theirs, ours = (_through_both(_attacks(run, model, seed, threat)) for model in (vanilla, shc))
        for place, attacks in enumerate((theirs, ours)):
            found[place][seed] = {key: row for key, row in attacks.items() if key in theirs and key in ours}
    both = ROUTES[:1]
    return _worst_cases(run, vanilla, threat, found[0], both), _worst_cases(run, shc, threat, found[1], both)


def worst_case_cell(run: Run, model: str, threat: Threat, own: bool = False) -> Cell:
    if own and not is_shc(model):
        return Cell(none=DASH)
    return Cell(scores=tuple(worst.score for worst in worst_cases(run, model, threat, own).values()))


def _seeds(run: Run, model: str) -> list[int]:
    return sorted({row.seed for row in run.rows if row.model == model})


def _through_both(attacks: Mapping[Key, Row]) -> dict[Key, Row]:
    return {key: row for key, row in attacks.items() if key[2] == "both"}


def _attacks(run: Run, model: str, seed: int, threat: Threat) -> dict[Key, Row]:
    rows = [row for row in run.rows if row.model == model and row.attack in threat.attacks]
    attacks: dict[Key, Row] = {}
    # Table 4 repeats a part of Table 2, and adds to it where a route was only run there: Table 2's rows come last
    for row in sorted(rows, key=lambda row: row.experiment == "table2"):
        if row.seed == seed and row.experiment in ("table2", "table4") and row.id in run.outcomes:
            attacks[row.attack, row.objective, row.route or "both"] = row
    return attacks


def _worst_cases(
    run: Run, model: str, threat: Threat, found: Mapping[int, Mapping[Key, Row]], routes: tuple[str, ...]
) -> dict[int, WorstCase]:
    cases = (_worst_case(run, model, seed, threat, attacks, routes) for seed, attacks in found.items())
    return {worst.seed: worst for worst in cases if worst is not None}


def _worst_case(
    run: Run, model: str, seed: int, threat: Threat, attacks: Mapping[Key, Row], routes: tuple[str, ...]
) -> WorstCase | None:
    beyond = {key for key, row in attacks.items() if not _within(row, threat.budget)}
    used = {key: row for key, row in attacks.items() if key not in beyond}
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
