"""How long a study's tables will take, said before one that takes minutes: a plan's counts, times what an image costs
the very networks at hand, measured in a moment."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch

from shconv.attacks import Attack, LocSearchAdv
from shconv.attacks.locsearch.search import LOOKS
from shconv.experiments.network import WITH_STRICT
from shconv.experiments.study import Study
from shconv.experiments.table3_locsearch import SEARCHED_TOGETHER, searches
from shconv.planning.probe import NetworkCost, Probe, SharedCost
from shconv.planning.workload import Facts, Workload
from shconv.training import RECIPES

MEASURED = 2.0  # seconds of a network
LONG = 120.0  # seconds of a table that is announced
DEAREST = 10.0  # forward passes that a gradient takes at most


def announcements(study: Study, others: Mapping[str, Attack] = MappingProxyType({})) -> Mapping[str, str]:
    """A sentence for each stage that takes over two minutes, by the stage's name, such as "Table 3"."""
    networks = {network.name: network for network in study.networks}
    routes = {name: WITH_STRICT[network.is_shc] for name, network in networks.items()}
    probe = Probe(study.device, MEASURED * len(networks), len(networks))
    x, costs = torch.rand(study.batch_size, *study.data.test[0][0].shape, device=study.device), {}
    for name, network in networks.items():
        forward = probe.forward(network.model, x).usual
        costs[name] = NetworkCost(0.0, forward, dict.fromkeys(routes[name], DEAREST * forward), 0, 0, 0)
    if not _said(study, others, costs):  # where nothing can take long the gradients need not be measured
        return {}
    for name, network in networks.items():
        gradient = probe.gradients(network.model, x, routes[name])
        costs[name] = replace(costs[name], gradient={route: span.usual for route, span in gradient.items()})
    return _said(study, others, costs)


def _said(study: Study, others: Mapping[str, Attack], costs: Mapping[str, NetworkCost]) -> Mapping[str, str]:
    """The sentences, if that is what an image costs each network."""
    size, test = study.data.image_size, len(study.data.test)
    rounds: dict[str, tuple[float, float]] = {
        attack.order: (0.0, _rows(attack, size)) for attack in searches(size, study.data.is_demo).values()
    }
    seeds = max(1, len(study.pairs) * len(study.pairs[0].members) // len(costs))
    facts = Facts(0, test, len(study.data.classes), size, size, study.data.is_demo)
    recipe = next(iter(RECIPES.values()))  # of no account: nothing is trained
    shared = SharedCost(0.0, 0.0, rounds)
    load = Workload(facts, recipe, study.counts, seeds, study.batch_size, 0, costs, shared, tuple(others.values()))
    alike = study.processes.count
    return {
        stage.name: f"{stage.name}: about {_minutes(stage.seconds_on(alike))} for {stage.work}"
        for stage in load.tables()
        if stage.seconds_on(alike) > LONG
    }


def _rows(attack: LocSearchAdv, size: int) -> float:
    """Of the batches that the network is given for an image in a round: its probes, and its share of the looks."""
    probes = 0 if attack.order == "random" else min(attack.max_probes or size**2, size**2)
    return probes + LOOKS / SEARCHED_TOGETHER


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
