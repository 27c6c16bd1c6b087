"""N networks on the same images in one table: clean, each attack, worst case, parameters, time; sorted by worst case,
with the paired test against a baseline. `shconv.compare` and `shconv compare` return and print it."""

import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shconv import terminal
from shconv.attacks.budget import Budget
from shconv.errors import InputError, near
from shconv.files import replace_file, replace_text
from shconv.intervals import wilson
from shconv.paired import Paired
from shconv.results import Results
from shconv.results.audits import audited
from shconv.results.compared import Compared, compared, on_shared_images
from shconv.results.measures import Measures

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
    seconds: float
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
    def of(cls, given: Sequence[Results | str | Path], baseline: str | None = None) -> Self:
        """Of results, run folders and audits' folders.

        Raises InputError where there is nothing to compare, where data or images differ, for an unknown baseline.
        """
        facts = [_facts(each) for each in given]
        _check_same_data(facts)
        whole = _told_apart(_networks(given))
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
        counts = [next(len(right[0]) for right in column.values() if right is not None) for column in columns]
        name = str(facts[0][1].get("name", ""))
        notes = _notes(networks, budget, baseline)
        if any(len(a.worst[budget].places) < len(b.worst[budget].places) for a, b in zip(networks, whole, strict=True)):
            notes = (
                *notes,
                "Pairs of one run are attacked on different images. Only images that all pairs share count.",
            )
        return cls((*titles, worst), tuple(counts), tuple(lines), baseline, name, notes)

    def table(self) -> "DataFrame":
        """A line for each network: of every column the accuracy and its interval (_low, _high), in shares of 1."""
        import pandas as pd

        return pd.DataFrame([dict(self._record(line)) for line in self.lines])

    def print(self, console: Console | None = None) -> None:
        """The table on standard output, or a console: accuracy in per cent, a column for each network where few."""
        header, rows = self.text()
        if len(rows) < len(header):
            header, *rows = [list(column) for column in zip(header, *rows, strict=True)]
        table = Table(box=None, header_style="dim", pad_edge=False)
        for place, title in enumerate(header):
            table.add_column(Text(title), justify="right" if place else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        out = console or terminal.console()
        out.print(table)
        for note in self.notes:
            out.print(Text(note))

    def _repr_html_(self) -> str:
        header, rows = self.text()
        lines = ["".join(f"<td>{html.escape(text)}</td>" for text in row) for row in (header, *rows)]
        return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"

    def text(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as they are printed: accuracy in per cent, the worst case with its interval."""
        header = ["network", *self.columns, "parameters", "attack time"]
        header += [f"worst case minus {self.baseline}", "p"] if self.baseline else []
        return header, [self._shown(line) for line in self.lines]

    def save(self, folder: str | Path) -> Path:
        """Write comparison.html, .svg, .csv, .md and .tex into the folder, made if need be; returns the page."""
        from shconv.results import comparison_page

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        table = io.StringIO()
        self.table().to_csv(table, index=False)
        replace_file(path / "comparison.csv", table.getvalue().encode("utf-8", "backslashreplace"))
        replace_text(path / "comparison.md", comparison_page.markdown(self))
        replace_text(path / "comparison.tex", comparison_page.latex(self))
        replace_text(path / "comparison.svg", comparison_page.scatter(self))
        replace_text(path / "comparison.html", comparison_page.page(self))
        return path / "comparison.html"

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
        row = [line.name, *map(_percent, line.cells[:-1])]
        row.append("–" if line.worst is None else "{} ({} to {})".format(*(f"{100 * each:.1f}" for each in line.worst)))
        row += ["–" if line.parameters is None else f"{line.parameters:,}", f"{line.seconds:.1f} s"]
        if self.baseline is not None:
            if line.difference is None or line.p is None:
                return [*row, "–", "–"]
            row.append("{} ({} to {})".format(*(f"{100 * each:+.1f}" for each in line.difference)))
            row.append("< 0.001" if line.p < 0.001 else f"{line.p:.3f}")
        return row


def _networks(given: Sequence[Results | str | Path]) -> list[Compared]:
    """The networks of all sources; the runs' attacks as one run's, so that worst cases are over those all met."""
    runs: list[Results] = []
    sources: list[str] = []
    found: list[Compared] = []
    for place, each in enumerate(given):
        if not isinstance(each, Results):
            found += audited(Path(each))
            runs.append(Results.load(each))
            sources.append(str(each))
        else:
            runs.append(each)
            sources.append(f"results {place + 1}")
    records, outcomes, origins = [], {}, {}
    for place, (run, source) in enumerate(zip(runs, sources, strict=True)):
        for row in run.records:
            id, model = f"{place}/{row['id']}", f"{place}/{row['model']}"
            records.append({**row, "id": id, "model": model})
            outcomes[id] = run.outcomes[row["id"]]
            origins[model] = (row["model"], source)
    sizes = {
        f"{place}/{key}": about["parameters"]
        for place, run in enumerate(runs)
        for key, about in run.facts.get("sizes.json", {}).items()
    }
    together = compared(Measures(records, outcomes), "", sizes)
    return [*(replace(e, model=origins[e.model][0], source=origins[e.model][1]) for e in together), *found]


def _told_apart(networks: Sequence[Compared]) -> list[Compared]:
    """Names that come twice get the seed, or else the source's name, added."""
    names = [each.model for each in networks]
    seeded = [f"{each.model}, seed {each.seed}" if names.count(each.model) > 1 else each.model for each in networks]
    placed = [
        f"{name}, {Path(each.source).name}" if seeded.count(name) > 1 else name
        for name, each in zip(seeded, networks, strict=True)
    ]
    if twice := [name for name in placed if placed.count(name) > 1]:
        raise InputError(f"compare: {twice[0]} comes twice; give each run once, and networks names of their own")
    return [replace(each, model=name) for each, name in zip(networks, placed, strict=True)]


def _facts(given: Results | str | Path) -> tuple[str, Mapping[str, Any], bytes]:
    """The source's name, its data.json and its images.csv."""
    if isinstance(given, Results):
        images = "\n".join(f"{label},{file}" for label, file in zip(given.labels, given.files, strict=False))
        return "these results", given.facts.get("data.json", {}), images.encode()
    path = Path(given)
    if not (path / "rows.jsonl").is_file():
        raise InputError(f"compare: {path} holds no rows; want a run's or audit's folder, or results")
    file = path / "data.json"
    run = Results.load(path)
    about: Mapping[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
    images = "\n".join(f"{label},{file}" for label, file in zip(run.labels, run.files, strict=True))
    return str(path), about, images.encode()


def _check_same_data(facts: Sequence[tuple[str, Mapping[str, Any], bytes]]) -> None:
    """The name of the data counts where a source did not store its images' files and labels."""
    first, about, images = facts[0]
    for source, other, theirs in facts[1:]:
        names = ["test_images", "classes", "image_size", "test_preset", *([] if images and theirs else ["name"])]
        for name in names:
            here, there = about.get(name), other.get(name)
            if None not in (here, there) and here != there:
                raise InputError(
                    f"compare: {first} and {source} are about other data ({name}: {here!r:.60} and {there!r:.60})"
                )
        if images and theirs and images != theirs:
            raise InputError(f"compare: {first} and {source} are about other data: files or labels differ")


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
    notes = [f"Worst case: the images that no attack within {budget.title} fools, of {n}, with 95 % interval (Wilson)."]
    for attacks, names in by_attacks.items():
        whose = "all networks" if len(by_attacks) == 1 else ", ".join(names)
        notes.append(f"Attacks that count for {whose}: {'; '.join(attacks)}.")
    if len(by_attacks) > 1 or any(each.worst[budget].audited for each in networks):
        notes.append("An audit chooses its attacks by network and time, so worst cases from audits differ in attacks.")
    if baseline is not None:
        notes.append(
            f"Differences: worst case minus that of {baseline}, in points, with Newcombe's 95 % interval; p: McNemar's "
            "exact test, not corrected for the number of networks."
        )
    return tuple(notes)


def _percent(cell: Cell) -> str:
    return "–" if cell is None else f"{100 * cell[0]:.1f}"
