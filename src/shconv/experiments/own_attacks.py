"""Attacks that a user gives by name, on every network of a study and the same images: no table of the paper."""

from collections.abc import Iterator, Mapping, Sequence

from shconv.attacks import Attack
from shconv.experiments.network import routes_of
from shconv.experiments.question import Index
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Study

EXPERIMENT = "evaluate"


def rows(study: Study, attacks: Mapping[str, Attack], index: Index, routes: Sequence[str] = ("both",)) -> Iterator[Row]:
    """A row for each network, attack and route that the network has."""
    for network in study.networks:
        for name, attack in attacks.items():
            for route in (route for route in routes if route == "both" or route in routes_of(network)):
                yield study.row(EXPERIMENT, network, name, attack, index, route)
