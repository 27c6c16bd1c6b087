"""What train, reproduce and evaluate share: the images, the experiments in their order over a study, the report.
Every process of a run comes through here; the first alone draws figures and speaks."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from shconv import __version__, report
from shconv.attacks import Attack
from shconv.commands.config_file import plain, usual
from shconv.commands.options import DataOptions, PaperOptions, TableOptions
from shconv.data import ImageData, Preparation
from shconv.data.given import fingerprint
from shconv.experiments.network import LATER, Network, Pair
from shconv.experiments.own_attacks import holds_other_attacks
from shconv.experiments.paper import TABLES, run_paper
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import Asked, RunFolder, holds_other
from shconv.experiments.study import NETWORKS, Counts, Study, as_stored
from shconv.files import own_folder
from shconv.machine import processor
from shconv.planning.estimate import announcements
from shconv.processes import Processes
from shconv.terminal import console

# rows to those that are there
ADDS = (
    *("models", "seeds", "tables", "attack", "attacks", "standard", "model", "routes", "baseline", "what"),
    *("networks", "defences"),
)
CARRIED_OUT = (
    "workers",
    "out",
    "device",
    "graphs",
    "download",
    "checkpoint",
    "twin",
    "save_minutes",
    "save_steps",
    "keep_every",
    "log",
    "tensorboard",  # as earlier versions called it
)
DATA = "data.json"
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


def asked_of(command: str, options: Any) -> Asked:
    """What a command with these options asks of its run folder."""
    return Asked({"command": command, **plain(options)}, usual(options), FREE)


def run_folder(
    usual: Path,
    out: Path | None,
    asked: Asked,
    processes: Processes,
    progress: ExperimentProgress,
    is_other: Callable[[Path], bool] = lambda folder: False,
) -> Path:
    """The folder asked for; else the usual one, or the next of its name where a run with other options has that.

    is_other: does a folder hold a run of other networks, attacks or images?
    """
    place = out or processes.on_first(
        lambda: own_folder(usual, lambda folder: asked.is_refused(folder) or is_other(folder))
    )
    if out is None and place != usual:
        progress.say(f"{usual} holds another run: this one goes to {place}")
    return place


def others_than(networks: Sequence[Network], attacks: Mapping[str, Attack], data: ImageData) -> Callable[[Path], bool]:
    """Does a folder hold a run of other networks or images, or other attacks of these names?"""

    def is_other(folder: Path) -> bool:
        if not folder.exists():  # nothing is read of networks and images for it
            return False
        facts = {NETWORKS: as_stored([Pair(tuple(networks))]), DATA: _about(data)}
        return any(holds_other(folder, *each, LATER) for each in facts.items()) or holds_other_attacks(folder, attacks)

    return is_other


def describe(folder: RunFolder, asked: Asked, data: ImageData, processes: Processes) -> None:
    """Store what was asked for, on what data, with which versions and machine."""
    folder.settle(asked)
    folder.settle_json(DATA, _about(data), grows=True)  # by what earlier versions did not store
    names = ("torch", "torchvision", "numpy", "accelerate", "safetensors", "scikit-image")
    folder.save_json(
        "environment.json",
        {
            "shconv": __version__,
            **{name: _version(name) for name in names},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": processor(),
            **({"gpu": torch.cuda.get_device_name(processes.device)} if processes.device.type == "cuda" else {}),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processes": processes.count,
            "device": str(processes.device),
            "started": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        },
    )


def _about(data: ImageData) -> dict[str, Any]:
    train_images = 0 if data.train is None else len(data.train)
    about = {"name": data.name, "classes": data.classes, "note": data.note, **data.preparation.stored()}
    about |= fingerprint(data)
    return {**about, "train_images": train_images, "test_images": len(data.test), "skipped": data.skipped}


def run_experiments(
    folder: RunFolder,
    data: ImageData,
    pairs: Iterable[Pair],
    options: PaperOptions,
    progress: ExperimentProgress,
    tables: Iterable[int] = tuple(TABLES),
    *,
    workers: int,
    processes: Processes,
) -> None:
    """The paper's tables asked for, with a word before those that take minutes."""
    wanted = (options.table1_images, options.table2_images, options.table3_images)
    least = options.min_confidence
    counts = Counts(min_confidence=least) if options.full else Counts(*wanted, min_confidence=least)
    study = study_of(folder, data, pairs, counts, options, progress, workers=workers, processes=processes)
    others = options.other_attacks(progress.say)
    run_paper(study, tables, announcements(study, others) if folder.writes else {}, others)


def study_of(
    folder: RunFolder,
    data: ImageData,
    pairs: Iterable[Pair],
    counts: Counts,
    options: TableOptions,
    progress: ExperimentProgress,
    *,
    workers: int,
    processes: Processes,
    **more: Any,
) -> Study:
    """The study that a command's options describe; `more` is Study's."""
    return Study(
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
        **more,
    )


def conclude(folder: RunFolder, progress: ExperimentProgress) -> None:
    """Print the tables and write them, the figures and the page; then warn of networks behind their twins."""
    if not folder.writes:
        return
    run = report.load_run(folder.path)
    page = report.write(run, console=console())
    for said in report.read(run, "Training"):
        if said.alarm:
            progress.say(f"warning: {said.text}")
    progress.say(f"The report: {page}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
