"""How long a study's tables will take, said before one that takes minutes: a plan's counts, times what an image costs
the very networks at hand, measured in a moment."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from shconv.attacks import FGSM, Attack, LocSearchAdv
from shconv.attacks.locsearch.search import LOOKS
from shconv.experiments.network import Network, routed
from shconv.experiments.probe import NetworkCost, SharedCost
from shconv.experiments.study import Study
from shconv.experiments.table3_locsearch import SEARCHED_TOGETHER, searches
from shconv.experiments.workload import ROUTES, Facts, Workload
from shconv.training import RECIPES

MEASURED = 2.0  # seconds of a batch
LONG = 120.0  # seconds of a table that is announced


def announcements(study: Study, others: Mapping[str, Attack] = MappingProxyType({})) -> Mapping[str, str]:
    """A sentence for each stage that takes over two minutes, by the stage's name, such as "Table 3"."""
    networks = {network.name: network for network in study.networks}
    size, test = study.data.image_size, len(study.data.test)
    costs = {name: _cost(network, study) for name, network in networks.items()}
    rounds: dict[str, tuple[float, float]] = {
        attack.order: (0.0, _rows(attack, size)) for attack in searches(size, study.data.is_demo).values()
    }
    seeds = max(1, len(study.pairs) * len(study.pairs[0].members) // len(networks))
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


def _cost(network: Network, study: Study) -> NetworkCost:
    """Of the passes that attacks are made of, on noise."""
    model, shape = network.model, study.data.test[0][0].shape
    x = torch.rand(study.batch_size, *shape, device=study.device)
    y = torch.zeros(study.batch_size, dtype=torch.int64, device=study.device)

    def attacked(n: int) -> Tensor:
        with routed(model, "both") as seen:
            return FGSM()(seen, x[:n], y[:n])

    with torch.no_grad():
        forward = seconds(lambda n: model(x[:n]).sum().item(), study.batch_size)
    gradient = seconds(lambda n: attacked(n).sum().item(), study.batch_size)
    routes = (*ROUTES[network.is_shc], "strict")  # each is a forward and a backward pass, the strict one two
    return NetworkCost(0.0, forward, {route: gradient * (1 + (route == "strict")) for route in routes}, 0, 0, 0)


def seconds(work: Callable[[int], object], batch: int) -> float:
    """Of one image in a full batch, or in as large a one as takes no more than MEASURED; each size once before it
    counts. The work ends with a number on the CPU, so that a device is waited for."""
    n, took = 0, 0.0
    while n < batch and 4 * took < MEASURED:
        n = min(max(1, 4 * n), batch)
        work(n)
        before = time.perf_counter()
        work(n)
        took = time.perf_counter() - before
    return took / n


def _rows(attack: LocSearchAdv, size: int) -> float:
    """Of the batches that the network is given for an image in a round: its probes, and its share of the looks."""
    probes = 0 if attack.order == "random" else min(attack.max_probes or size**2, size**2)
    return probes + LOOKS / SEARCHED_TOGETHER


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
