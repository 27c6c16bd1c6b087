"""What can be compared between networks: accuracy clean, under each attack, and in the worst case of each budget."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.attacks.budget import Budget
from shconv.experiments.outcomes import Outcomes, right_with_rejection
from shconv.experiments.run_folder import Row

JUDGED = ("table2", "table4", "evaluate")  # experiments whose attacks count for a worst case
SHOWN = ("table1", "table2", "table3", "evaluate")  # whose accuracies are measures of their own
Network = tuple[str, int]  # name, seed of training
Right = tuple[NDArray[Any], NDArray[np.bool_]]  # places (n,), and whether the network is right there


@dataclass(frozen=True)
class Threat:
    """Attacks within `budget`, tried through the gradient of both routes or, for an SHC network, through any."""

    budget: Budget
    own_routes: bool = False

    @property
    def title(self) -> str:
        return f"worst case {self.budget.title}" + (", own routes too" if self.own_routes else "")

    def holds(self, row: Row) -> bool:
        """Was the row's attack held to this budget?"""
        budget = budget_of(row)
        return budget.norm == self.budget.norm and budget.radius <= self.budget.radius * (1 + 1e-9)


@dataclass(frozen=True, eq=False)
class Measures:
    """On the rows of a run, and the arrays of each row by its id."""

    records: Sequence[Row]
    outcomes: Mapping[str, Mapping[str, NDArray[Any]]]

    @cached_property
    def rows(self) -> Mapping[Network, Sequence[Row]]:
        """Of each network, by (name, seed of training), in the order of the records."""
        held: dict[Network, list[Row]] = {}
        for row in self.records:
            held.setdefault((row["model"], row["seed"]), []).append(row)
        return held

    @property
    def networks(self) -> list[Network]:
        return list(self.rows)

    @cached_property
    def _judged(self) -> Mapping[Network, Sequence[Row]]:
        """The rows that count for a worst case."""
        return {
            network: [row for row in rows if row["experiment"] in JUDGED and row["n"] and row["step"] is None]
            for network, rows in self.rows.items()
        }

    @cached_property
    def threats(self) -> list[Threat]:
        """The budgets that attacks were held to; with single routes, where a network was attacked through some."""
        rows = list(chain(*self._judged.values()))
        budgets = sorted({budget for row in rows if math.isfinite((budget := budget_of(row)).radius)})
        single = any((row["route"] or "both") != "both" for row in rows)
        return [Threat(budget, own) for budget in budgets for own in ((False, True) if single else (False,))]

    def right(self, network: Network, threat: Threat) -> tuple[NDArray[Any], NDArray[np.bool_], int] | None:
        """Places, whether the network is right there without and under every attack, and of how many attacks; None
        without one. An attack may repair what is wrong without it, as one towards the least likely class often does."""
        rows = {
            (row["attack"], row["objective"], row["route"] or "both"): row
            for row in self._judged[network]
            if threat.holds(row)
        }
        if threat.own_routes:
            if all(route == "both" for _, _, route in rows):
                return None
        else:
            rows = {key: row for key, row in rows.items() if key[2] == "both" and key[:2] in self._met_by_all}
        if not rows:
            return None
        found = [Outcomes.of(self.outcomes[row["id"]], 0.0) for row in rows.values()]
        index = found[0].index
        for each in found[1:]:
            index = np.intersect1d(index, each.index)
        correct = np.logical_and.reduce([each.at(index).correct for each in found])
        if (clean := self.clean(network)) is not None:
            correct &= ~np.isin(index, clean.index[~clean.correct])
        return index, correct, len(rows)

    def clean(self, network: Network) -> Outcomes | None:
        """What the network makes of images that are not attacked."""
        id = next((row["id"] for row in self.rows[network] if row["attack"] == "clean"), None)
        return None if id is None else Outcomes.of(self.outcomes[id], 0.0)

    def within(self, threat: Threat) -> tuple[str, ...]:
        """The attacks that count for a threat's worst case through both routes, by name and objective."""
        held = dict.fromkeys(
            (row["attack"], row["objective"]) for row in chain(*self._judged.values()) if threat.holds(row)
        )
        return tuple(", ".join(filter(None, key)) for key in held if key in self._met_by_all)

    @cached_property
    def _met_by_all(self) -> set[tuple[str, str | None]]:
        """(attack, objective) that every network with attacks met through both routes."""
        met = [
            {(row["attack"], row["objective"]) for row in rows if (row["route"] or "both") == "both"}
            for rows in self._judged.values()
        ]
        met = [each for each in met if each]
        return set.intersection(*met) if met else set()

    def columns(self, network: Network) -> Iterator[tuple[str, Right]]:
        """(title, (places, right)) of everything that is measured on one network through both routes."""
        for row in self.rows[network]:
            if (row["route"] or "both") == "both" and row["n"] and row["experiment"] in SHOWN:
                found, title = self.outcomes[row["id"]], title_of(row)
                yield title, (found["index"], found["correct"])
                yield from self._with_rejection(row, title)
        for threat in self.threats:
            right = self.right(network, threat)
            if right is not None:
                yield threat.title, right[:2]

    def _with_rejection(self, row: Row, title: str) -> Iterator[tuple[str, Right]]:
        """The same for a network with a detector: clean images count where they are not rejected, attacked ones also
        where they are."""
        clean = self.clean((row["model"], row["seed"]))
        if "score" not in self.outcomes[row["id"]] or clean is None:
            return
        found = Outcomes.of(self.outcomes[row["id"]], 0.0)
        if row["attack"] == "clean":
            yield f"{title}, right and not rejected", (found.index, right_with_rejection(found, None))
        else:
            yield f"{title}, right or rejected", (found.index, right_with_rejection(found, clean))


def title_of(row: Row) -> str:
    """What a row measures, in words: "fgsm, untargeted"."""
    sigma = row["parameters"].get("sigma")
    words = [row["attack"], row["objective"], None if sigma is None else f"sigma {sigma:g}"]
    words += [None if row["step"] is None else f"step {row['step']}"]
    return ", ".join(word for word in words if word)


def budget_of(row: Row) -> Budget:
    """The budget that a row's attack was held to; of versions that did not store it, from the attack's parameters."""
    threat = row.get("threat")
    if threat is not None:
        return Budget(threat["norm"], math.inf if threat["radius"] is None else threat["radius"])
    epsilon = row["parameters"].get("epsilon")
    if epsilon is None:
        return Budget("linf", math.inf)
    return Budget(row["parameters"].get("norm", "linf"), epsilon + row["parameters"].get("alpha", 0.0))
