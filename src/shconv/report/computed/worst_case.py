"""The worst case of a network, per image: an image counts as right only where no attack of a threat model fools it.
An upper bound on the accuracy under any attack of that budget, never a proof of robustness. Networks are compared over
the same attacks, through both routes; an SHC network's own routes are a number of their own."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shconv.numbers import radius_text
from shconv.report.folder.rows import Outcomes, Row, on_shared_images
from shconv.report.folder.run import Run
from shconv.report.numbers import DASH, mean
from shconv.report.output.cells import Cell, Score
from shconv.report.published import is_shc

OBJECTIVES = ("least_likely", "untargeted")
ROUTES = ("both", "convolution", "hypernetwork")
Attacks = Mapping[tuple[str, str | None, str], Row]  # by attack, objective, route


@dataclass(frozen=True)
class Threat:
    """An L-infinity budget and the paper's attacks that stay within it."""

    budget: float
    attacks: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"L∞ {radius_text(self.budget)}"


THREATS = (
    Threat(0.02, ("fgsm", "ifgsm")),
    Threat(0.0625, ("fgsm", "ifgsm", "rand_fgsm")),
    Threat(0.1, ("fgsm", "ifgsm", "rand_fgsm", "fgsm_heavy")),
)


@dataclass(frozen=True)
class WorstCase:
    """One seed's, over the images that all attacks share; ``own``: through a network's own routes too.

    ``strongest``: the single attack that leaves the fewest images right. ``missing`` names the attacks that were not
    run, or whose outcomes are not there; ``beyond`` those that went past the budget and are left out.
    """

    model: str
    threat: Threat
    own: bool
    score: Score
    strongest: Row
    missing: tuple[str, ...]
    beyond: tuple[str, ...]


def worst_cases(run: Run, model: str, threat: Threat, own: bool = False) -> dict[int, WorstCase]:
    """By seed, over the attacks through both routes, which every network can meet; ``own``: through all routes.

    A seed without any such attack of the threat model, or without an image they share, is left out.
    """
    found: dict[int, WorstCase] = {}
    for seed in run.seeds:
        if worst := _worst_case(run, model, seed, threat, _attacks(run, model, seed, threat, own), own):
            found[seed] = worst
    return found


def worst_case_cell(run: Run, model: str, threat: Threat, own: bool = False) -> Cell:
    if own and not is_shc(model):
        return Cell(none=DASH)
    return Cell(scores=tuple(worst.score for worst in worst_cases(run, model, threat, own).values()))


def over_same_attacks(run: Run, vanilla: str, shc: str, threat: Threat) -> tuple[Cell, Cell]:
    """The worst cases of a pair over the attacks through both routes that both networks met."""
    scores: tuple[list[Score], list[Score]] = [], []
    for seed in run.seeds:
        theirs, ours = (_attacks(run, model, seed, threat) for model in (vanilla, shc))
        for held, model, attacks in zip(scores, (vanilla, shc), (theirs, ours), strict=True):
            shared = {key: row for key, row in attacks.items() if key in theirs and key in ours}
            if worst := _worst_case(run, model, seed, threat, shared):
                held.append(worst.score)
    return Cell(scores=tuple(scores[0])), Cell(scores=tuple(scores[1]))


def _attacks(run: Run, model: str, seed: int, threat: Threat, own: bool = False) -> Attacks:
    rows = [row for row in run.rows if (row.model, row.seed) == (model, seed) and row.attack in threat.attacks]
    attacks: dict[tuple[str, str | None, str], Row] = {}
    # Table 4 repeats a part of Table 2, and adds to it where a route was only run there: Table 2's rows come last
    for row in sorted(rows, key=lambda row: row.experiment == "table2"):
        route = row.route or "both"
        if row.experiment in ("table2", "table4") and row.id in run.outcomes and (own or route == "both"):
            attacks[row.attack, row.objective, route] = row
    return attacks


def _worst_case(
    run: Run, model: str, seed: int, threat: Threat, attacks: Attacks, own: bool = False
) -> WorstCase | None:
    routes = ROUTES if own and is_shc(model) else ROUTES[:1]
    used = {key: row for key, row in attacks.items() if _within(row, threat.budget)}
    if not used:
        return None
    rows = list(used.values())
    index, correct = on_shared_images([run.outcomes[row.id] for row in rows])
    if not len(index):
        return None
    wanted = [(attack, objective, route) for attack in threat.attacks for objective in OBJECTIVES for route in routes]
    missing = tuple("/".join(key) for key in wanted if key not in used)
    score = Score.over(
        Outcomes(index, np.logical_and.reduce(correct)),
        seed,
        wanted=next((row.wanted for row in rows if row.wanted is not None), None),
        attacks=len(rows),
        attacks_wanted=len(rows) + len(missing),
        table_mean=mean(row.accuracy for row in rows if (row.route or "both") == "both"),
    )
    return WorstCase(
        model=model,
        threat=threat,
        own=own,
        score=score,
        strongest=min(rows, key=lambda row: (row.accuracy if row.accuracy is not None else 2.0, row.id)),
        missing=missing,
        beyond=tuple(sorted(row.id for key, row in attacks.items() if key not in used)),
    )


def _within(row: Row, budget: float) -> bool:
    """Did the row stay in the budget? Images are float32, so a little beyond it is still on it."""
    return row.linf_max is None or row.linf_max <= budget + 1e-5
