"""shconv plan: how long a reproduction would take, and what memory and disk, from a minute's measurement."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from shconv.commands.options import best_device
from shconv.commands.reproduce import Reproduce, recipe_for
from shconv.data.files import SMALL_SIDE
from shconv.data.preparation import TEST_SIZE, TRAIN_SIZE
from shconv.data.workers import automatic_workers
from shconv.errors import InputError
from shconv.experiments.probe import NetworkCost, Probe
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.study import Counts
from shconv.experiments.table3_locsearch import searches
from shconv.experiments.workload import ROUTES, Facts, Stage, Workload
from shconv.machine import processor
from shconv.training import ModelConfig

KNOWN = {  # training images, test images, classes, side; so that a plan needs no copy of the data
    "imagenet": (1_281_167, 50_000, 1000, None),
    "cifar10": (50_000, 10_000, 10, 32),
}
HEAD = ("Stage", "Work", "On one device", "On {gpus}", "Memory each", "Disk")


@dataclass(frozen=True, kw_only=True)
class Plan(Reproduce):
    """Estimate time, memory and disk of each stage of `shconv reproduce` with the same options, without running it.

    Measures one image's cost on this machine, on random pixels, and multiplies by the counts that the options fix.
    --preset paper: ImageNet, six networks, all counts of the paper; needs no copy of the data.
    """

    gpus: int = 1
    """Processes, each with a device like the one measured; work is divided among them without loss."""
    probe_seconds: float = 40.0
    """Time to measure in; on a slow device a single image of a large network may take it longer."""

    def check(self) -> None:
        super().check()
        if self.gpus < 1:
            raise InputError(f"gpus must be at least 1, got {self.gpus}")
        if not 0 < self.probe_seconds < float("inf"):
            raise InputError(f"probe_seconds must be a number above 0, got {self.probe_seconds}")

    def run(self) -> None:
        self.check()
        facts, device, recipe = self._facts(), best_device(), recipe_for(self.recipe, self.epochs)
        names = [name for vanilla in self.models for name in (vanilla, f"{vanilla}_shc")]
        probe = Probe(device, self.probe_seconds, len(names))
        progress = ExperimentProgress()
        costs: dict[str, NetworkCost] = {}
        with progress.task("measuring", len(names) + 1) as advance:
            for name in names:
                config = self._config(name, facts)
                shc = name.endswith("_shc")
                routes = (*ROUTES[shc], *(("strict",) if shc else ()))
                costs[name] = probe.network(config, recipe, facts.train_size, facts.test_size, self.batch_size, routes)
                advance()
            shared = probe.shared(recipe, facts.train_size, facts.test_size, searches(facts.test_size))
            advance()
        wanted = Counts() if self.full else Counts(self.table1_images, self.table2_images, self.table3_images)
        on_disk = facts.train_images if facts.train_size > SMALL_SIDE else 0
        workers = automatic_workers(on_disk, self.gpus) if self.workers is None else self.workers
        load = Workload(facts, recipe, wanted, len(self.seeds), self.batch_size, workers, costs, shared)
        stages = [*load.training(self.gpus, self.accumulation), *load.tables()]
        print("\n".join([*_table(stages, self.gpus), "", *self._notes(device, probe.smaller)]))

    def _facts(self) -> Facts:
        kind = self.data.partition(":")[0]
        if kind in KNOWN:
            train, test, classes, side = KNOWN[kind]
            tested = TRAIN_SIZE if self.test_preset == "imagenet" else TEST_SIZE
            sizes = (side or TRAIN_SIZE, side or tested)
        else:
            data = self.load(ExperimentProgress(), want_train=True)
            train, test, classes = len(data.train or ()), len(data.test), len(data.classes)
            sizes = (data.train_size, data.image_size)
        if self.image_size is not None:
            sizes = self.image_size, self.image_size
        return Facts(train, test, classes, *sizes)

    def _config(self, name: str, facts: Facts) -> ModelConfig:
        small = facts.test_size <= 64 if self.stem == "auto" else self.stem == "small"
        return ModelConfig(name, facts.classes, stem="small" if small else "imagenet", width=self.width)

    def _notes(self, device: torch.device, smaller: set[int]) -> Iterator[str]:
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
        threads = "" if device.type == "cuda" else f", threads: {torch.get_num_threads()}"
        yield f"Measured on: {where} ({device.type}{threads}), torch {torch.__version__}."
        if smaller:
            yield (
                f"There was no time for some full batches: batches of {min(smaller)} and more stand for them, which "
                "on a GPU makes times too long; --probe-seconds gives more time."
            )
        yield (
            "Assumed: devices share whole batches (searches: eight images) and lose no time to each other; as "
            "many images are found for Tables 2 to 4 as asked for, where the test split has them."
        )
        yield (
            "Left out: reading and decoding image files (with --workers it goes on beside the computing), start-up, "
            "pages and figures drawn at the end. Memory is what weights and kept activations need at least."
        )


def _table(stages: Sequence[Stage], gpus: int) -> Iterator[str]:
    """Markdown, a line a stage and one for the sum."""
    yield _line([cell.format(gpus=gpus) for cell in HEAD])
    yield _line(["---", "---", "---:", "---:", "---:", "---:"])
    for stage in stages:
        times = _time(stage.seconds), _time(stage.seconds_on(gpus))
        yield _line([stage.name, stage.work, *times, _bytes(stage.memory), _bytes(stage.disk)])
    sums = _time(sum(each.seconds for each in stages)), _time(sum(each.seconds_on(gpus) for each in stages))
    most, disk = max(each.memory for each in stages), sum(each.disk for each in stages)
    yield _line(["all", "", *sums, _bytes(most), _bytes(disk)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def _bytes(number: float) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:.0f} B" if number else "-"
