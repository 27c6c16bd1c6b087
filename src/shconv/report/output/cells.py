"""What a table is made of: a score for each seed, and the cell that sums them up beside the paper's number.
Everything is kept unrounded; only `Cell.said` and `Grid.shown` make text of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from shconv.paired import hull
from shconv.report.folder.rows import Outcomes, Row
from shconv.report.folder.run import Run
from shconv.report.numbers import (
    DASH,
    NO_IMAGES,
    NOT_RUN,
    between,
    count,
    deviation,
    fixed,
    mean,
    percent,
    said,
    signed,
    span,
)
from shconv.report.published import Published


@dataclass(frozen=True)
class Score:
    """One seed's result: accuracy and its interval in 0..1, RCD where there is one, and every image's outcome."""

    seed: int
    n: int
    accuracy: float
    interval: tuple[float, float]
    wanted: int | None = None
    rcd_mean: float | None = None
    rcd_median: float | None = None
    rcd_floored: int | None = None
    attacks: int | None = None  # a worst case says over how many it is,
    attacks_wanted: int | None = None  # how many it should be over,
    table_mean: float | None = None  # and the mean accuracy under them, of both routes
    outcomes: Outcomes | None = None

    @classmethod
    def over(cls, outcomes: Outcomes, seed: int = 0, **more: Any) -> "Score":
        return cls(seed, len(outcomes.index), outcomes.accuracy, outcomes.interval, **more, outcomes=outcomes)


@dataclass(frozen=True)
class Cell:
    """The paper's number, where it has one, and one score a seed that has images."""

    paper: Published | None = None
    scores: tuple[Score, ...] = ()
    none: str = NOT_RUN  # what it says where there is no score
    empty: tuple[int, ...] = ()  # seeds that had no image

    @classmethod
    def of(cls, run: Run, rows: Mapping[int, Row], paper: Published | None = None) -> "Cell":
        """Of rows by seed."""
        scores = tuple(
            Score(
                *(row.seed, row.n, row.accuracy, row.interval, row.wanted),
                *(row.rcd_mean, row.rcd_median, row.rcd_floored),
                outcomes=run.outcomes.get(row.id),
            )
            for row in rows.values()
            if row.accuracy is not None and row.interval is not None
        )
        empty = tuple(row.seed for row in rows.values() if not row.n)
        return cls(paper, scores, NO_IMAGES if rows else NOT_RUN, empty)

    @property
    def accuracy(self) -> float | None:
        """Mean over the seeds, in 0..1."""
        return mean(score.accuracy for score in self.scores)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of one seed; of several, from the lowest to the highest end of theirs."""
        return hull([score.interval for score in self.scores]) if self.scores else None

    @property
    def rcd(self) -> float | None:
        return mean(score.rcd_mean for score in self.scores)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's accuracy, in percentage points."""
        return None if self.paper is None or self.accuracy is None else 100 * self.accuracy - self.paper.accuracy

    @property
    def rcd_difference(self) -> float | None:
        return None if self.paper is None or self.paper.rcd is None or self.rcd is None else self.rcd - self.paper.rcd

    @cached_property
    def said(self) -> Mapping[str, tuple[str, str]]:
        """What it says of the accuracy and of RCD, by line of the table; "" where there is nothing to say."""
        paper, ours = self.paper, self.scores
        floored = [score.rcd_floored for score in ours if score.rcd_floored is not None]
        return {
            "paper": (f"{paper.accuracy:.2f}" if paper else "", said(paper.rcd if paper else None, fixed)),
            "ours": (said(self.accuracy, percent) or self.none, said(self.rcd, fixed)),
            "difference": (said(self.difference, signed), said(self.rcd_difference, signed)),
            "± seeds": (
                said(deviation(score.accuracy for score in ours), lambda sd: f"±{percent(sd)}"),
                said(deviation(score.rcd_mean for score in ours), lambda sd: f"±{sd:.2f}"),
            ),
            "95 %": (said(self.interval, span), ""),
            "RCD median": ("", said(mean(score.rcd_median for score in ours), fixed)),
            "floored": ("", count(sum(floored)) if floored else ""),
            "images": (self._images() if ours else "", ""),
            "attacks": (self._attacks(), ""),
        }

    def text(self, *lines: str) -> str:
        """What these lines say together, as accuracy / RCD; a dash where it is nothing."""
        parts = ("".join(self.said[line][place] for line in lines) for place in (0, 1))
        return " / ".join(filter(None, parts)) or DASH

    def _images(self) -> str:
        """How many ours is over, and how many the paper's is; of three seeds as 3 × 200 of 5,000."""
        wanted = next((score.wanted for score in self.scores if score.wanted is not None), None)
        text = between([score.n for score in self.scores]) + said(wanted, lambda n: f" of {count(n)}")
        return f"{len(self.scores)} × {text}" if len(self.scores) > 1 else text

    def _attacks(self) -> str:
        """Over how many a worst case is; no other cell says it."""
        attacks = [score.attacks for score in self.scores if score.attacks is not None]
        wanted = [score.attacks_wanted for score in self.scores if score.attacks_wanted is not None]
        if not attacks:
            return ""
        return between(attacks) if attacks == wanted else f"{between(attacks)} of {between(wanted)}"


@dataclass(frozen=True)
class Column:
    group: str  # "FGSM"; columns of one group stand side by side
    label: str  # "least-likely"; "" where the group says it all
    published: str = ""  # what the paper calls it, where that differs

    @property
    def title(self) -> str:
        return ", ".join(part for part in (self.group, self.label) if part)


@dataclass(frozen=True)
class Line:
    """One network, under one variant of the experiment where there are several."""

    model: str
    name: str
    variant: str
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        return ", ".join(part for part in (self.name, self.variant) if part)

    @property
    def shared_images(self) -> str:
        """The image count that all cells share, to be said once; empty where they differ."""
        counts = {cell.text("images") for cell in self.cells if cell.scores}
        return f"{counts.pop()} images" if len(counts) == 1 else ""


@dataclass(frozen=True)
class Table:
    """The paper's layout: a column for each attack, a line for each network."""

    name: str  # also its file's name
    title: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    comparable: bool = True  # are the paper's numbers about the same data? Else only the CSV file has them

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Each group with its number of columns."""
        return [(group, len(list(same))) for group, same in groupby(self.columns, key=lambda column: column.group)]


@dataclass(frozen=True)
class GridColumn:
    key: str  # in the CSV file
    title: str
    show: Callable[[Any], str] = str
    of: Callable[[Any], Any] | None = None  # its value for an item of `Grid.over`; None: the item's, of that key


@dataclass(frozen=True)
class Grid:
    """A plain table of records; None is shown as a dash."""

    name: str
    title: str
    caption: str
    columns: tuple[GridColumn, ...]
    records: tuple[Mapping[str, Any], ...]  # by the columns' keys
    notes: tuple[str, ...] = ()

    @classmethod
    def over(cls, items: Iterable[Any], columns: tuple[GridColumn, ...], **about: Any) -> "Grid":
        """A record for each item."""

        def record(item: Any) -> dict[str, Any]:
            return {each.key: getattr(item, each.key) if each.of is None else each.of(item) for each in columns}

        return cls(columns=columns, records=tuple(map(record, items)), **about)

    def filled(self) -> "Grid":
        """Without the columns that say nothing."""
        held = {key for record in self.records for key, value in record.items() if value is not None}
        return replace(self, columns=tuple(column for column in self.columns if column.key in held))

    @property
    def numeric(self) -> list[bool]:
        """Of each column: does it hold numbers alone, or intervals?"""
        numbers = int | float | tuple | None  # type: ignore[type-arg]
        return [all(isinstance(record[each.key], numbers) for record in self.records) for each in self.columns]

    def shown(self) -> list[list[str]]:
        return [[said(record[each.key], each.show) or DASH for each in self.columns] for record in self.records]
