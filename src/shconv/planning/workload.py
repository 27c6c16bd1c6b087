"""How much a reproduction computes, stage by stage: the counts that its options fix, times what one image costs.
The tables' rows and rounds are read from the experiments themselves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from typing import get_args

from shconv.attacks import Attack, GaussianNoise, RandFGSM, Substitute, locsearch_columns
from shconv.attacks.cost import Cost
from shconv.attacks.locsearch.search import LOOKS
from shconv.attacks.objective import Objective
from shconv.experiments import figure2_noise, quasi_boundary, table1_gaussian, table2_gradient, table3_locsearch
from shconv.experiments.network import ROUTES_OF
from shconv.experiments.study import Counts
from shconv.planning.probe import NetworkCost, SharedCost
from shconv.training import Recipe

OUTCOME_BYTES = 58  # of an image in a row: six numbers of eight bytes, two of one, and RCD
COMPARED = 4  # forward passes that the quasi decision boundary takes
STRICT = 2  # forward passes of the network in one along the strict route
Asked = Sequence[tuple[Attack | None, str]]  # and through which route


@dataclass(frozen=True)
class Facts:
    """The data set as a plan knows it."""

    train_images: int
    test_images: int
    classes: int
    train_size: int
    test_size: int
    demo: bool = False
    channels: int = 3


@dataclass(frozen=True)
class Stage:
    """`seconds` on one device, done in `units` of equal length that devices can share."""

    name: str
    work: str
    seconds: float
    units: float  # inf: any number of devices divide it
    memory: int  # bytes on each device
    disk: int  # bytes that stay

    def seconds_on(self, devices: int) -> float:
        return self.seconds / devices if self.units == float("inf") else self.seconds * self.share(devices)

    def share(self, devices: int) -> float:
        """Of the work, what the device with most of it has."""
        return ceil(self.units / devices) / self.units


@dataclass(frozen=True)
class Workload:
    facts: Facts
    recipe: Recipe
    counts: Counts
    seeds: int
    batch_size: int
    workers: int
    costs: Mapping[str, NetworkCost]  # by network, vanilla and SHC
    shared: SharedCost
    others: Sequence[Attack] = ()  # on the images of Table 2, beyond the paper's

    def training(self, devices: int, micro_batches: int) -> Iterator[Stage]:
        """One stage a network: every step of every epoch, and the test images after each."""
        batch, epochs = self.recipe.batch_size, self.recipe.epochs
        steps = max(1, self.facts.train_images // batch)
        tested = ceil(self.facts.test_images / batch) * batch
        for name, cost in self.costs.items():
            fed = self.shared.augment / max(1, self.workers)
            image = max(cost.train, fed) if self.workers else cost.train + fed
            seconds = self.seeds * epochs * (steps * batch * image + tested * cost.forward)
            memory = cost.training_bytes(ceil(batch / devices / micro_batches))
            work = f"{self.seeds} x {epochs} epochs of {steps:,} batches of {batch}"
            yield Stage(f"train {name}", work, seconds, float("inf"), memory, self.seeds * 2 * cost.weights)

    def tables(self) -> Iterator[Stage]:
        counts, most = self.counts, self.facts.test_images
        n1, n2, n3 = (min(wanted, most) for wanted in (counts.table1, counts.table2, counts.table3))
        noise: Asked = [(None, "both"), *((GaussianNoise(sigma), "both") for sigma in table1_gaussian.SIGMAS)]
        others: Asked = [(attack, "both") for attack in self.others]
        quasi: Asked = [(attack, "both") for attack in quasi_boundary.GRADIENT_ATTACKS.values()]
        strict: Asked = [(RandFGSM(objective=objective), "strict") for objective in get_args(Objective)]
        of_table_2 = len(strict) * sum(len(ROUTES_OF[name.endswith("_shc")]) for name in self.costs)

        yield self._attacks("Table 1", n1, lambda shc: noise)
        yield self._attacks("Table 2", n2, _table2)
        if others:
            yield self._attacks("Table 2, other attacks", n2, lambda shc: others, ", at most")
        yield self._searches(n3)
        size, looks = min(n3, self.batch_size), 1 + COMPARED
        yield self._attacks("quasi boundary", n3, lambda shc: quasi if shc else [], size=size, looks=looks)
        about = ", but for those of Table 2"
        yield self._attacks("Table 4", n2, lambda shc: strict if shc else [], about, of_table_2)
        yield self._figures()

    def _stage(self, name: str, images: int, rows: int, seconds: float, units: int, about: str) -> Stage:
        memory = max(cost.weights + self.batch_size * cost.attack_image for cost in self.costs.values())
        rows = rows * self.seeds
        work = f"{rows:,} rows of {images:,} images{about}"
        return Stage(name, work, self.seeds * seconds, units, memory, rows * images * OUTCOME_BYTES)

    def _attacks(
        self,
        name: str,
        n: int,
        asked: Callable[[bool], Asked],
        about: str = "",
        known: int = 0,
        size: int | None = None,
        looks: int = 1,
    ) -> Stage:
        """Attacks on n images, each through its route, asked of a vanilla or an SHC network, none of which ends early.

        known: rows beside these that are there already. looks: passes over an adversarial image, the judge's first.
        """
        size = size or self.batch_size
        padded, rows, seconds = ceil(n / size) * size, known, 0.0
        for network, cost in self.costs.items():
            for attack, route in asked(network.endswith("_shc")):
                images = 1 if isinstance(attack, Substitute) else padded  # its questions are for all images together
                passes = Cost(0) if attack is None else attack.cost or Cost(0)
                forward = (passes.forwards - passes.backwards) * (STRICT if route == "strict" else 1) + looks
                image = forward * cost.forward + passes.backwards * cost.gradient[route]
                drawn = self.shared.noise if isinstance(attack, RandFGSM | GaussianNoise) else 0.0
                rows, seconds = rows + 1, seconds + images * (image + drawn)
        return self._stage(name, n, rows, seconds, ceil(n / self.batch_size), about)

    def _searches(self, n: int) -> Stage:
        searches = table3_locsearch.searches(self.facts.test_size, self.facts.demo)
        together, rows, seconds = table3_locsearch.SEARCHED_TOGETHER, 0, 0.0
        units = ceil(n / together)
        for attack, (network, cost) in product(searches.values(), self.costs.items()):
            shc, columns = network.endswith("_shc"), len(locsearch_columns(attack.steps))
            beside, probed = self.shared.search_round[attack.order]
            looks = together + (COMPARED * together if shc else 0)
            passed = units * (together * attack.steps * probed + columns * looks)
            seconds += n * attack.steps * beside + passed * cost.forward
            rows += columns * (1 + shc)  # those of the boundary too
        about = f", {len(searches)} searches of {searches['locsearch'].steps} rounds"
        return self._stage("Table 3", n, rows, seconds, units, about)

    def _figures(self) -> Stage:
        attack = table3_locsearch.searches(self.facts.test_size, self.facts.demo)["locsearch"]
        searched = attack.steps * (attack.batch_size + LOOKS) * self.seeds
        noisy = len(figure2_noise.SIGMAS)
        seconds = sum((searched + noisy) * cost.forward for cost in self.costs.values())
        return Stage("Figures 2 to 4", "one image each; by the first process only", seconds, 1, 0, 0)


def _table2(shc: bool) -> Asked:
    found = product(table2_gradient.ATTACKS.values(), get_args(Objective), ROUTES_OF[shc])
    return [(replace(attack, objective=objective), route) for attack, objective, route in found]
