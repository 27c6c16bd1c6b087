"""What a table is made of: a score for each seed, the cell that sums them up beside the paper's number, and its words.
Everything is kept unrounded; only the functions at the end make text of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from shconv.report.folder.rows import Row
from shconv.report.published import Published

NOT_RUN = "not run"
NO_IMAGES = "no images"
DASH = "–"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Score:
    """One seed's result: accuracy and its interval in 0..1, RCD where there is one, and of how many attacks."""

    seed: int
    n: int
    wanted: int | None
    accuracy: float | None
    interval: tuple[float, float] | None
    rcd_mean: float | None = None
    rcd_median: float | None = None
    rcd_floored: int | None = None
    attacks: int | None = None  # a worst case says over how many it is,
    attacks_wanted: int | None = None  # and how many it should be over

    @classmethod
    def of(cls, row: Row) -> "Score":
        return cls(
            row.seed, row.n, row.wanted, row.accuracy, row.interval, row.rcd_mean, row.rcd_median, row.rcd_floored
        )


@dataclass(frozen=True)
class Cell:
    """The paper's number, where it has one, and one score a seed; no score: not run."""

    paper: Published | None = None
    scores: tuple[Score, ...] = ()
    none: str = NOT_RUN  # what it says where there is no score

    @property
    def accuracy(self) -> float | None:
        """Mean over the seeds, in 0..1."""
        return mean(score.accuracy for score in self.scores)

    @property
    def accuracy_sd(self) -> float | None:
        return deviation(score.accuracy for score in self.scores)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of one seed; of several, from the lowest to the highest end of theirs."""
        ends = [score.interval for score in self.scores if score.interval is not None]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None

    @property
    def rcd(self) -> float | None:
        return mean(score.rcd_mean for score in self.scores)

    @property
    def rcd_sd(self) -> float | None:
        return deviation(score.rcd_mean for score in self.scores)

    @property
    def rcd_median(self) -> float | None:
        return mean(score.rcd_median for score in self.scores)

    @property
    def rcd_floored(self) -> int | None:
        counts = [score.rcd_floored for score in self.scores if score.rcd_floored is not None]
        return sum(counts) if counts else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's accuracy, in percentage points."""
        if self.paper is None or self.accuracy is None:
            return None
        return 100 * self.accuracy - self.paper.accuracy

    @property
    def rcd_difference(self) -> float | None:
        if self.paper is None or self.paper.rcd is None or self.rcd is None:
            return None
        return self.rcd - self.paper.rcd


@dataclass(frozen=True)
class Column:
    group: str  # "FGSM"; columns of one group stand side by side
    label: str  # "least-likely"; "" where the group says it all

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


@dataclass(frozen=True)
class Table:
    name: str  # also its file's name
    title: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    comparable: bool = True  # are the paper's numbers about the same data? Else only the CSV file has them


@dataclass(frozen=True)
class GridColumn:
    key: str  # in the CSV file
    title: str
    show: Callable[[Any], str] = str
    of: Callable[[Any], Any] | None = None  # its value for an item of `Grid.over`


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
    def over(
        cls,
        items: Iterable[Any],
        name: str,
        title: str,
        caption: str,
        columns: tuple[GridColumn, ...],
        notes: tuple[str, ...] = (),
    ) -> "Grid":
        """A record for each item, by what the columns take of it."""
        records = ({column.key: column.of(item) for column in columns if column.of is not None} for item in items)
        return cls(name, title, caption, columns, tuple(records), notes)

    def shown(self) -> list[list[str]]:
        return [
            [DASH if record[column.key] is None else column.show(record[column.key]) for column in self.columns]
            for record in self.records
        ]


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def deviation(values: Iterable[float | None]) -> float | None:
    """Standard deviation over the seeds (n - 1); None for fewer than two."""
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a true minus; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def span(interval: tuple[float, float]) -> str:
    return f"{percent(interval[0], 1)}–{percent(interval[1], 1)}"


def count(value: float) -> str:
    return f"{value:,.0f}"


def short(value: float) -> str:
    """About four significant digits."""
    return count(value) if abs(value) >= 1000 else f"{value:.4g}".replace("-", MINUS)


def paper_text(cell: Cell) -> str:
    if cell.paper is None:
        return DASH
    return f"{cell.paper.accuracy:.2f}" + ("" if cell.paper.rcd is None else f" / {cell.paper.rcd:.2f}")


def accuracy_text(cell: Cell) -> str:
    if not cell.scores:
        return cell.none
    return NO_IMAGES if cell.accuracy is None else percent(cell.accuracy)


def rcd_text(cell: Cell) -> str:
    return "" if cell.rcd is None else signed(cell.rcd).removeprefix("+")


def accuracy_sd_text(cell: Cell) -> str:
    """With its sign; empty for one seed."""
    return "" if cell.accuracy_sd is None else f"±{percent(cell.accuracy_sd)}"


def rcd_sd_text(cell: Cell) -> str:
    return "" if cell.rcd_sd is None else f"±{cell.rcd_sd:.2f}"


def ours_text(cell: Cell) -> str:
    """Accuracy / RCD, each with its standard deviation over the seeds."""
    parts = (accuracy_text(cell) + accuracy_sd_text(cell), rcd_text(cell) + rcd_sd_text(cell))
    return " / ".join(part for part in parts if part)


def difference_text(cell: Cell) -> str:
    if cell.difference is None:
        return DASH
    return signed(cell.difference) + ("" if cell.rcd_difference is None else f" / {signed(cell.rcd_difference)}")


def images_text(cell: Cell) -> str:
    """How many images ours is over, and how many the paper's is; of three seeds as 3 × 200 of 5,000."""
    if not cell.scores:
        return DASH
    text = between([score.n for score in cell.scores])
    wanted = next((score.wanted for score in cell.scores if score.wanted is not None), None)
    if wanted is not None:
        text += f" of {count(wanted)}"
    return f"{len(cell.scores)} × {text}" if len(cell.scores) > 1 else text


def shared_images(line: Line) -> str:
    """The image count that all of a line's cells share, to be said once; empty where they differ."""
    counts = {images_text(cell) for cell in line.cells if cell.scores}
    return f"{counts.pop()} images" if len(counts) == 1 else ""


def attacks_text(cell: Cell) -> str:
    """Of how many attacks a worst case is; empty for other cells."""
    attacks = [score.attacks for score in cell.scores if score.attacks is not None]
    wanted = [score.attacks_wanted for score in cell.scores if score.attacks_wanted is not None]
    if not attacks:
        return ""
    return between(attacks) if attacks == wanted else f"{between(attacks)} of {between(wanted)}"


def between(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return count(low) if low == high else f"{count(low)}–{count(high)}"
