"""What training's own loop costs beside its network: the time of a step of `train` over that of the bare step (forward,
cross-entropy, backward, optimiser) of the same network on the same images. Rounds are interleaved:

    python benchmarks/training_loop.py [--model tiny] [--device cpu] [--profile 25]

The network is tiny, so that what a fast device leaves to the host is what counts. --profile N lists the N functions
that take most of the loop's time.
"""

import cProfile
import platform
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from torch import nn

from shconv.data import ImageData
from shconv.data.splits import MemorySplit
from shconv.devices import device_named
from shconv.processes import Processes
from shconv.training import Engine, ModelConfig, Recipe
from shconv.training.defences import Plain
from shconv.training.epoch import Sums
from shconv.training.job import Job
from shconv.training.learner import Learner
from shconv.training.progress import TrainingProgress
from shconv.training.signals import StopRequest


@dataclass
class Options:
    model: str = "tiny"
    """tiny: a convolution, batch norm, ReLU and a linear layer; or a network's name, such as plain10_shc."""
    width: int = 4
    image_size: int = 16
    batch_size: int = 64
    augmentation: str = "crop_flip"
    steps: int = 20
    """Steps in a round of each."""
    rounds: int = 41
    device: str = "cpu"
    threads: int = 1
    profile: int = 0


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    device = device_named(options.device) or torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        job = training(options, Path(folder), device)
        contenders = {"bare": bare_steps(options, job.learner), "loop": lambda: loop_steps(job)}
        seconds = measured(contenders, options.rounds, device)
        if options.profile:
            profiled(contenders["loop"], options.profile)
    report(seconds, options, device)


def training(options: Options, folder: Path, device: torch.device) -> Job:
    """As `train` makes it, on made-up images in memory."""
    name = "plain10" if options.model == "tiny" else options.model
    config = ModelConfig(name, 10, stem="small", width=options.width)
    count = options.steps * options.batch_size
    size = (count, 3, options.image_size, options.image_size)
    images = torch.randint(256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = MemorySplit(images, torch.arange(count) % 10, [str(i) for i in range(count)])
    classes = tuple("0123456789")
    data = ImageData("made up", classes, split, split, options.image_size, "", 0)
    recipe = Recipe(
        1,
        options.batch_size,
        1e-3,
        augmentation=options.augmentation,
        precision="float32",  # type: ignore[arg-type]
    )
    processes = Processes(device=device)
    learner = Learner.build(config, recipe, Engine(), processes)
    if options.model == "tiny":
        network = tiny(options.width).to(device).to(memory_format=learner.layout)
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, fused=device.type == "cuda" or None)
        learner = replace(learner, network=network, model=network, optimizer=optimizer)
    shown = TrainingProgress(1, show=False)
    return Job(folder, {}, data, split, recipe, Plain(), Engine(), 0, 0, learner, processes, StopRequest(), shown, [])


def tiny(width: int) -> nn.Module:
    layers = nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(width, 10))


def loop_steps(job: Job) -> None:
    """An epoch without its test, its log and its state."""
    job._train(0, Sums.none(job.learner.device))


def bare_steps(options: Options, learner: Learner) -> Callable[[], None]:
    """As many steps on one batch that lies on the device."""
    size = (options.batch_size, 3, options.image_size, options.image_size)
    images = torch.rand(size).to(learner.device).contiguous(memory_format=learner.layout)
    labels = (torch.arange(options.batch_size) % 10).to(learner.device)

    def work() -> None:
        learner.model.train()
        for _ in range(options.steps):
            F.cross_entropy(learner.model(images), labels).backward()
            learner.optimizer.step()
            learner.optimizer.zero_grad()

    return work


def measured(contenders: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            wait(device)
            started = now(device)
            work()
            wait(device)
            if turn:
                seconds[name].append(now(device) - started)
    return seconds


def now(device: torch.device) -> float:
    """On a CPU the processor's time, which other work on the machine does not count in."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(seconds: dict[str, list[float]], options: Options, device: torch.device) -> None:
    bare, loop = (statistics.median(each) / options.steps * 1e3 for each in seconds.values())
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    print(
        f"{platform.processor() or platform.machine()}, {device}, torch {torch.__version__}, {options.threads} threads"
    )
    print(f"{options.model}, width {options.width}, {options.batch_size} images of {options.image_size} px, ", end="")
    print(f"{options.augmentation}; medians of {options.rounds} rounds of {options.steps} steps\n")
    print("| bare step, ms | loop's step, ms | ratio | lowest to highest | the loop's own part, ms |")
    print("|---|---|---|---|---|")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"| {bare:.3f} | {loop:.3f} | {statistics.median(ratios):.2f} | {spread} | {loop - bare:.3f} |")


def profiled(work: Callable[[], None], most: int) -> None:
    profile = cProfile.Profile()
    profile.runcall(work)
    pstats.Stats(profile).sort_stats("tottime").print_stats(most)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
