"""`train`: from a folder that may be empty, interrupted or finished to a finished one. The steps are in job.py.

The outcome is a function of (configuration, data, recipe, defence, seed); on a CPU an interruption changes no bit, and
the number of processes only the rounding (and, unless it is synchronised, what a batch norm takes for its batch)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from shconv.arguments import checked
from shconv.data import ImageData, ImageSplit
from shconv.data.loading import near
from shconv.data.worker_failures import naming_dead_workers
from shconv.errors import InputError
from shconv.files import locked
from shconv.models import vanilla_of
from shconv.models.shapes import shapes_only
from shconv.numbers import fits_int64
from shconv.processes import Processes
from shconv.training.batch_size import check_micro_batch, smallest_share, warning_of_few_steps
from shconv.training.checkpoint import ModelConfig, check_same_run, load_info, run_record, save_checkpoint
from shconv.training.compiling import reason_against_graphs, said
from shconv.training.defences import Defence, Plain, Source
from shconv.training.engine import Engine
from shconv.training.epoch import Sums
from shconv.training.job import Job, Row, epoch_steps
from shconv.training.learner import Learner
from shconv.training.passes import CAPTURED
from shconv.training.progress import TrainingProgress
from shconv.training.recipe import Recipe
from shconv.training.signals import stop_requests
from shconv.training.state import State, load_state, remove_states
from shconv.training.stored import TrainingResult, stored_result
from shconv.training.tracking import Trackers


@checked
def train(
    config: ModelConfig,
    data: ImageData,
    recipe: Recipe,
    folder: str | Path,
    *,
    defence: Defence | None = None,
    engine: Engine | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str | None = None,
    progress: bool = True,
    on_epoch: Callable[[Row], None] | None = None,
) -> TrainingResult:
    """Train the network of `config` (section 3.2) and leave model.safetensors, config.json and log.jsonl in `folder`.

    The folder decides where to begin: empty, at the start; interrupted, after the last step whose state is stored;
    finished, nothing is trained and the stored result comes back. Below it, best/ is the checkpoint of the best test
    accuracy (chosen by test images: never a result) and, with engine.keep_every, epochN/ that of every N-th epoch.
    Several processes (torchrun, accelerate launch) divide each batch among them; they must share the folder. Torch's
    global random state is left as it was.

    Args:
        config: the network to build.
        data: must have training images and as many classes as the network.
        recipe: one of RECIPES or your own.
        folder: of this one training; made if need be.
        defence: what each step minimises; None: the cross-entropy of the images. Networks that it learns from are
            trained first, by the same recipe, each in a folder of its own below this one.
        engine: how it is carried out; None: Engine().
        seed: of the initial weights, the order of the images, their augmentation and the defence's random numbers. A
            vanilla network and its SHC counterpart with the same seed and recipe see the same batches.
        workers: processes that load images for each training process, 0 for none.
        device: "cpu", "cuda", "cuda:1", "mps" ...; None: the accelerator that there is, else the CPU.
        progress: a bar on a terminal and a line an epoch, on standard error.
        on_epoch: called with the epoch's row once its state is stored. What it raises ends this call; another one
            continues.

    Raises:
        InputError: data, network and defence do not fit, the folder holds another training or damaged states alone, or
            is in use, the device is not there or cannot do the precision.
        TrainingDiverged: a loss that is not finite or has exploded.
        Preempted, KeyboardInterrupt: SIGTERM or SIGINT came; the state is stored.
        OSError: such as a full disk; the last stored state is intact. ChildProcessError: a worker is gone;
            ConnectionAbortedError: another process is.
    """
    folder = Path(folder)
    defence = Plain() if defence is None else defence
    engine = Engine() if engine is None else engine
    asked, config = config, defence.around(config)
    record = run_record(config, data, recipe, seed, defence.record())
    split = _checked(config, data, folder, seed, defence)
    if recipe.mixup + recipe.cutmix > 0 and not isinstance(defence, Plain):
        raise InputError(f"defence {defence.name} needs images of one label each: leave mixup and cutmix at 0")
    processes = Processes.found(device=device)
    engine.check(recipe, len(split), processes)
    _check_micro_batch(config, data, recipe, engine, processes)
    with processes.naming_the_lost():
        shown = TrainingProgress(recipe.epochs, progress and processes.is_first)
        if _is_finished(folder, record, processes):
            result = stored_result(folder)
            processes.on_first(lambda: _complete(result, record, engine, epoch_steps(split, recipe), shown))
            return result
        how: dict[str, Any] = {"engine": engine, "workers": workers, "device": device, "progress": progress}
        defence = _taught(defence, asked, data, recipe, folder, seed, record, shown, how)
        place = processes.device
        split, data = near(split, place, recipe.augmentation), replace(data, test=near(data.test, place))
        with (
            processes.alone_in(folder),
            torch.random.fork_rng([place] if place.type == "cuda" else []),
            stop_requests() as request,
            naming_dead_workers(),
        ):
            state, problem = load_state(folder)
            torch.manual_seed(seed)
            graphs = reason_against_graphs(processes.device, engine, processes.count, defence)
            learner = Learner.build(config, recipe, engine, processes, graphs, defence.begin)
            args = (folder, record, data, split, recipe, defence, engine, seed, workers)
            history = [] if state is None else list(state["history"])
            job = Job(*args, learner, processes, request, shown, history, on_epoch)
            sums = _restored(job, state)
            with shown.started(_title(config, data, seed, defence), len(job.history), sums.steps, job.steps):
                if data.note:
                    shown.say(data.note)
                if engine.compile:
                    shown.say(said(graphs))
                elif learner.device.type == "cuda":
                    shown.say(f"no CUDA graph for the steps: {job.reason}" if job.reason else CAPTURED)
                _say(job, problem, state)
                _run(job, sums)
            processes.on_first(lambda: _finish(job))
        return stored_result(folder)


def _check_micro_batch(
    config: ModelConfig, data: ImageData, recipe: Recipe, engine: Engine, processes: Processes
) -> None:
    """On the vanilla network, which has the same batch norms, and on no memory at all; where it can fail at all."""
    batch = min(recipe.batch_size, len(data.train or ()))
    if smallest_share(batch, engine.accumulation, processes.count, together=engine.sync_batch_norm) > 1:
        return
    with shapes_only():
        network = replace(config, name=vanilla_of(config.name)).build()
        image = torch.empty(config.in_channels, data.train_size, data.train_size)
    check_micro_batch(network, image, recipe, len(data.train or ()), engine, processes)


def _is_finished(folder: Path, record: dict[str, Any], processes: Processes) -> bool:
    info = processes.on_first(lambda: load_info(folder))
    if info is not None:
        check_same_run(folder, info, record)
    return info is not None


def _taught(
    defence: Defence,
    config: ModelConfig,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    seed: int,
    record: dict[str, Any],
    shown: TrainingProgress,
    how: dict[str, Any],
) -> Defence:
    """The defence with the networks that it learns from, each trained by `train` itself in a folder below."""
    first = defence.first(seed)
    if not first:
        return defence
    state, _ = load_state(folder)
    if state is not None:
        check_same_run(folder, state["run"], record)  # before time is spent
    for name, (its, own_seed) in first.items():
        shown.say(f"defence {defence.name}: its {name}, in {folder / name}")
        train(config, data, recipe, folder / name, defence=its, seed=own_seed, **how)
    return defence.taught({name: Source.load(folder / name) for name in first})


def _restored(job: Job, state: State | None) -> Sums:
    """The learner as the state has it, and the position in its epoch. Raises InputError where it is another training's,
    and where processes see different folders."""
    if state is not None:
        check_same_run(job.folder, state["run"], job.record)
    position = None if state is None else dict(state["position"])
    if any(each != position for each in job.processes.gather(position)):
        raise InputError(f"{job.folder} is not the same folder for all processes: it must be on a disk that they share")
    if state is None or position is None:
        return Sums.none(job.learner.device)
    job.learner.restore(state["learner"])
    del position["epoch"]
    return Sums.restored(position, job.processes)


def _say(job: Job, problem: str | None, state: State | None) -> None:
    """What is out of the ordinary about how this training goes on."""
    if problem is not None:
        job.shown.say(f"warning: {problem}")
    few = warning_of_few_steps(len(job.split), job.recipe.batch_size, job.recipe.epochs)
    if few is not None and state is None:
        job.shown.say(few)
    was = {} if state is None else state["engine"]
    changed = [f"{name} {was[name]} -> {now}" for name, now in job.carried_out.items() if was.get(name, now) != now]
    if changed:
        job.shown.say(f"continued with other settings than before: {', '.join(changed)}")


def _run(job: Job, sums: Sums) -> None:
    def start() -> None:
        job.trackers.start(job.engine.log, _settings(job.record))
        job.trackers.epochs(job.history, job.steps)

    try:
        job.processes.on_first(start)
        job.run(sums)
    finally:
        job.trackers.finish()


def _complete(
    result: TrainingResult, record: dict[str, Any], engine: Engine, steps: int, shown: TrainingProgress
) -> None:
    """What a kill left to do for a finished training: states go, trackers get the epochs that they do not know of."""
    remove_states(result.folder)
    trackers = Trackers(result.folder, shown.say)
    if behind := trackers.behind(engine.log, len(result.history) * steps):
        with locked(result.folder):
            trackers.start(behind, _settings(record))
            trackers.epochs(result.history, steps)
            trackers.finish()


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """What a training's trackers are told at its start."""
    return {**record, "data": {**record["data"], "classes": len(record["data"]["classes"])}}


def _finish(job: Job) -> None:
    job.write_log()
    accuracy = job.history[-1]["test_accuracy"]
    result = {"finished": True, "epochs_done": len(job.history), "test_accuracy": accuracy}
    save_checkpoint(job.folder, job.learner.outcome, {**job.record, "engine": job.carried_out, **result})
    remove_states(job.folder)


def _checked(config: ModelConfig, data: ImageData, folder: Path, seed: int, defence: Defence) -> ImageSplit:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a folder is wanted")
    if seed < 0 or not fits_int64(seed):
        raise InputError(f"seed is {seed}; wanted: an integer >= 0 and below 2**63")
    if config.num_classes != len(data.classes):
        raise InputError(f"the network has {config.num_classes} classes, {data.name} has {len(data.classes)}")
    if data.train is None or len(data.train) == 0:
        raise InputError(f"{data.name} has no training images")
    if len(data.test) == 0:
        raise InputError(f"{data.name} has no test images")
    defence.check(config, data.classes)
    if defence.first(seed):  # networks are trained before this one is built, which may be refused
        with shapes_only():
            config.build()
    return data.train


def _title(config: ModelConfig, data: ImageData, seed: int, defence: Defence) -> str:
    trained = "" if isinstance(defence, Plain) else f", defence {defence.name}"
    images = f"{len(data.train or ()):,} training and {len(data.test):,} test images"
    return f"{config.name}, seed {seed}{trained}, on {data.name}: {images}"
