"""What a person sees of the experiments: a live bar, or a line now and then, and a line for every finished row."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shconv.terminal import Lines, progress_line


class ExperimentProgress(Lines):
    """On standard error, so that tables on standard output can be piped; show=False is silent."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Yield what to call after each of `total` parts."""
        with self.count(title) as count:
            done = 0
            count(done, total)

            def advance() -> None:
                nonlocal done
                done += 1
                count(done, total)

            yield advance

    @contextmanager
    def count(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Yield what to call with the number of parts done and the number of all."""
        began = time.monotonic()
        with self.bar() as bar:
            task = bar.add_task(title, total=None)
            state = bar.tasks[0]
            with self.alive(lambda: progress_line(title, state.completed, state.total, time.monotonic() - began)):
                yield lambda done, total: bar.update(task, completed=done, total=total)

    def row(self, row: dict[str, Any]) -> None:
        accuracy = "no images" if row["accuracy"] is None else f"accuracy {row['accuracy']:6.1%}"
        rcd = "" if row["rcd_mean"] is None else f"  RCD {row['rcd_mean']:6.2f}"
        of = f" of the paper's {row['wanted']:,}" if row["wanted"] and row["wanted"] != row["n"] else ""
        self.say(f"{row['id']}: {accuracy}{rcd}  {row['n']:,} images{of}  {row['seconds']:.1f} s")
