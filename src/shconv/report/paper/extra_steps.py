"""The text's claim on Table 3: SHC networks need "about 60 more steps" of 150 for their twin's RCD.
Computed from the rows, and in the same way from the paper's own table."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from shconv.report import published as paper
from shconv.report.folder.run import Run
from shconv.report.numbers import signed
from shconv.report.output.cells import Grid, GridColumn
from shconv.report.paper.results import rounds, search_rows
from shconv.report.published import network_name

PAPERS_STEPS = (
    " The paper's text says about 60 of 150; its column is interpolated in the same way from its own Table 3, a dash "
    "where 150 steps are not enough."
)


class ExtraSteps(NamedTuple):
    """At the twin's ``step`` of ``rounds``: how many more the SHC network needs, None where it never gets there."""

    fifth: int
    seed: int
    step: int
    rounds: int
    more: float | None


def measured_extra_steps(run: Run, vanilla: str, shc: str) -> list[ExtraSteps]:
    """One for each column of Table 3 and seed that both networks of the pair have."""
    theirs, ours = search_rows(run, vanilla, "locsearch"), search_rows(run, shc, "locsearch")
    found = []
    for fifth, rows in theirs.items():
        for seed, row in rows.items():
            points = [rows[seed] for rows in ours.values() if seed in rows]
            curve = [(point.step or 0, point.rcd_mean) for point in points if point.rcd_mean is not None]
            if curve and row.step is not None and row.rcd_mean is not None:
                needed = steps_to_reach(row.rcd_mean, curve)
                more = None if needed is None else needed - row.step
                found.append(ExtraSteps(fifth, seed, row.step, rounds(row) or max(step for step, _ in curve), more))
    return found


def published_extra_steps(vanilla: str) -> list[float | None]:
    """The same from the paper's own Table 3, one for each of its five columns; None where 150 steps are not enough."""
    curve = [(s, c.rcd or 0.0) for s, c in zip(paper.STEPS, paper.TABLE3[f"{vanilla}_shc"], strict=True)]
    columns = zip(paper.STEPS, paper.TABLE3[vanilla], strict=True)
    needed = [(step, steps_to_reach(cell.rcd or 0.0, curve)) for step, cell in columns]
    return [None if reached is None else reached - step for step, reached in needed]


def steps_to_reach(rcd: float, curve: Sequence[tuple[float, float]]) -> float | None:
    """First step at which the line through (0, 0) and the points (step, RCD) is at ``rcd``; None where it never is."""
    if rcd <= 0:
        return 0.0
    before, low = 0.0, 0.0
    for step, value in sorted(curve):
        if rcd <= value:
            return before + (step - before) * (rcd - low) / (value - low)
        before, low = step, value
    return None


class _Column(NamedTuple):
    """A column of Table 3 for a pair; without measured steps it was not run."""

    pair: str
    percent_of_rounds: int
    paper_more_steps: float | None
    steps: ExtraSteps | None

    @property
    def status(self) -> str:
        return "not run" if self.steps is None else "not reached" if self.steps.more is None else "reached"

    @property
    def more_share(self) -> float | None:
        return None if self.steps is None or self.steps.more is None else self.steps.more / self.steps.rounds

    def of(self, key: str) -> Any:
        return getattr(self.steps, key, None)


def extra_steps(run: Run) -> Grid:
    """All pairs of the run that Table 3 is about, "not run" included."""
    papers = GridColumn("paper_more_steps", "Paper's, of 150", lambda value: signed(value, 1))
    return Grid.over(
        [column for vanilla, _ in run.pairs for column in _columns(run, vanilla)],
        name="table3_steps",
        title="Table 3, continued. How many more steps the SHC network needs",
        caption="Steps after which the SHC network's mean RCD equals its vanilla twin's, minus the twin's steps. "
        "Interpolated linearly between the columns of Table 3, from RCD 0 at step 0."
        + (PAPERS_STEPS if run.data.is_imagenet else ""),
        columns=(
            GridColumn("pair", "Pair"),
            GridColumn("seed", "Seed", of=lambda each: each.of("seed")),
            GridColumn("step", "Twin's step", of=lambda each: each.of("step")),
            GridColumn("rounds", "of", of=lambda each: each.of("rounds")),
            GridColumn("percent_of_rounds", "%"),
            GridColumn("status", "Twin's RCD"),
            GridColumn("more_steps", "More steps", lambda value: signed(value, 1), lambda each: each.of("more")),
            GridColumn("more_share", "% of the rounds", lambda value: signed(100 * value, 1)),
            *([papers] if run.data.is_imagenet else []),
        ),
    )


def _columns(run: Run, vanilla: str) -> Iterator[_Column]:
    published = published_extra_steps(vanilla) if vanilla in paper.TABLE3 else [None] * 5
    ours = measured_extra_steps(run, vanilla, f"{vanilla}_shc")
    if search_rows(run, vanilla, "locsearch"):
        for fifth in range(1, 6):
            here: list[ExtraSteps | None] = [each for each in ours if each.fifth == fifth]
            for each in here or [None]:
                yield _Column(network_name(vanilla), 20 * fifth, published[fifth - 1], each)
