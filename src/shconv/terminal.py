"""What a person reads: consoles that print text as it is (rich takes [brackets] for markup, :abc: for an emoji), and,
where there is no terminal for a live bar, a line at least every half minute."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import ProgressColumn as Column

EVERY = 30.0  # seconds


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Of `| head`, say: rich would end the process with exit code 1, as if something had failed.
        It calls this where it has caught the error."""
        raise


def console(*, stderr: bool = False, quiet: bool = False, width: int | None = None) -> Console:
    """The only way in which the package makes one."""
    if width is None and os.environ.get("COLUMNS") == "0":  # unknown; rich would print nothing
        width = shutil.get_terminal_size().columns
    return _Console(stderr=stderr, quiet=quiet, width=width, markup=False, emoji=False, highlight=False)


def plain_text(template: str) -> TextColumn:
    """A column of a live bar that shows text as it is."""
    return TextColumn(template, markup=False)


class Lines:
    """Lines and live bars on standard error; show=False is silent."""

    def __init__(self, show: bool = True) -> None:
        self.console = console(stderr=True, quiet=not show)

    def say(self, line: str) -> None:
        if _said is not None:
            if line in _said:
                return
            _said.add(line)
        self.repeat(line)

    def repeat(self, line: str) -> None:
        """Say it, also where it was said before."""
        self.console.print(line, soft_wrap=True)
        _pulse.spoken = time.monotonic()

    def bar(self, *columns: Column) -> Progress:
        """A live bar on a terminal; elsewhere it only counts."""
        if not columns:
            clock = TimeElapsedColumn(), TimeRemainingColumn()
            columns = plain_text("{task.description}"), BarColumn(), MofNCompleteColumn(), *clock
        return Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)

    @contextmanager
    def alive(self, line: Callable[[], str]) -> Iterator[None]:
        """While this lasts, `line` is said wherever nothing else was for half a minute, unless there is a live bar."""
        if self.console.is_terminal or self.console.quiet:
            yield
            return
        _pulse.begin(self, line)
        try:
            yield
        finally:
            _pulse.end(self, line)

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


@contextmanager
def without_repeats() -> Iterator[None]:
    """While this lasts, a line that was said is not said again: what holds for each of many trainings, say."""
    global _said
    before, _said = _said, set() if _said is None else _said
    try:
        yield
    finally:
        _said = before


def progress_line(title: str, done: float, total: float | None, seconds: float) -> str:
    """The state of some work in words."""
    spent = f"{clock(seconds)} so far"
    if not total:
        return f"{title}: {done:,.0f} done, {spent}" if done else f"{title}: at work, {spent}"
    left = f", about {clock(seconds / done * (total - done))} left" if done else ""
    return f"{title}: {done:,.0f} of {total:,.0f}, {spent}{left}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, 1:02:03, with days before them; what takes longer than history is cut to that."""
    return str(timedelta(seconds=round(min(seconds, 1e12))))


class _Pulse:
    """One thread, while there is work under way, that says the innermost work's line after each silence."""

    def __init__(self) -> None:
        self.spoken = time.monotonic()
        self._under_way: list[tuple[Lines, Callable[[], str]]] = []
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def begin(self, lines: Lines, line: Callable[[], str]) -> None:
        with self._lock:
            self._under_way.append((lines, line))
            if len(self._under_way) == 1:
                self.spoken, self._ended = time.monotonic(), threading.Event()
                threading.Thread(target=self._beat, args=(self._ended,), daemon=True).start()

    def end(self, lines: Lines, line: Callable[[], str]) -> None:
        with self._lock:
            self._under_way.remove((lines, line))
            if not self._under_way:
                self._ended.set()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(max(0.0, self.spoken + EVERY - time.monotonic())):
            under_way = self._under_way[-1:]
            if under_way and time.monotonic() >= self.spoken + EVERY:
                lines, line = under_way[0]
                lines.repeat(line())


_pulse = _Pulse()
_said: set[str] | None = None  # without_repeats
