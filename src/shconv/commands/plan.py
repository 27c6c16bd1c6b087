"""shconv plan: how long a reproduction would take, and what memory and disk, from a minute's measurement."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from shconv.commands.options import check_least
from shconv.commands.reproduce import Reproduce, recipe_for
from shconv.data.files import SMALL_SIDE
from shconv.data.preparation import TEST_SIZE, TRAIN_SIZE
from shconv.data.workers import automatic_workers
from shconv.errors import InputError
from shconv.experiments.network import WITH_STRICT
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.study import Counts
from shconv.experiments.table3_locsearch import searches
from shconv.machine import Others, processor
from shconv.planning.probe import NetworkCost, Probe
from shconv.planning.workload import Facts, Stage, Workload
from shconv.processes import Processes
from shconv.training import ModelConfig

KNOWN = {  # training images, test images, classes, side; so that a plan needs no copy of the data
    "imagenet": (1_281_167, 50_000, 1000, None),
    "cifar10": (50_000, 10_000, 10, 32),
}
HEAD = ("Stage", "Work", "On one device", "On {gpus}", "Memory each", "Disk")


@dataclass(frozen=True, kw_only=True)
class Plan(Reproduce):
    """Estimate time, memory and disk of each stage of `shconv reproduce` with the same options, without running it.

    It measures the cost of one image on this machine, on random pixels, and multiplies it by the options' counts.
    Times are ranges: from an idle machine to one as busy as during the measurement. --preset paper: ImageNet, six
    networks, all counts of the paper; needs no copy of the data.
    """

    gpus: int = 1
    """Number of processes, each with a device like the measured one. Work is assumed to divide without loss."""
    probe_seconds: float = 40.0
    """Seconds for measuring; on a slow device a single image of a large network may take longer."""

    def check(self) -> None:
        super().check()
        check_least(self, gpus=1)
        if not 0 < self.probe_seconds < float("inf"):
            raise InputError(f"probe_seconds must be a number above 0, got {self.probe_seconds}")

    def run(self) -> None:
        self.check()
        device = Processes.found(device=self.device).device
        facts, recipe = self._facts(), recipe_for(self.recipe, self.epochs)
        names = [name for vanilla in self.models for name in (vanilla, f"{vanilla}_shc")]
        probe, others = Probe(device, self.probe_seconds, len(names), facts.channels), Others()
        progress = ExperimentProgress()
        costs: dict[str, tuple[NetworkCost, NetworkCost]] = {}
        with progress.task("measuring", len(names) + 1) as advance:
            for name in names:
                config = self._config(name, facts)
                routes = WITH_STRICT[name.endswith("_shc")]
                costs[name] = probe.network(config, recipe, facts.train_size, facts.test_size, self.batch_size, routes)
                advance()
            shared = probe.shared(recipe, facts.train_size, facts.test_size, searches(facts.test_size, facts.demo))
            advance()
        busy = others.cores()
        wanted = Counts() if self.full else Counts(self.table1_images, self.table2_images, self.table3_images)
        on_disk = facts.train_images if facts.train_size > SMALL_SIDE else 0
        workers = automatic_workers(on_disk, self.gpus) if self.workers is None else self.workers
        rest = len(self.seeds), self.batch_size, workers
        stages, more = [], tuple(self.other_attacks(progress.say).values())
        for end in (0, 1):
            ends = {name: both[end] for name, both in costs.items()}
            load = Workload(facts, recipe, wanted, *rest, ends, shared[end], more)
            stages.append([*load.training(self.gpus, self.accumulation), *load.tables()])
        table = _table(list(zip(*stages, strict=True)), self.gpus)
        print("\n".join([*table, "", *self._notes(device, probe.smaller, busy)]))

    def _facts(self) -> Facts:
        kind = self.data.partition(":")[0]
        if kind in KNOWN:
            train, test, classes, side = KNOWN[kind]
            tested = TRAIN_SIZE if self.test_preset == "imagenet" else TEST_SIZE
            sizes, channels = (side or TRAIN_SIZE, side or tested), 1 if self.grey else 3
        else:
            data = self.load(ExperimentProgress(), want_train=True)
            train, test, classes = len(data.train or ()), len(data.test), len(data.classes)
            sizes, channels = (data.train_size, data.image_size), data.channels
        if self.image_size is not None:
            sizes = self.image_size, self.image_size
        return Facts(train, test, classes, *sizes, self.data == "demo", channels)

    def _config(self, name: str, facts: Facts) -> ModelConfig:
        small = facts.test_size <= 64 if self.stem == "auto" else self.stem == "small"
        stem: Literal["small", "imagenet"] = "small" if small else "imagenet"
        return ModelConfig(name, facts.classes, facts.channels, stem=stem, width=self.width)

    def _notes(self, device: torch.device, smaller: set[int], busy: float | None) -> Iterator[str]:
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
        threads = "" if device.type == "cuda" else f", threads: {torch.get_num_threads()}"
        yield f"Measured on: {where} ({device.type}{threads}), torch {torch.__version__}."
        yield "Ranges: from a machine that does nothing else to one as busy as during the measurement."
        if busy is not None:
            advice = ": a plan made on an idle machine is more exact" if busy >= 0.25 else ""
            yield f"Meanwhile other programs kept {busy:.1f} of {os.cpu_count()} cores busy{advice}."
        if smaller:
            yield (
                f"There was no time for some full batches. Their times are estimated from batches of {min(smaller)} "
                "and more; --probe-seconds gives more time."
            )
        yield (
            "Assumed: devices share whole batches (searches: eight images) and do not wait for each other; enough "
            "images are found for Tables 2 to 4, as far as the test split has them."
        )
        if device.type == "cpu":
            yield "Networks are counted one after the other. With images in memory several train at a time, faster."
        yield (
            "Left out: reading and decoding image files (--workers do this at the same time), start-up, and the page "
            "and figures at the end. Memory is the least that weights and stored activations need."
        )


def _table(stages: Sequence[tuple[Stage, Stage]], gpus: int) -> Iterator[str]:
    """Markdown, a line a stage, at least and usually, and one for the sum."""
    yield _line([cell.format(gpus=gpus) for cell in HEAD])
    yield _line(["---", "---", "---:", "---:", "---:", "---:"])
    for least, usual in stages:
        one, many = (least.seconds, usual.seconds), (least.seconds_on(gpus), usual.seconds_on(gpus))
        yield _line([usual.name, usual.work, _range(*one), _range(*many), _bytes(usual.memory), _bytes(usual.disk)])
    alone = [sum(stage.seconds for stage in end) for end in zip(*stages, strict=True)]
    shared = [sum(stage.seconds_on(gpus) for stage in end) for end in zip(*stages, strict=True)]
    most, disk = max(usual.memory for _, usual in stages), sum(usual.disk for _, usual in stages)
    yield _line(["all", "", _range(*alone), _range(*shared), _bytes(most), _bytes(disk)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _range(low: float, high: float) -> str:
    """One time where the two read the same."""
    (least, unit), (most, larger) = _time(low), _time(high)
    if unit != larger:
        return f"{least} {unit} to {most} {larger}"
    return f"{most} {unit}" if least == most else f"{least} to {most} {unit}"


def _time(seconds: float) -> tuple[str, str]:
    """A number and its unit."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f}", unit
    return f"{seconds:.1f}", "s"


def _bytes(number: float) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:.0f} B" if number else "-"
