"""One epoch, step by step, and what it has added up so far: the part of a training that can be stopped in its middle.

Every random number of a step is a function of (seed, epoch, step): a step says all that the next one needs."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from shconv.data import Batch
from shconv.data.order import share_of
from shconv.files import replace_json
from shconv.processes import Processes
from shconv.training.defences.base import STREAM, first_word, step_word
from shconv.training.learner import Learner
from shconv.training.mixing import Mix
from shconv.training.passes import Passes
from shconv.training.recipe import Recipe
from shconv.training.schedule import learning_rate

DIVERGED = "diverged.json"
EXPLODED = 1000.0  # times the cross-entropy of guessing, log K: a loss from which no training comes back


class TrainingDiverged(RuntimeError):  # noqa: N818 (says what happened, as KeyboardInterrupt does)
    """The loss was NaN, infinite or exploded at `step` (from 0) of `epoch` (from 1), on the training images `index`."""

    def __init__(self, epoch: int, step: int, index: Sequence[int], loss: float) -> None:
        few = ", ".join(str(i) for i in index[:5]) + (", ..." if len(index) > 5 else "")
        super().__init__(
            f"the loss is {loss:.6g} at epoch {epoch}, step {step}, training images {few} (all of them in {DIVERGED}); "
            "try a lower learning rate, in another folder"
        )
        self.epoch, self.step, self.index, self.loss = epoch, step, list(index), loss


@dataclass
class Sums:
    """Over the steps of an epoch so far and all processes. `state` and back: the position in the epoch."""

    correct: Tensor  # int64 (2,), of this process: right on what the network was trained on, and on attacked images
    steps: int = 0
    images: int = 0
    loss: float = 0.0  # summed over images
    rate: float = 0.0  # learning rate of the last step
    seconds: float = 0.0  # of earlier runs of this epoch
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def none(cls, device: torch.device) -> Self:
        return cls(torch.zeros(2, dtype=torch.int64, device=device))

    @property
    def elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def state(self, processes: Processes) -> dict[str, Any]:
        """As plain values; the first process's count for all."""
        correct = [int(n) for n in processes.sum(self.correct.tolist())]
        numbers = {name: getattr(self, name) for name in ("steps", "images", "loss", "rate")}
        return {"correct": correct, **numbers, "seconds": self.elapsed}

    @classmethod
    def restored(cls, state: dict[str, Any], processes: Processes) -> Self:
        own = state["correct"] if processes.is_first else [0, 0]
        return cls(**{**state, "correct": torch.tensor(own, dtype=torch.int64, device=processes.device)})

    def row(self, processes: Processes, defended: bool) -> dict[str, Any]:
        """What the log says of the epoch's training."""
        correct, resisted = processes.sum(self.correct.tolist())
        return {
            "loss": self.loss / self.images,
            "train_accuracy": correct / self.images,
            **({"adversarial_accuracy": resisted / self.images} if defended else {}),
            "images_per_second": self.images / self.elapsed,
            "learning_rate": self.rate,
        }


@dataclass(frozen=True)
class Epoch:
    """What stays the same through an epoch."""

    number: int  # from 0
    steps: int  # of the whole epoch
    batch_size: int  # over all processes
    losses: Sequence[float]  # of the epochs before
    learner: Learner
    processes: Processes
    recipe: Recipe
    passes: Passes
    accumulation: int
    seed: int
    most: float  # a mean loss above it has exploded
    mix: Mix | None = None

    def step(self, batch: Batch, sums: Sums) -> "Unread":
        """One step of SGD on this process's share of a batch, in micro-batches; sums grow but for the loss."""
        learner, n = self.learner, self.batch_size
        first = share_of(n, self.processes.rank, self.processes.count).start
        _seed_step(self.seed, self.number, sums.steps, self.processes.rank, learner.device)
        word = step_word(self.seed, self.number, sums.steps)
        losses = []
        pixels, targets = batch.images, batch.labels
        if self.mix is not None:  # the whole share, so that the number of micro-batches changes nothing
            pixels, targets = self.mix(learner.images(pixels), targets.to(learner.device))
        for k in range(self.accumulation):
            own = share_of(len(batch.labels), k, self.accumulation)
            count = own.stop - own.start
            # Means over unequal shares to that over the batch; processes are averaged, so times their count.
            share = count / n * self.processes.count
            with learner.micro_batch(last=k + 1 == self.accumulation):
                loss, right = self.passes(pixels[own], targets[own], word, first + own.start, n, share)
            sums.correct += right
            losses.append((loss, count))
        sums.rate = learning_rate(self.recipe, self.number + (sums.steps + 0.5) / self.steps, self.losses)  # its middle
        learner.step(sums.rate)
        sums.steps += 1
        sums.images += n
        return Unread(sums.steps - 1, losses, batch.index)

    def read(self, unread: Sequence["Unread"], sums: Sums, told: Sequence[float], folder: Path) -> list[float]:
        """Adds the losses of some steps to the sums; and `told`, summed over the processes on the same way.

        Raises TrainingDiverged at the first loss that is not finite or has exploded.
        """
        values = iter(torch.stack([loss for each in unread for loss, _ in each.losses]).tolist() if unread else [])
        own = [sum(next(values) * n for _, n in each.losses) for each in unread]  # summed over this process's images
        totals = self.processes.sum([*own, *told])
        for each, mine, total in zip(unread, own, totals, strict=False):
            if not total <= self.most * self.batch_size:  # NaN too
                self._diverged(each, mine, total / self.batch_size, folder)
            sums.loss += total
        return totals[len(unread) :]

    def _diverged(self, step: "Unread", mine: float, loss: float, folder: Path) -> None:
        told = self.processes.gather((mine / len(step.index), step.index.tolist()))
        guilty = [rank for rank, (own, _) in enumerate(told) if not own <= self.most] or list(range(len(told)))
        diverged = TrainingDiverged(self.number + 1, step.number, [i for rank in guilty for i in told[rank][1]], loss)
        about = {"epoch": diverged.epoch, "step": diverged.step, "loss": str(loss), "processes": guilty}
        self.processes.on_first(lambda: replace_json(folder / DIVERGED, {**about, "index": diverged.index}))
        raise diverged


@dataclass(frozen=True)
class Unread:
    """A step whose loss nobody has waited for yet."""

    number: int
    losses: Sequence[tuple[Tensor, int]]  # of each micro-batch: the mean (), over so many images
    index: Tensor  # (B,) of this process's images


def exploded(classes: int) -> float:
    """The mean loss above which a training stops."""
    return EXPLODED * max(1.0, math.log(classes))


def _seed_step(seed: int, epoch: int, step: int, rank: int, device: torch.device) -> None:
    """torch's own random numbers, such as dropout's, start anew in each step: no state of them has to be stored."""
    word = first_word(seed, STREAM + 2, epoch, step, rank) >> 1
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(word)
        return
    # torch.manual_seed also seeds every other device, and formats a stack trace for those that are not at work yet.
    torch.default_generator.manual_seed(word)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(word)
