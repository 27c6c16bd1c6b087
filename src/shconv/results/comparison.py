"""N networks on the same images in one table: clean, each attack, worst case, parameters, time; sorted by worst case,
with the paired test against a baseline. `shconv.compare` and `shconv compare` return and print it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from rich.console import Console
from rich.text import Text

from shconv import terminal
from shconv.attacks.budget import Budget
from shconv.errors import InputError, near
from shconv.files import replace_file, replace_text
from shconv.intervals import wilson
from shconv.paired import Paired, p_cell
from shconv.report.numbers import points
from shconv.report.output.render import html_table
from shconv.results import charts, shown
from shconv.results.compared import Compared, on_shared_images
from shconv.results.gathered import Given, gathered

if TYPE_CHECKING:
    from pandas import DataFrame

Cell = tuple[float, float, float] | None  # accuracy and its 95 % interval, shares of 1


@dataclass(frozen=True, eq=False)
class Line:
    """A network's row. difference: of the worst case, minus the baseline's, with Newcombe's 95 % interval."""

    name: str
    seed: int
    source: str
    cells: tuple[Cell, ...]  # one a column of Comparison.columns
    parameters: int | None
    seconds: float | None
    difference: tuple[float, float, float] | None = None
    p: float | None = None  # McNemar's exact test

    @property
    def worst(self) -> Cell:
        return self.cells[-1]

    @property
    def clean(self) -> Cell:
        return self.cells[0]


@dataclass(frozen=True, eq=False)
class Comparison:
    """`columns`: clean, the attacks, the worst case last; `lines` from the highest worst case to the lowest."""

    columns: tuple[str, ...]
    images: tuple[int, ...]  # of each column
    lines: tuple[Line, ...]
    baseline: str | None
    data: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, given: Sequence[Given], baseline: str | None = None) -> Self:
        """Of results, run folders and audits' folders.

        Raises InputError where there is nothing to compare, where data or images differ, for an unknown baseline.
        """
        whole, data = gathered(given)
        if len(whole) < 2:
            raise InputError(f"compare: got {len(whole)} network{'' if whole else 's'}; want at least two")
        networks = on_shared_images(whole)
        budget = _budget(networks)
        titles = ("clean", *dict.fromkeys(title for each in networks for title in each.measures if title != "clean"))
        worst = f"worst case {budget.title}"
        columns = [{each.model: each.measures.get(title) for each in networks} for title in titles]
        columns.append({each.model: each.worst[budget][:2] for each in networks})
        for title, column in zip((*titles, worst), columns, strict=True):
            _check_same_images(title, column)
        lines = [_line(each, [column[each.model] for column in columns]) for each in networks]
        if baseline is not None:
            lines = _against(networks, lines, budget, baseline)
        lines.sort(key=lambda line: (-(line.worst or (0.0,))[0], -(line.clean or (0.0,))[0], line.name))
        counts = [max(0 if right is None else len(right[0]) for right in column.values()) for column in columns]
        notes = [*_notes(networks, budget, baseline)]
        if any(len(a.worst[budget].places) < len(b.worst[budget].places) for a, b in zip(networks, whole, strict=True)):
            notes.append("Pairs of one run are attacked on different images. Only images that all pairs share count.")
        return cls((*titles, worst), tuple(counts), tuple(lines), baseline, data, tuple(notes))

    def table(self) -> "DataFrame":
        """A line for each network: of every column the accuracy and its interval (_low, _high), in shares of 1."""
        import pandas as pd

        return pd.DataFrame([dict(self._record(line)) for line in self.lines])

    def print(self, console: Console | None = None) -> None:
        """The table on standard output, or a console: accuracy in per cent, a column for each network where few."""
        out = console or terminal.console()
        out.print(shown.terminal(*self.text(), out.width))
        for note in self.notes:
            out.print(Text(note))

    def _repr_html_(self) -> str:
        return html_table(*self.text())

    def text(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as they are printed: accuracy in per cent, the worst case with its interval."""
        header = ["network", *self.columns, "parameters", "attack time"]
        header += [f"worst case minus {self.baseline}", "p"] if self.baseline else []
        return header, [self._shown(line) for line in self.lines]

    def save(self, folder: str | Path) -> Path:
        """Write comparison.html, .svg, .csv, .md and .tex into the folder, made if need be; returns the page."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        header, rows = self.text()
        table = self.table().to_csv(index=False)
        replace_file(path / "comparison.csv", table.encode("utf-8", "backslashreplace"))
        replace_text(path / "comparison.md", shown.markdown(header, rows, self.notes))
        replace_text(path / "comparison.tex", shown.latex(header, rows))
        replace_text(path / "comparison.svg", charts.svg(self.chart()))
        replace_text(path / "comparison.html", self._page(header, rows))
        return path / "comparison.html"

    def chart(self) -> dict[str, Any]:
        """What the SVG template draws: clean accuracy against the worst case, a numbered point for each network."""
        marked = [
            charts.Point(number, line.name, line.clean[0], line.worst)
            for number, line in enumerate(self.lines, start=1)
            if line.clean and line.worst
        ]
        return charts.clean_against_worst(marked)

    def _page(self, header: list[str], rows: list[list[str]]) -> str:
        by_count: dict[int, list[str]] = {}
        for title, n in zip(self.columns, self.images, strict=True):
            by_count.setdefault(n, []).append(title)
        order = self._answer_first()
        return (
            charts.environment()
            .get_template("comparison.html.j2")
            .render(
                comparison=self,
                header=[header[place] for place in order],
                rows=[[row[place] for place in order] for row in rows],
                images=[("; ".join(titles), n) for n, titles in by_count.items()],
                alone=False,
                **self.chart(),
            )
        )

    def _answer_first(self) -> list[int]:
        """The columns for a screen: name, clean, worst case and its test, which else lie behind thirty attacks."""
        worst = len(self.columns)  # behind the name
        paired = [worst + 3, worst + 4] if self.baseline else []
        return [0, 1, worst, *paired, *range(2, worst), worst + 1, worst + 2]

    def _record(self, line: Line) -> Mapping[str, Any]:
        record: dict[str, Any] = {"model": line.name, "seed": line.seed, "source": line.source}
        for title, cell in zip(self.columns, line.cells, strict=True):
            record |= dict(zip((title, f"{title}_low", f"{title}_high"), cell or (None,) * 3, strict=True))
        record |= {"parameters": line.parameters, "seconds": line.seconds}
        if self.baseline is not None:
            names = ("difference", "difference_low", "difference_high")
            record |= dict(zip(names, line.difference or (None,) * 3, strict=True)) | {"p": line.p}
        return record

    def _shown(self, line: Line) -> list[str]:
        row = [line.name, *map(shown.percent, line.cells[:-1])]
        row.append("–" if line.worst is None else "{} ({} to {})".format(*(f"{100 * each:.1f}" for each in line.worst)))
        row.append("–" if line.parameters is None else f"{line.parameters:,}")
        row.append("–" if line.seconds is None else f"{line.seconds:.1f} s")
        if self.baseline is not None:
            if line.difference is None or line.p is None:
                return [*row, "–", "–"]
            row.append("{} ({} to {})".format(*map(points, line.difference)))
            row.append(p_cell(line.p))
        return row


def _budget(networks: Sequence[Compared]) -> Budget:
    """The budget that all networks have a worst case for: L-infinity before L2, then the largest."""
    shared = set.intersection(*(set(each.worst) for each in networks))
    if not shared:
        said = "; ".join(
            f"{each.model}: {', '.join(budget.title for budget in each.worst) or 'none'}" for each in networks
        )
        raise InputError(f"compare: there is no budget within which every network was attacked alike ({said})")
    return max(shared, key=lambda budget: (budget.norm == "linf", budget.radius))


def _check_same_images(title: str, column: Mapping[str, Any]) -> None:
    known = [(name, right[0]) for name, right in column.items() if right is not None]
    for name, index in known[1:]:
        if not np.array_equal(np.sort(index), np.sort(known[0][1])):
            raise InputError(
                f"compare: {known[0][0]} and {name} were judged on other images ({title}: {len(known[0][1])} and "
                f"{len(index)}); want the same selection, as in one run of shconv evaluate"
            )


def _line(network: Compared, rights: Sequence[Any]) -> Line:
    cells = tuple(None if right is None else _cell(right[1]) for right in rights)
    return Line(network.model, network.seed, network.source, cells, network.parameters, network.seconds)


def _cell(right: Any) -> tuple[float, float, float]:
    correct, n = int(np.sum(right)), len(right)
    return (correct / n, *wilson(correct, n))


def _against(networks: Sequence[Compared], lines: Sequence[Line], budget: Budget, baseline: str) -> list[Line]:
    names = [each.model for each in networks]
    if baseline not in names:
        raise InputError(f"baseline: got {baseline!r}; {near(baseline, names, listed=True)}")
    base = networks[names.index(baseline)].worst[budget]
    paired = []
    for network, line in zip(networks, lines, strict=True):
        if network.model == baseline:
            paired.append(line)
            continue
        own = network.worst[budget]
        counts = Paired.of(own.right[np.argsort(own.places)], base.right[np.argsort(base.places)])
        paired.append(replace(line, difference=(counts.difference, *counts.interval), p=counts.p))
    return paired


def _notes(networks: Sequence[Compared], budget: Budget, baseline: str | None) -> tuple[str, ...]:
    by_attacks: dict[tuple[str, ...], list[str]] = {}
    for each in networks:
        by_attacks.setdefault(each.worst[budget].attacks, []).append(each.model)
    n = len(next(iter(networks)).worst[budget].places)
    notes = [
        f"Worst case: the images that no attack within {budget.title} fools, of {n}, with 95 % interval (Wilson). "
        "It is an upper bound: another attack can only lower it."
    ]
    for attacks, names in by_attacks.items():
        whose = "all networks" if len(by_attacks) == 1 else ", ".join(names)
        notes.append(f"Attacks that count for {whose}: {'; '.join(attacks)}.")
    if len(by_attacks) > 1 or any(each.worst[budget].audited for each in networks):
        notes.append("An audit chooses its attacks by network and time, so worst cases from audits differ in attacks.")
    if baseline is None:
        notes.append("If intervals overlap, the order may be due to chance. A baseline is compared image by image.")
    else:
        notes.append(
            f"Differences: worst case minus that of {baseline}, in points, with Newcombe's 95 % interval; p: McNemar's "
            "exact test, not corrected for the number of networks."
        )
    return tuple(notes)
