"""What a person sees of a training: a live bar on a terminal, and one line an epoch there and everywhere else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """`step` after every look at the losses, `epoch` after every epoch; show=False: silent."""

    def __init__(self, epochs: int, show: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not show, highlight=False)
        self.epochs = epochs
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[now]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("training", total=epochs, now="")

    @contextmanager
    def started(self, title: str, epoch: int, step: int, steps: int) -> Iterator[None]:
        """The title, and where a training is continued: after `epoch` epochs and `step` of the next one's `steps`."""
        places = ([f"epoch {epoch}"] if epoch else []) + ([f"step {step} of {steps} of the next"] if step else [])
        self.say(title + (f", continued after {' and '.join(places)}" if places else ""))
        self.bar.update(self.task, completed=epoch + step / steps)
        with self.bar:
            yield

    def step(self, moment: float, loss: float, images_per_second: float) -> None:
        """`moment`: epochs done, a fraction inside one."""
        epoch = min(int(moment) + 1, self.epochs)
        now = f"epoch {epoch}/{self.epochs}  loss {loss:.3f}  {images_per_second:,.0f} images/s"
        self.bar.update(self.task, completed=moment, now=now)

    def epoch(self, row: Mapping[str, Any]) -> None:
        done = row["epoch"]
        left = row["seconds"] * (self.epochs - done)
        self.bar.update(self.task, completed=done)
        names = {"adversarial": "adversarial_accuracy", "PGD": "pgd_accuracy"}
        attacked = "".join(f"  {word} {row[name]:6.2%}" for word, name in names.items() if name in row)
        self.say(
            f"epoch {done:>{len(str(self.epochs))}}/{self.epochs}  loss {row['loss']:.4f}"
            f"  train {row['train_accuracy']:6.2%}  test {row['test_accuracy']:6.2%}"
            f"{attacked}  {row['images_per_second']:,.0f} images/s  {timedelta(seconds=round(left))} left"
        )
        if row.get("warning"):
            self.say(f"warning: {row['warning']}")

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)
