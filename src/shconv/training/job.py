"""One training under way, read from top to bottom: epochs of steps, looks at their losses, stored states, checkpoints.

Between two looks the device computes on its own; at a look all processes agree on going on, storing or stopping."""

import json
import time
from collections.abc import Callable, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shconv.data import ImageData, ImageSplit, training_batches
from shconv.data.worker_processes import StoppedWaiting
from shconv.files import check_held, replace_file
from shconv.processes import Processes
from shconv.training.ahead import compiled_ahead
from shconv.training.checkpoint import save_checkpoint
from shconv.training.defences import Defence
from shconv.training.defences.overfitting import collapse, pgd_accuracy
from shconv.training.engine import Engine
from shconv.training.epoch import Epoch, Sums, Unread, exploded
from shconv.training.evaluate import correct_in
from shconv.training.learner import Learner
from shconv.training.mixing import mixing
from shconv.training.passes import Passes, reason_against_capture
from shconv.training.progress import TrainingProgress
from shconv.training.recipe import Recipe
from shconv.training.signals import StopRequest, stopped_by
from shconv.training.state import save_state
from shconv.training.synchronized import share_buffers
from shconv.training.tracking import EVERY, Trackers

LOG, BEST = "log.jsonl", "best"
GRACE = 5.0  # seconds to wait on for a batch when asked to stop, as the others, asked at once, come to the next look
STOPPED = "stopped, the state is stored: the same command continues from here"
LOOK_EVERY = 20  # steps between two looks at the losses where the device computes on its own: each look waits for it

Row = dict[str, Any]  # one epoch, one line of log.jsonl


@dataclass
class Job:
    """`history` holds the rows of the finished epochs; everything else stays."""

    folder: Path
    record: dict[str, Any]
    data: ImageData
    split: ImageSplit  # the training images
    recipe: Recipe
    defence: Defence
    engine: Engine
    seed: int
    workers: int
    learner: Learner
    processes: Processes
    request: StopRequest
    shown: TrainingProgress
    history: list[Row]
    on_epoch: Callable[[Row], None] | None = None
    stored_at: float = field(default_factory=time.perf_counter)
    trackers: Trackers = field(init=False)
    reason: str = field(init=False)  # why steps do not run from a CUDA graph, or ""
    passes: Passes = field(init=False)

    def __post_init__(self) -> None:
        say, smoothing = self.shown.say, self.recipe.label_smoothing
        self.trackers = Trackers(self.folder, say)
        self.reason = reason_against_capture(self.learner, self.defence, self.engine, self.processes.count)
        self.passes = Passes(self.learner, self.defence, smoothing, self.reason, say)

    def run(self, sums: Sums) -> None:
        """From the position in the epoch under way to the end of the last one."""
        compiled = compiled_ahead(self.learner, self.split[0][0])
        for number in range(len(self.history), self.recipe.epochs):
            started = time.perf_counter() - sums.elapsed
            self._train(number, sums)
            row = {"epoch": number + 1, **sums.row(self.processes, self.defence.eps is not None)}
            self._settle()
            row["test_accuracy"] = self._test(number, sums) / len(self.data.test)
            if self.defence.eps is not None and self.defence.watched:
                network, device = self.learner.outcome, self.learner.device
                row["pgd_accuracy"] = pgd_accuracy(network, self.split, self.defence.eps, self.seed, device)
                row["warning"] = collapse([*self.history, row])
            row["seconds"] = time.perf_counter() - started
            self._keep(row)
            self.history.append(row)
            sums = Sums.none(self.learner.device)
            self._store(number + 1, sums)
            self.processes.on_first(self.write_log)
            self.trackers.epochs([row], self.steps)
            self.shown.epoch(row)
            if self.on_epoch is not None:
                self.on_epoch(row)
        compiled()

    def _train(self, number: int, sums: Sums) -> None:
        """The epoch's batches from where the sums are; raises what asked to stop, the state stored."""
        learner, recipe, processes = self.learner, self.recipe, self.processes
        batches = training_batches(
            self.split,
            recipe.augmentation,
            batch_size=recipe.batch_size,
            seed=self.seed,
            epoch=number,
            workers=self.workers,
            skip=sums.steps,
            share=(processes.rank, processes.count),
            pinned=learner.device.type == "cuda",
            stop=self._waited_enough,
        )
        epoch = Epoch(
            number,
            self.steps,
            self.batch_size,
            [row["loss"] for row in self.history],
            learner,
            processes,
            recipe,
            self.passes,
            self.engine.accumulation,
            self.seed,
            exploded(len(self.data.classes)),
            mixing(recipe, len(self.data.classes)),
        )
        unread: list[Unread] = []
        learner.model.train()
        with closing(iter(batches)) as stream:  # its workers end here, not when the last reference happens to go
            while sums.steps < epoch.steps:
                try:
                    batch = next(stream)
                except Exception as error:
                    if processes.count == 1:
                        epoch.read(unread, sums, [], self.folder)
                    self._store_alone(number, sums, error)
                    raise
                unread.append(epoch.step(batch, sums))
                if self._is_look(sums.steps, epoch.steps):
                    self._look(epoch, sums, unread)
                    unread.clear()

    def _settle(self) -> None:
        """What the defence measures on the epoch's network."""
        network = self.learner.outcome
        share_buffers(network, self.processes)
        self.defence.settle(network.eval(), self.split, self.seed)

    def _is_look(self, steps: int, last: int) -> bool:
        every = 1 if self.learner.device.type == "cpu" else LOOK_EVERY
        return steps % every == 0 or steps == last or self._due_by_steps(steps)

    def _look(self, epoch: Epoch, sums: Sums, unread: Sequence[Unread]) -> None:
        """Wait for the losses; then store and stop where one of the processes was asked to, or it is time."""
        due = self.processes.is_first and self._due_by_time()
        told = epoch.read(unread, sums, [float(due), *self.request.flags()], self.folder)
        speed = sums.images / sums.elapsed
        self.shown.step(epoch.number + sums.steps / epoch.steps, sums.loss / sums.images, speed)
        if sums.steps % EVERY == 0 and sums.steps < epoch.steps:  # the last step's are the epoch's
            now = {"loss": sums.loss / sums.images, "learning_rate": sums.rate, "images_per_second": speed}
            step = epoch.number * epoch.steps + sums.steps
            self.trackers.log({f"step/{name}": value for name, value in now.items()}, step)
        if any(told) or self._due_by_steps(sums.steps):
            self._store(epoch.number, sums)
        self._stop_if_asked(told[1:])

    def _test(self, number: int, sums: Sums) -> int:
        """How many test images are right. Asked to stop before that is known, stores the end of the epoch's steps."""
        learner, processes = self.learner, self.processes
        told: list[float] = []

        def stop() -> bool:
            told[:] = processes.sum(self.request.flags())
            return any(told)

        try:
            correct = correct_in(
                learner.outcome,
                self.data.test,
                self.recipe.batch_size,
                learner.device,
                workers=self.workers,
                share=(processes.rank, processes.count),
                stop=stop,
                stop_waiting=self._waited_enough,
            )
        except Exception as error:
            self._store_alone(number, sums, error)
            raise
        if correct is None:
            self._store(number, sums)
            self._stop_if_asked(told)
        return int(processes.sum([correct or 0])[0])

    def _stop_if_asked(self, told: Sequence[float], said: str = STOPPED) -> None:
        stopped = stopped_by(told)
        if stopped is not None:
            self.shown.say(said)
            raise stopped

    def _due_by_time(self) -> bool:
        minutes = self.engine.save_minutes
        return minutes is not None and time.perf_counter() - self.stored_at >= 60 * minutes

    def _due_by_steps(self, steps: int) -> bool:
        return self.engine.save_steps is not None and steps % self.engine.save_steps == 0

    def _store(self, epoch: int, sums: Sums) -> None:
        """The state at this position (epochs from 0)."""
        position = {"epoch": epoch, **sums.state(self.processes)}

        def store() -> None:
            check_held(self.folder)
            learner = self.learner.state()
            state = {"run": self.record, "engine": self.carried_out, "history": self.history}
            save_state(self.folder, {**state, "position": position, "learner": learner})

        self.processes.on_first(store)
        self.stored_at = time.perf_counter()

    def _store_alone(self, epoch: int, sums: Sums, error: Exception) -> None:
        """Where an image could not be read, a worker died, or a batch did not come before a stop: between two steps, so
        everything is whole. Among several processes the others know nothing of it; they go back to the last state."""
        if self.processes.count == 1:
            self._store(epoch, sums)
        if isinstance(error, StoppedWaiting):
            where = "here" if self.processes.count == 1 else "the last stored state"
            said = f"stopped while waiting for images: the same command continues from {where}"
            self._stop_if_asked(self.request.flags(), said)

    def _waited_enough(self) -> bool:
        """Whether to stop rather than wait on for a batch."""
        return self.request.waited(GRACE if self.processes.count > 1 else 0)

    def _keep(self, row: Row) -> None:
        """Checkpoints that stay: the best so far, and one in so many epochs; before the state that says so."""
        best = row["test_accuracy"] > max((each["test_accuracy"] for each in self.history), default=-1.0)
        every = self.engine.keep_every is not None and row["epoch"] % self.engine.keep_every == 0
        about = {"finished": False, "epochs_done": row["epoch"], "test_accuracy": row["test_accuracy"]}
        names = [BEST] * best + [f"epoch{row['epoch']}"] * every

        def keep() -> None:
            check_held(self.folder)
            for name in names:
                save_checkpoint(self.folder / name, self.learner.outcome, {**self.record, **about})

        self.processes.on_first(keep)

    def write_log(self) -> None:
        """The whole log, so that it never tells of an epoch that the stored state has not got."""
        replace_file(self.folder / LOG, "".join(json.dumps(row) + "\n" for row in self.history).encode())

    @property
    def batch_size(self) -> int:
        """Over all processes."""
        return min(self.recipe.batch_size, len(self.split))

    @property
    def carried_out(self) -> dict[str, Any]:
        return self.engine.record(self.batch_size, self.processes)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return epoch_steps(self.split, self.recipe)


def epoch_steps(split: Sized, recipe: Recipe) -> int:
    return max(1, len(split) // recipe.batch_size)
