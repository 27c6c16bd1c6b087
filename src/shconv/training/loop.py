"""Training, read from top to bottom: SGD over W and theta together, the state stored after every epoch.

The outcome is a function of (configuration, data, recipe, defence, seed); on a CPU an interruption changes no bit."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from shconv.data import ImageData, ImageSplit, training_batches
from shconv.data.loading import Batches
from shconv.errors import InputError
from shconv.files import replace_file, replace_json
from shconv.training.checkpoint import (
    ModelConfig,
    check_same_run,
    load_checkpoint,
    load_info,
    load_state,
    run_record,
    save_checkpoint,
    save_state,
)
from shconv.training.defences import Defence, Plain, Step
from shconv.training.defences.base import step_generator
from shconv.training.defences.watch import collapse, pgd_accuracy
from shconv.training.evaluate import correct_in
from shconv.training.learner import Learner
from shconv.training.progress import TrainingProgress
from shconv.training.recipe import Recipe
from shconv.training.schedule import learning_rate

LOG, DIVERGED = "log.jsonl", "diverged.json"
LOOK_EVERY = 20  # steps between two looks at the losses where the device computes on its own: each look waits for it

Row = dict[str, Any]  # one epoch, one line of log.jsonl


class TrainingDiverged(RuntimeError):  # noqa: N818 (says what happened, as KeyboardInterrupt does)
    """The loss was NaN or infinite at `step` (from 0) of `epoch` (from 1), on the training images `index`."""

    def __init__(self, epoch: int, step: int, index: Sequence[int], loss: float) -> None:
        few = ", ".join(str(i) for i in index[:5]) + (", ..." if len(index) > 5 else "")
        super().__init__(
            f"the loss is {loss} at epoch {epoch}, step {step}, training images {few} (all of them in {DIVERGED}); "
            "try a lower learning rate, in another folder"
        )
        self.epoch, self.step, self.index, self.loss = epoch, step, list(index), loss


@dataclass(frozen=True)
class TrainingResult:
    """A finished training. `history` holds the rows of log.jsonl, one per epoch."""

    model: nn.Module  # in eval mode on the CPU, as load_checkpoint(folder) gives it
    config: ModelConfig
    folder: Path
    history: tuple[Row, ...]
    test_accuracy: float


def train(
    config: ModelConfig,
    data: ImageData,
    recipe: Recipe,
    folder: str | Path,
    *,
    defence: Defence | None = None,
    seed: int = 0,
    workers: int = 0,
    progress: bool = True,
    on_epoch: Callable[[Row], None] | None = None,
) -> TrainingResult:
    """Train the network of `config` (section 3.2) and leave model.safetensors, config.json and log.jsonl in `folder`.

    The folder decides where to begin: empty, at the start; interrupted, after its last whole epoch; finished, nothing
    is trained and the stored result comes back. The device is the one accelerate finds. Torch's global random state
    is left as it was.

    Args:
        config: the network to build.
        data: must have training images and as many classes as the network.
        recipe: one of RECIPES or your own.
        folder: of this one training; made if need be.
        defence: what each step minimises; None: the cross-entropy of the images.
        seed: of the initial weights, the order of the images, their augmentation and the defence's random numbers. A
            vanilla network and its SHC counterpart with the same seed and recipe see the same batches.
        workers: processes that load images, 0 for none.
        progress: a bar on a terminal and a line an epoch, on standard error.
        on_epoch: called with the epoch's row once its state is stored. What it raises ends this call; another one
            continues.

    Raises:
        InputError: data, network and defence do not fit, the folder holds another training or a damaged one, the
            device cannot do the precision.
        TrainingDiverged: a loss that is not finite.
        OSError: a full disk, say; the last stored state is intact.
    """
    folder = Path(folder)
    defence = Plain() if defence is None else defence
    record = run_record(config, data, recipe, seed, defence.record())
    split = _checked(config, data, folder, seed, defence)
    if (info := load_info(folder)) is not None:
        check_same_run(folder, info, record)
        return _stored_result(folder)
    state = load_state(folder)
    if state is not None:
        check_same_run(folder, state["run"], record)
    folder.mkdir(parents=True, exist_ok=True)

    accelerator = Accelerator(mixed_precision="no")  # the recipe's precision is the learner's: evaluation is float32
    if accelerator.num_processes > 1:
        raise InputError(f"training runs in one process, this is one of {accelerator.num_processes}")

    with torch.random.fork_rng([torch.cuda.current_device()] if accelerator.device.type == "cuda" else []):
        torch.manual_seed(seed)
        learner = Learner.build(config, recipe, accelerator)
        history: list[Row] = []
        if state is not None:
            learner.restore(state["learner"])
            history = state["history"]

        with TrainingProgress(_title(config, data, seed, defence), recipe.epochs, len(history), progress) as shown:
            for epoch in range(len(history), recipe.epochs):
                started = time.perf_counter()
                batches = training_batches(
                    split, recipe.augmentation, batch_size=recipe.batch_size, seed=seed, epoch=epoch, workers=workers
                )
                losses = [row["loss"] for row in history]
                trained = _one_epoch(learner, batches, recipe, defence, seed, epoch, losses, folder, shown)
                correct = correct_in(learner.network, data.test, recipe.batch_size, learner.device, workers=workers)
                row = {"epoch": epoch + 1, **trained, "test_accuracy": correct / len(data.test)}
                if defence.eps is not None:
                    row["pgd_accuracy"] = pgd_accuracy(learner.network, split, defence.eps, seed, learner.device)
                    row["warning"] = collapse([*history, row])
                row["seconds"] = time.perf_counter() - started
                history.append(row)
                save_state(folder, {"run": record, "history": history, "learner": learner.state()})
                _write_log(folder, history)
                shown.epoch(row)
                if on_epoch is not None:
                    on_epoch(row)

        _write_log(folder, history)
        result = {"finished": True, "epochs_done": len(history), "test_accuracy": history[-1]["test_accuracy"]}
        save_checkpoint(folder, learner.network, {**record, **result})
    return _stored_result(folder)


def _one_epoch(
    learner: Learner,
    batches: Batches,
    recipe: Recipe,
    defence: Defence,
    seed: int,
    epoch: int,
    losses: Sequence[float],
    folder: Path,
    shown: TrainingProgress,
) -> Row:
    """Every batch once: the mean loss, accuracy and speed over the epoch, and its last learning rate."""
    started = time.perf_counter()
    rate, seen, loss_sum = 0.0, 0, 0.0
    correct, resisted = torch.zeros(2, dtype=torch.int64, device=learner.device)
    unread: list[tuple[int, Tensor, Tensor]] = []  # step, its loss (), index of its images (B,)
    learner.model.train()
    for step, batch in enumerate(batches):
        rate = learning_rate(recipe, epoch + (step + 0.5) / len(batches), losses)  # of the middle of the step
        for group in learner.optimizer.param_groups:
            group["lr"] = rate
        images = learner.images(batch.images)  # (B, 3, H, W)
        labels = batch.labels.to(learner.device, non_blocking=True)  # (B,)
        lent = Step(step_generator(seed, epoch, step, learner.device), learner.dtype, recipe.label_smoothing)
        loss, logits, attacked = defence.loss(learner.model, images, labels, lent)
        learner.optimizer.zero_grad()
        learner.scaler.scale(loss).backward()
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()

        seen += len(labels)
        correct += (logits.detach().argmax(1) == labels).sum()
        resisted += 0 if attacked is None else (attacked.detach().argmax(1) == labels).sum()
        unread.append((step, loss.detach(), batch.index))
        if learner.device.type == "cpu" or len(unread) == LOOK_EVERY or step + 1 == len(batches):
            loss_sum += _read_losses(unread, epoch + 1, folder)
            unread.clear()
            shown.step(epoch + (step + 1) / len(batches), loss_sum / seen, seen / (time.perf_counter() - started))
    return {
        "loss": loss_sum / seen,
        "train_accuracy": int(correct) / seen,
        **({} if defence.eps is None else {"adversarial_accuracy": int(resisted) / seen}),
        "images_per_second": seen / (time.perf_counter() - started),
        "learning_rate": rate,
    }


def _read_losses(unread: Sequence[tuple[int, Tensor, Tensor]], epoch: int, folder: Path) -> float:
    """Sum of the losses over their images. Raises TrainingDiverged at the first loss that is not finite."""
    values = torch.stack([loss for _, loss, _ in unread]).tolist()
    for value, (step, _, index) in zip(values, unread, strict=True):
        if not math.isfinite(value):
            diverged = TrainingDiverged(epoch, step, index.tolist(), value)
            about = {"epoch": epoch, "step": step, "loss": str(value), "index": diverged.index}
            replace_json(folder / DIVERGED, about)
            raise diverged
    return math.fsum(value * len(index) for value, (_, _, index) in zip(values, unread, strict=True))


def _checked(config: ModelConfig, data: ImageData, folder: Path, seed: int, defence: Defence) -> ImageSplit:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a folder is wanted")
    if seed < 0:
        raise InputError(f"seed is {seed}; wanted: an integer >= 0")
    if config.num_classes != len(data.classes):
        raise InputError(f"the network has {config.num_classes} classes, {data.name} has {len(data.classes)}")
    if data.train is None or len(data.train) == 0:
        raise InputError(f"{data.name} has no training images")
    if len(data.test) == 0:
        raise InputError(f"{data.name} has no test images")
    defence.check(config, data.classes)
    return data.train


def _write_log(folder: Path, history: Sequence[Row]) -> None:
    """The whole log, so that it never tells of an epoch that the stored state has not got."""
    replace_file(folder / LOG, "".join(json.dumps(row) + "\n" for row in history).encode())


def _stored_result(folder: Path) -> TrainingResult:
    model, config, info = load_checkpoint(folder)
    try:
        history = tuple(json.loads(line) for line in (folder / LOG).read_text().splitlines())
        return TrainingResult(model, config, folder, history, float(info["test_accuracy"]))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds a finished training, but its log or result is damaged ({error})") from error


def _title(config: ModelConfig, data: ImageData, seed: int, defence: Defence) -> str:
    trained = "" if isinstance(defence, Plain) else f", defence {defence.name}"
    images = f"{len(data.train or ()):,} training and {len(data.test):,} test images"
    return f"{config.name}, seed {seed}{trained}, on {data.name}: {images}" + (f". {data.note}" if data.note else "")
