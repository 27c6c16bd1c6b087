"""How much a reproduction computes, stage by stage: the counts that its options fix, times what one image costs.
The tables' rows and rounds are read from the experiments themselves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import get_args

from shconv.attacks import Attack, RandFGSM, Substitute, locsearch_columns
from shconv.attacks.locsearch.search import LOOKS
from shconv.attacks.objective import Objective
from shconv.experiments import figure2_noise, quasi_boundary, table1_gaussian, table2_gradient, table3_locsearch
from shconv.experiments.probe import NetworkCost, SharedCost, passes
from shconv.experiments.study import Counts
from shconv.training import Recipe

OUTCOME_BYTES = 58  # of an image in a row: six numbers of eight bytes, two of one, and RCD
TABLE_1 = 1 + len(table1_gaussian.SIGMAS)  # rows of a network
COMPARED = 4  # forward passes that the quasi decision boundary takes
STRICT = 2  # forward passes of the network in one along the strict route
ROUTES = {False: ("both",), True: ("both", "convolution", "hypernetwork")}


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
        shc = [cost for name, cost in self.costs.items() if name.endswith("_shc")]

        yield self._stage("Table 1", n1, len(self.costs) * TABLE_1, sum(self._table1(n1)))

        asked = {name: _table2(ROUTES[name.endswith("_shc")]) for name in self.costs}
        seconds = [self._attacked(cost, n2, asked[name]) for name, cost in self.costs.items()]
        yield self._stage("Table 2", n2, sum(map(len, asked.values())), sum(seconds))
        if self.others:
            seconds = [self._further(cost, n2) for cost in self.costs.values()]
            yield self._stage(
                "Table 2, other attacks", n2, len(self.others) * len(self.costs), sum(seconds), about=", at most"
            )

        searches = table3_locsearch.searches(self.facts.test_size, self.facts.demo)
        steps = searches["locsearch"].steps
        rows = len(searches) * len(locsearch_columns(steps)) * (len(self.costs) + len(shc))  # those of the boundary too
        about = f", {len(searches)} searches of {steps} rounds"
        yield self._stage(
            "Table 3", n3, rows, sum(self._table3(n3)), ceil(n3 / table3_locsearch.SEARCHED_TOGETHER), about
        )

        quasi = [(attack, "both") for attack in quasi_boundary.GRADIENT_ATTACKS.values()]
        size = min(n3, self.batch_size)
        looks = [COMPARED * len(quasi) * self._padded(n3, size) * cost.forward for cost in shc]
        seconds = [self._attacked(cost, n3, quasi, size) for cost in shc]
        yield self._stage("quasi boundary", n3, len(quasi) * len(shc), sum(seconds) + sum(looks))

        strict = [(RandFGSM(objective=objective), "strict") for objective in get_args(Objective)]
        seconds = [self._attacked(cost, n2, strict) for cost in shc]
        rows = sum(2 * (len(ROUTES[name.endswith("_shc")]) + name.endswith("_shc")) for name in self.costs)
        yield self._stage("Table 4", n2, rows, sum(seconds), about=", but for those of Table 2")
        yield self._figures()

    def _stage(
        self, name: str, images: int, rows: int, seconds: float, units: int | None = None, about: str = ""
    ) -> Stage:
        memory = max(cost.weights + self.batch_size * cost.attack_image for cost in self.costs.values())
        rows = rows * self.seeds
        work = f"{rows:,} rows of {images:,} images{about}"
        units = units or ceil(images / self.batch_size)
        return Stage(name, work, self.seeds * seconds, units, memory, rows * images * OUTCOME_BYTES)

    def _table1(self, n: int) -> Iterator[float]:
        for cost in self.costs.values():
            yield self._padded(n) * (TABLE_1 * cost.forward + (TABLE_1 - 1) * self.shared.noise)

    def _attacked(
        self, cost: NetworkCost, n: int, asked: Sequence[tuple[Attack, str]], size: int | None = None
    ) -> float:
        """Seconds of gradient attacks on n images, each through its route, and of their judge."""
        seconds = 0.0
        for attack, route in asked:
            forward, gradient = passes(attack)
            drawn = self.shared.noise if isinstance(attack, RandFGSM) else 0.0
            forward = forward * (STRICT if route == "strict" else 1) + 1
            image = forward * cost.forward + gradient * cost.gradient[route] + drawn
            seconds += self._padded(n, size) * image
        return seconds

    def _further(self, cost: NetworkCost, n: int) -> float:
        """Seconds of the other attacks on n images, where none of them ends early; a substitute's training aside."""
        backward = cost.gradient["both"] - cost.forward
        seconds = self._attacked(cost, n, [(each, "both") for each in self.others if not hasattr(each, "cost")])
        for attack in self.others:
            if (known := getattr(attack, "cost", None)) is not None:
                images = 1 if isinstance(attack, Substitute) else n  # its questions are for all images together
                seconds += images * (known.forwards * cost.forward + known.backwards * backward)
        return seconds

    def _table3(self, n: int) -> Iterator[float]:
        for attack in table3_locsearch.searches(self.facts.test_size, self.facts.demo).values():
            beside, rows = self.shared.search_round[attack.order]
            together = table3_locsearch.SEARCHED_TOGETHER
            units, columns = ceil(n / together), len(locsearch_columns(attack.steps))
            for name, cost in self.costs.items():
                looks = together + (COMPARED * together if name.endswith("_shc") else 0)
                passed = units * (together * attack.steps * rows + columns * looks)
                yield n * attack.steps * beside + passed * cost.forward

    def _figures(self) -> Stage:
        attack = table3_locsearch.searches(self.facts.test_size, self.facts.demo)["locsearch"]
        searched = attack.steps * (attack.batch_size + LOOKS) * self.seeds
        noisy = len(figure2_noise.SIGMAS)
        seconds = sum((searched + noisy) * cost.forward for cost in self.costs.values())
        return Stage("Figures 2 to 4", "one image each; by the first process only", seconds, 1, 0, 0)

    def _padded(self, n: int, size: int | None = None) -> int:
        size = size or self.batch_size
        return ceil(n / size) * size


def _table2(routes: Sequence[str]) -> list[tuple[Attack, str]]:
    attacks = [
        replace(attack, objective=objective)
        for attack in table2_gradient.ATTACKS.values()
        for objective in get_args(Objective)
    ]
    return [(attack, route) for attack in attacks for route in routes]
