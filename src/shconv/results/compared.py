"""One network of a comparison: which images it is right on, clean, under each attack and in the worst case."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shconv.attacks.budget import Budget
from shconv.results.measures import Measures, Right


class Worst(NamedTuple):
    """places (n,) of images; right (n,): is no attack successful there."""

    places: NDArray[np.int64]
    right: NDArray[np.bool_]
    attacks: tuple[str, ...]
    audited: bool  # by attacks that an audit chose itself


@dataclass(frozen=True, eq=False)
class Compared:
    """`measures` by title, `worst` by budget; seconds of all attacks; parameters None where they are not known."""

    model: str
    seed: int
    source: str
    measures: Mapping[str, Right]
    worst: Mapping[Budget, Worst]
    seconds: float
    parameters: int | None = None


def compared(measures: Measures, source: str, parameters: Mapping[str, int]) -> Iterator[Compared]:
    """Each network of a run."""
    for network in measures.networks():
        shown = dict(measures.columns(network))
        titles = {threat.title for threat in measures.threats()}
        worst = {}
        for threat in (each for each in measures.threats() if not each.own_routes):
            right = measures.right(*network, threat)
            if right is not None and len(right[0]):
                worst[threat.budget] = Worst(right[0], right[1], measures.within(threat), False)
        rows = [row for row in measures.records if (row["model"], row["seed"]) == network]
        seconds = sum(row["seconds"] for row in rows if row["attack"] != "clean")
        plain = {title: right for title, right in shown.items() if title not in titles and len(right[0])}
        yield Compared(*network, source, plain, worst, seconds, parameters.get(f"{network[0]}/seed{network[1]}"))
