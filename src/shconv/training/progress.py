"""What a person sees of a training: a live bar on a terminal, and one line an epoch there and everywhere else."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, TimeRemainingColumn

from shconv.terminal import Lines, clock, plain_text

EVERY = 0.1  # seconds between two sights of it


class TrainingProgress(Lines):
    """`step` after every look at the losses, of which a person sees ten a second; `epoch` after every epoch;
    show=False: silent."""

    def __init__(self, epochs: int, show: bool = True) -> None:
        super().__init__(show)
        self.epochs = epochs
        now = plain_text("{task.fields[now]}")
        self.live = self.bar(plain_text("{task.description}"), BarColumn(), now, TimeRemainingColumn())
        self.shown_at = -math.inf
        self._task = self.live.add_task("training", total=epochs, now="")

    @contextmanager
    def started(self, title: str, epoch: int, step: int, steps: int) -> Iterator[None]:
        """The title, and where a training is continued: after `epoch` epochs and `step` of the next one's `steps`."""
        places = ([f"epoch {epoch}"] if epoch else []) + ([f"step {step} of {steps} of the next"] if step else [])
        self.say(title + (f", continued after {' and '.join(places)}" if places else ""))
        self.live.update(self._task, completed=epoch + step / steps)
        state = self.live.tasks[0]
        with self.live, self.alive(lambda: state.fields["now"] or f"epoch {epoch + 1}/{self.epochs}: the first steps"):
            yield

    def step(self, moment: float, loss: float, images_per_second: float) -> None:
        """`moment`: epochs done, a fraction inside one."""
        now_at = time.monotonic()
        if now_at - self.shown_at < EVERY:
            return
        self.shown_at = now_at
        epoch = min(int(moment) + 1, self.epochs)
        now = f"epoch {epoch}/{self.epochs}, {moment + 1 - epoch:4.0%} of it  loss {loss:.3f}"
        now += f"  {images_per_second:,.0f} images/s"
        self.live.update(self._task, completed=moment, now=now)

    def epoch(self, row: Mapping[str, Any]) -> None:
        done = row["epoch"]
        left = row["seconds"] * (self.epochs - done)
        self.live.update(self._task, completed=done)
        names = {"adversarial": "adversarial_accuracy", "PGD": "pgd_accuracy"}
        attacked = "".join(f"  {word} {row[name]:6.2%}" for word, name in names.items() if name in row)
        self.say(
            f"epoch {done:>{len(str(self.epochs))}}/{self.epochs}  loss {row['loss']:.4f}"
            f"  train {row['train_accuracy']:6.2%}  test {row['test_accuracy']:6.2%}"
            f"{attacked}  {row['images_per_second']:,.0f} images/s  {clock(left)} left"
        )
        if row.get("warning"):
            self.say(f"warning: {row['warning']}")
