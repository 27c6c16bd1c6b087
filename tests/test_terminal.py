"""What a person reads: text as it is, and a line now and then where no live bar is."""

import io
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rich.table import Table

import shconv
from shconv import terminal
from shconv.experiments.progress import ExperimentProgress
from shconv.terminal import Lines, console, progress_line, without_repeats
from shconv.training.progress import TrainingProgress

ODD = "folder:abc: [red]x[/red] :smile: [/] [bold"


def test_text_that_is_not_ours_comes_out_as_it_went_in(capsys):
    console().print(ODD, soft_wrap=True)
    table = Table(ODD, title=ODD)
    table.add_row(ODD)
    console(width=200).print(table)
    assert capsys.readouterr().out.count(ODD) == 4


def test_a_width_of_zero_is_an_unknown_one(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "0")
    console().print(ODD)
    assert capsys.readouterr().out == f"{ODD}\n"


@pytest.mark.parametrize(
    "lines", [Lines(), ExperimentProgress(), TrainingProgress(1)], ids=lambda each: type(each).__name__
)
def test_a_line_comes_out_as_it_went_in(lines, capsys):
    lines.say(ODD)
    assert capsys.readouterr().err == f"{ODD}\n"


def test_a_live_bar_shows_a_title_as_it_is():
    lines = Lines()
    lines.console = terminal.Console(file=io.StringIO(), force_terminal=True, width=200)
    with lines.bar() as bar:
        bar.add_task(ODD, total=3)
        bar.refresh()
    assert ODD in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", lines.console.file.getvalue())


def test_there_is_one_way_to_make_a_console_and_a_column_of_text():
    root = Path(shconv.__file__).parent
    made = re.compile(r"\b(Console|TextColumn)\(|from_markup|rich\.print")
    others = [path for path in root.rglob("*.py") if path.name != "terminal.py" and made.search(path.read_text())]
    assert others == []


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(terminal, "EVERY", 0.05)


def said(capsys, wanted: int) -> list[str]:
    """The lines, once there are so many: each waits for nothing but the clock."""
    text, ends = "", time.monotonic() + 20
    while text.count("\n") < wanted and time.monotonic() < ends:
        time.sleep(0.01)
        text += capsys.readouterr().err
    return text.splitlines()


def test_what_is_under_way_is_said_again_at_its_pace_where_nothing_else_is_repeated(quick, capsys):
    asked = []
    with without_repeats(), Lines().alive(lambda: asked.append(0) or "waiting"):
        assert said(capsys, 3)[:3] == ["waiting"] * 3
        assert len(asked) < 10  # it was asked without a pause for ever


def test_work_that_says_nothing_is_reported_until_it_ends(quick, capsys):
    with ExperimentProgress().task("a [search] of folder:abc:", 8) as advance:
        advance()
        lines = said(capsys, 2)
    assert len(lines) >= 2
    assert all(line.startswith("a [search] of folder:abc:: 1 of 8, 0:00:00 so far, about 0:00:0") for line in lines)
    time.sleep(0.2)
    assert len(capsys.readouterr().err.splitlines()) <= 1  # one may have been on its way


def test_the_innermost_work_speaks_then_the_one_around_it(quick, capsys):
    with Lines().alive(lambda: "outer"):
        with Lines().alive(lambda: "inner"):
            assert set(said(capsys, 2)) == {"inner"}
        assert "outer" in said(capsys, 2)


def test_training_says_where_it_is_within_an_epoch(quick, capsys):
    progress = TrainingProgress(3)
    with progress.started("a title", 0, 0, 10):
        assert said(capsys, 2)[-1] == "epoch 1/3: the first steps"
        progress.step(1.25, 0.5, 100)
        assert "epoch 2/3,  25% of it  loss 0.500  100 images/s" in said(capsys, 3)


def test_silent_is_silent(quick, capsys):
    with ExperimentProgress(show=False).task("work", 3):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_lines_are_half_a_minute_apart_at_most():
    assert terminal.EVERY <= 30


@pytest.mark.parametrize(
    ("done", "total", "line"),
    [
        (0, None, "x: at work, 0:01:30 so far"),
        (0, 10, "x: 0 of 10, 0:01:30 so far"),
        (5, 10, "x: 5 of 10, 0:01:30 so far, about 0:01:30 left"),
        (1_000, None, "x: 1,000 done, 0:01:30 so far"),
        (1, 10**12, "x: 1 of 1,000,000,000,000, 0:01:30 so far, about 11574074 days, 1:46:40 left"),
    ],
)
def test_a_state_in_words(done, total, line):
    assert progress_line("x", done, total, 90) == line


def test_a_reader_that_goes_away_is_a_broken_pipe_and_no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", open(writer, "w", buffering=1))  # noqa: SIM115 (closing it fails too)
    with pytest.raises(BrokenPipeError):
        console().print("nobody reads this")
    with suppress(BrokenPipeError):
        sys.stdout.close()
