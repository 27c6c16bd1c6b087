"""What a person sees of the experiments: a live bar for the attack under way, and a line for every finished row."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ExperimentProgress:
    """On standard error, so that tables on standard output can be piped; show=False is silent."""

    def __init__(self, show: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not show, highlight=False)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Yield what to call after each of `total` parts."""
        with self._bar() as bar:
            task = bar.add_task(title, total=total)
            yield lambda: bar.advance(task)

    @contextmanager
    def count(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Yield what to call with the number of parts done and the number of all."""
        with self._bar() as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _bar(self) -> Progress:
        clock = TimeElapsedColumn(), TimeRemainingColumn()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *clock
        return Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)

    def row(self, row: dict[str, Any]) -> None:
        accuracy = "no images" if row["accuracy"] is None else f"accuracy {row['accuracy']:6.1%}"
        rcd = "" if row["rcd_mean"] is None else f"  RCD {row['rcd_mean']:6.2f}"
        of = f" of the paper's {row['wanted']:,}" if row["wanted"] and row["wanted"] != row["n"] else ""
        self.say(f"{row['id']}: {accuracy}{rcd}  {row['n']:,} images{of}  {row['seconds']:.1f} s")

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)
