"""What a person sees of a training: a live bar on a terminal, and one line an epoch there and everywhere else."""

import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Context manager. `step` after every look at the losses, `epoch` after every epoch; show=False: silent."""

    def __init__(self, title: str, epochs: int, done: int, show: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not show, highlight=False)
        self.epochs, self.first = epochs, done
        self.started = time.perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[now]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("training", total=epochs, completed=done, now="")
        self._print(title + (f", continued after epoch {done}" if done else ""))

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, moment: float, loss: float, images_per_second: float) -> None:
        """`moment`: epochs done, a fraction inside one."""
        now = f"epoch {int(moment) + 1}/{self.epochs}  loss {loss:.3f}  {images_per_second:,.0f} images/s"
        self.bar.update(self.task, completed=moment, now=now)

    def epoch(self, row: Mapping[str, Any]) -> None:
        done = row["epoch"]
        left = (time.perf_counter() - self.started) / (done - self.first) * (self.epochs - done)
        self.bar.update(self.task, completed=done)
        names = {"adversarial": "adversarial_accuracy", "PGD": "pgd_accuracy"}
        attacked = "".join(f"  {word} {row[name]:6.2%}" for word, name in names.items() if name in row)
        self._print(
            f"epoch {done:>{len(str(self.epochs))}}/{self.epochs}  loss {row['loss']:.4f}"
            f"  train {row['train_accuracy']:6.2%}  test {row['test_accuracy']:6.2%}"
            f"{attacked}  {row['images_per_second']:,.0f} images/s  {timedelta(seconds=round(left))} left"
        )
        if row.get("warning"):
            self._print(f"warning: {row['warning']}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)
