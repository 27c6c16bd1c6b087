"""One network of a comparison: which images it is right on, clean, under each attack and in the worst case."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from typing import Any, NamedTuple

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
    """`measures` by title, `worst` by budget; seconds of all attacks and parameters, None where they are not known."""

    model: str
    seed: int
    source: str
    measures: Mapping[str, Right]
    worst: Mapping[Budget, Worst]
    seconds: float | None
    parameters: int | None = None


def compared(measures: Measures, parameters: Mapping[str, int]) -> Iterator[Compared]:
    """Each network of a run, of no source."""
    attacks = {threat: measures.within(threat) for threat in measures.threats}
    for network, rows in measures.rows.items():
        plain = {title: right for title, right in measures.columns(network) if len(right[0])}
        found = {threat: plain.pop(threat.title, None) for threat in attacks}
        worst = {
            threat.budget: Worst(*right, attacks[threat], False)
            for threat, right in found.items()
            if right is not None and not threat.own_routes
        }
        taken = [row["seconds"] for row in rows if row["attack"] != "clean"]
        seconds = None if None in taken else sum(taken)
        yield Compared(*network, "", plain, worst, seconds, parameters.get(f"{network[0]}/seed{network[1]}"))


def on_shared_images(networks: Sequence[Compared]) -> list[Compared]:
    """Networks of one run on the images that all of them share, by column; a column without shared images is left out.

    The pairs of a run are attacked on different images.
    """

    @cache
    def shared(source: str, of: str, key: Any) -> NDArray[np.int64]:
        near = (getattr(each, of) for each in networks if each.source == source)
        places: NDArray[np.int64] = reduce(np.intersect1d, [held[key][0] for held in near if key in held])
        return places

    def kept(network: Compared, of: str) -> dict[Any, Any]:
        cut = {}
        for key, (places, right, *more) in getattr(network, of).items():
            at = np.isin(places, shared(network.source, of, key))
            if at.any():
                cut[key] = (places[at], right[at], *more)
        return cut

    return [
        replace(
            each,
            measures=kept(each, "measures"),
            worst={budget: Worst(*found) for budget, found in kept(each, "worst").items()},
        )
        for each in networks
    ]
