"""What train, reproduce and evaluate share: the images, the experiments in their order over a study, the report.
Every process of a run comes through here; the first alone draws figures and speaks."""

import os
import platform
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from importlib import metadata
from pathlib import Path
from types import ModuleType

import torch

from shconv import report
from shconv.commands.options import DataOptions, TableOptions
from shconv.data import ImageData, Preparation
from shconv.experiments import (
    figure2_noise,
    figure3_traces,
    figure4_gradients,
    quasi_boundary,
    table1_gaussian,
    table2_gradient,
    table3_locsearch,
    table4_routes,
)
from shconv.experiments.estimate import announcements
from shconv.experiments.network import Pair
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Counts, Study
from shconv.files import own_folder
from shconv.machine import processor
from shconv.processes import Processes
from shconv.terminal import console

TABLES: dict[int, tuple[ModuleType, ...]] = {
    1: (table1_gaussian,),
    2: (table2_gradient,),
    3: (table3_locsearch, quasi_boundary),
    4: (table4_routes,),
}
STAGES = {  # a plan's names for them
    table1_gaussian: "Table 1",
    table2_gradient: "Table 2",
    table3_locsearch: "Table 3",
    quasi_boundary: "quasi boundary",
    table4_routes: "Table 4",
}
FIGURES: dict[int, ModuleType] = {1: figure2_noise, 3: figure3_traces, 4: figure4_gradients}  # beside their tables
ADDS = ("models", "seeds", "tables")  # rows to those that are there
CARRIED_OUT = (
    "workers",
    "out",
    "device",
    "download",
    "checkpoint",
    "twin",
    "save_minutes",
    "save_steps",
    "keep_every",
    "tensorboard",
)
PREPARED = ("image_size", "test_preset")  # data.json has what they came to
FREE = (*ADDS, *CARRIED_OUT, *PREPARED)


def load(
    options: DataOptions,
    processes: Processes,
    progress: ExperimentProgress,
    want_train: bool,
    preparation: Preparation | None = None,
) -> ImageData:
    """The images. With --download the processes take turns: the first of them, or of a node, finds none and fetches."""
    with processes.in_turn() if options.download else nullcontext():
        return options.load(progress, want_train, preparation)


def run_folder(
    usual: Path, out: Path | None, asked: dict[str, object], processes: Processes, progress: ExperimentProgress
) -> Path:
    """The folder asked for; else the usual one, or the next of its name where a run with other options has that."""
    place = out or processes.on_first(
        lambda: own_folder(usual, lambda each: RunFolder.holds_another(each, asked, FREE))
    )
    if out is None and place != usual:
        progress.say(f"{usual} holds a run with other options: this one goes to {place}")
    return place


def describe(folder: RunFolder, options: dict[str, object], data: ImageData, processes: Processes) -> None:
    """Store what was asked for, on what data, with which versions and machine."""
    folder.settle(options, FREE)
    train_images = 0 if data.train is None else len(data.train)
    about = {"name": data.name, "classes": data.classes, "note": data.note, **data.preparation.stored()}
    counts = {"train_images": train_images, "test_images": len(data.test), "skipped": data.skipped}
    folder.settle_json("data.json", {**about, **counts}, grows=True)  # by what earlier versions did not store
    names = ("shconv", "torch", "torchvision", "numpy", "accelerate", "safetensors", "scikit-image")
    folder.save_json(
        "environment.json",
        {
            **{name: _version(name) for name in names},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processes": processes.count,
            "device": str(processes.device),
            "started": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        },
    )


def run_experiments(
    folder: RunFolder,
    data: ImageData,
    pairs: Iterable[Pair],
    options: TableOptions,
    progress: ExperimentProgress,
    tables: Iterable[int] = tuple(TABLES),
    *,
    workers: int,
    processes: Processes,
) -> None:
    """Every table asked for and its figure, the quasi decision boundary with Table 3; rows appended as they come."""
    wanted = (options.table1_images, options.table2_images, options.table3_images)
    least = options.min_confidence
    counts = Counts(min_confidence=least) if options.full else Counts(*wanted, min_confidence=least)
    study = Study(
        folder,
        data,
        tuple(pairs),
        counts,
        options.batch_size,
        processes.device,
        progress,
        options.attack_seed,
        workers,
        processes,
    )
    asked = sorted(set(tables))
    announced = announcements(study) if folder.writes else {}
    for experiment in (module for table in asked for module in TABLES[table]):
        if said := announced.get(STAGES[experiment]):
            progress.say(said)
        for _ in experiment.rows(study):
            pass
    if folder.writes:
        for figure in (FIGURES[table] for table in asked if table in FIGURES):
            figure.save(study)
        with suppress(OSError):  # another command's partial outcomes stay for it
            (folder.path / "partial").rmdir()


def conclude(folder: RunFolder, progress: ExperimentProgress) -> None:
    """Print the tables and write them, the figures and the page; then warn of networks behind their twins."""
    if not folder.writes:
        return
    page = report.write(folder.path)
    report.print_tables(folder.path, console())
    for said in report.read(report.load_run(folder.path)):
        if said.topic == "Training" and said.alarm:
            progress.say(f"warning: {said.text}")
    progress.say(f"The report: {page}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
