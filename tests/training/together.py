"""What the tests of several processes let two gloo processes do, all in one start of them; and the same for one."""

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, multiprocessing, nn

import shconv
from shconv.data import ImageData
from shconv.data.splits import MemorySplit
from shconv.processes import Processes
from shconv.training import Engine, ModelConfig, Preempted, Recipe, TrainingDiverged, create_defence, job, train
from shconv.training.defences import Step
from toys import processes

SHC = ModelConfig("plain10_shc", 3, stem="small", width=4)
RECIPE = Recipe(3, 16, 0.05, schedule="cosine", precision="float32")
DEFENCES = ("fgsm-rs", "pgd", "stability", "trades", "distillation", "noise-model")
SYNCHRONISED = Engine(sync_batch_norm=True)


class NoNorm(nn.Sequential):
    """Nothing in it depends on the other images of its batch, or on chance."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, num_classes))


def colours(n: int, seed: int) -> MemorySplit:
    """Class k is brighter in channel k."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 120, (n, 3, 8, 8), generator=generator)
    images[torch.arange(n), labels] += 60
    return MemorySplit(images.to(torch.uint8), labels, [str(i) for i in range(n)])


DATA = ImageData("toy", ("red", "green", "blue"), colours(70, 0), colours(35, 1), 8, "", 0)


def curve(folder: Path, config: ModelConfig, recipe: Recipe, **settings: Any) -> dict[str, Any]:
    """A whole training: its rows without their times, and its weights."""
    result = train(config, DATA, recipe, folder, progress=False, **settings)
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in result.history]
    return {"rows": rows, "weights": result.model.state_dict()}


def without_norm() -> None:
    shconv.create_model = lambda **kw: NoNorm(kw["num_classes"], kw["width"])


def odd(folder: Path, epochs: int = RECIPE.epochs, **settings: Any) -> dict[str, Any]:
    """Batches that no number of processes or micro-batches divides."""
    recipe = replace(RECIPE, batch_size=13, epochs=epochs)
    return curve(folder, replace(SHC, name="no norm"), recipe, **settings)


def attacked(folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    return odd(folder, epochs=1, defence=create_defence(name), **settings)


def guarded(folder: Path, **settings: Any) -> dict[str, Any]:
    """A detector, whose batch norms are its own, and the classifier that comes first."""
    defence = create_defence("detector", steps=1)
    return curve(folder / "detector", SHC, replace(RECIPE, epochs=1), defence=defence, **settings)


def preempted(folder: Path, engine: Engine) -> dict[str, Any]:
    """SIGTERM comes to the second process alone, in its sixth step."""
    steps: list[int] = []

    def step(*arguments: Any) -> Tensor:
        steps.append(0)
        if len(steps) == 6 and int(os.environ.get("RANK", "0")) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return cross_entropy(*arguments)

    cross_entropy = Step.cross_entropy
    Step.cross_entropy = step  # type: ignore[method-assign]
    try:
        train(SHC, DATA, RECIPE, folder, engine=engine, progress=False)
    except Preempted as stopped:
        return {"code": stopped.code, "steps": len(steps)}
    finally:
        Step.cross_entropy = cross_entropy  # type: ignore[method-assign]
    raise AssertionError


def diverged(folder: Path) -> dict[str, Any]:
    """In the second step the second process has a NaN."""
    seen: list[list[int]] = []
    original, steps = job.Epoch.step, []

    def step(self: Any, batch: Any, sums: Any) -> Any:
        unread = original(self, batch, sums)
        seen.append(batch.index.tolist())
        steps.append(0)
        bad = len(steps) == 2 and self.processes.rank == 1
        return replace(unread, losses=[(loss * float("nan"), n) for loss, n in unread.losses]) if bad else unread

    job.Epoch.step = step  # type: ignore[method-assign]
    try:
        train(SHC, DATA, RECIPE, folder, progress=False)
    except TrainingDiverged as error:
        return {"index": error.index, "own": seen[1], "said": (folder / "diverged.json").read_text()}
    finally:
        job.Epoch.step = original  # type: ignore[method-assign]
    raise AssertionError


def full_disk(folder: Path) -> dict[str, Any]:
    """The main process cannot write."""
    original = job.save_state

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    job.save_state = fail
    try:
        train(SHC, DATA, RECIPE, folder, progress=False)
    except OSError as error:
        return {"errno": error.errno}
    finally:
        job.save_state = original
    raise AssertionError


def compiled(folder: Path, name: str) -> dict[str, Any]:
    """The same, traced by torch.compile but not compiled, which takes minutes."""
    original = torch.compile
    torch.compile = lambda model: original(model, backend="eager")  # type: ignore[assignment, misc]
    try:
        return attacked(folder, name, engine=Engine(compile=True))
    finally:
        torch.compile = original


def both(out: Path) -> dict[str, Any]:
    """Everything that two processes are to do."""
    told: dict[str, Any] = {"count": Processes.found().count}
    told["synchronised"] = curve(out / "synchronised", SHC, RECIPE, engine=SYNCHRONISED)
    told["apart"] = curve(out / "apart", SHC, RECIPE)
    told["preempted"] = {**preempted(out / "preempted", Engine()), **curve(out / "preempted", SHC, RECIPE)}
    told["detector"] = guarded(out, engine=SYNCHRONISED)
    told["fewer"] = preempted(out / "fewer", SYNCHRONISED)
    told["diverged"] = diverged(out / "diverged")
    told["full disk"] = full_disk(out / "full")
    without_norm()
    told["odd"] = odd(out / "odd", engine=Engine(accumulation=3))
    for name in DEFENCES:
        told[name] = attacked(out / name, name)
    told["compiled"] = compiled(out / "compiled", "fgsm-rs")
    return told


def _start(rank: int, count: int, port: int, out: Path, work: Callable[[Path], dict[str, Any]]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    os.environ.update(ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)  # a copy of a process that trained knows itself alone
    torch.save(work(out), out / f"told{rank}.pt")


def in_processes(count: int, out: Path, work: Callable[[Path], dict[str, Any]]) -> list[dict[str, Any]]:
    """What `work(out)` gives each of so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = processes().get_start_method()
    multiprocessing.start_processes(_start, (count, port, out, work), count, start_method=method)  # type: ignore[no-untyped-call]
    return told(count, out)


def told(count: int, out: Path) -> list[dict[str, Any]]:
    return [torch.load(out / f"told{rank}.pt", weights_only=True) for rank in range(count)]
