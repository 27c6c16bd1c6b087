"""Tables as text: one line for each cell on the terminal and in Markdown, all numbers unrounded in CSV.
Whatever came from a file is escaped for the form it is put into."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from markupsafe import escape
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from shconv.report.numbers import DASH, MINUS, NO_IMAGES, NOT_RUN
from shconv.report.output.cells import Cell, Column, Grid, GridColumn, Line, Table

CSV_COLUMNS = (
    *("table", "data", "model", "network", "variant", "group", "column", "status", "seed", "n", "wanted", "accuracy"),
    *("interval_low", "interval_high", "rcd_mean", "rcd_median", "rcd_floored", "attacks", "attacks_wanted"),
    *("paper_accuracy_percent", "paper_rcd", "difference_points", "rcd_difference"),
)


def to_csv(table: Table | Grid, data: str) -> str:
    """Long form: a line for each cell and seed ("not run" has one too), numbers as Python writes them."""
    out = io.StringIO()
    if isinstance(table, Grid):
        keys = [*_ends_apart({column.key: None for column in table.columns}), "data"]
        records = [{**_ends_apart(record), "data": data} for record in table.records]
    else:
        keys, records = list(CSV_COLUMNS), list(_csv_records(table, data))
    writer = csv.DictWriter(out, keys, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def _csv_records(table: Table, data: str) -> Iterator[dict[str, Any]]:
    for line, column, cell in _cells(table):
        about = {
            "table": table.name,
            "data": data,
            "model": line.model,
            "network": line.name,
            "variant": line.variant,
            "group": column.group,
            "column": column.label,
            "paper_accuracy_percent": cell.paper.accuracy if cell.paper else None,
            "paper_rcd": cell.paper.rcd if cell.paper else None,
        }
        for score in cell.scores:
            own = Cell(cell.paper, (score,))
            apart = {"difference_points": own.difference, "rcd_difference": own.rcd_difference}
            yield {**about, **_ends_apart(vars(score)), "status": "run", **apart}
        for seed in cell.empty:
            yield {**about, "status": NO_IMAGES, "seed": seed, "n": 0}
        if not cell.scores and not cell.empty:
            yield {**about, "status": "does not apply" if cell.none == DASH else cell.none}


def _cells(table: Table) -> Iterator[tuple[Line, Column, Cell]]:
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
            yield line, column, cell


def _ends_apart(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its intervals, where it has some, as two columns each."""
    apart: dict[str, Any] = {}
    for key, value in record.items():
        if key.endswith("interval"):
            apart[f"{key}_low"], apart[f"{key}_high"] = value or (None, None)
        else:
            apart[key] = value
    return apart


def to_markdown(table: Table | Grid) -> str:
    """A section with heading, caption, the table and its notes."""
    grid = long_form(table) if isinstance(table, Table) else table
    rows = [[column.title for column in grid.columns], ["---"] * len(grid.columns), *grid.shown()]
    lines = [f"| {' | '.join(map(in_markdown, row))} |" for row in rows] if grid.records else ["Not run."]
    parts = [[f"# {in_markdown(grid.title)}"], [in_markdown(grid.caption)], lines]
    parts += [[f"- {in_markdown(note)}" for note in grid.notes]] if grid.notes else []
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "&#96;", "\\": "&#92;", "*": r"\*", "_": r"\_"}


def in_markdown(text: str) -> str:
    """On one line, every sign as it is."""
    return " ".join("".join(MARKDOWN.get(sign, sign) for sign in text).split())


def to_html(grid: Grid) -> str:
    """For a notebook: title, caption, the table and its notes."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in grid.notes)
    table = html_table([column.title for column in grid.columns], grid.shown())
    return f"<h4>{escape(grid.title)}</h4><p>{escape(grid.caption)}</p>{table}<ul>{notes}</ul>"


def html_table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Every word is escaped but what is Markup."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


# title, lines of the cell, whether of RCD, whether it is about the paper's number
_LONG_FORM = (
    ("Paper, %", ("paper",), 0, True),
    ("Ours, %", ("ours", "± seeds"), 0, False),
    ("Difference", ("difference",), 0, True),
    ("95 %", ("95 %",), 0, False),
    ("Paper RCD", ("paper",), 1, True),
    ("RCD mean", ("ours", "± seeds"), 1, False),
    ("Difference", ("difference",), 1, True),
    ("RCD median", ("RCD median",), 1, False),
    ("Floored", ("floored",), 1, False),
    ("Images", ("images",), 0, False),
    ("Attacks", ("attacks",), 0, False),
)


def long_form(table: Table) -> Grid:
    """The table with one record for each cell, all that is known of it side by side, without empty columns."""
    measures = [each for each in _LONG_FORM if table.comparable or not each[3]]
    titles = ("Network", "Variant", "Column", *(title for title, *_ in measures))
    records = [
        [line.name, line.variant, column.title]
        + ["".join(cell.said[each][place] for each in lines) for _, lines, place, _ in measures]
        for line, column, cell in _cells(table)
    ]
    return Grid(
        name=table.name,
        title=table.title,
        caption=table.caption,
        columns=tuple(GridColumn(str(place), title) for place, title in enumerate(titles)),
        records=tuple({str(place): text or None for place, text in enumerate(record)} for record in records),
        notes=table.notes,
    ).filled()


def print_table(table: Table | Grid, console: Console) -> None:
    """One table on the terminal; a Table's networks as sections, a line for each cell, not run or not."""
    console.print(Text(f"\n{table.title}", style="bold"))
    console.print(Text(table.caption, style="dim"))
    if isinstance(table, Table):
        rows = [row for line in table.lines for row in _terminal_rows(table, line)]
        if not table.comparable:
            rows = [[row[0], DASH, row[2], DASH, *row[4:]] if any(row[1:]) else row for row in rows]
        console.print(_fitted(("", "paper", "ours", "difference", "95 %", "images"), rows, console.width))
    elif table.records:
        console.print(_fitted([column.title for column in table.columns], table.shown(), console.width))
    else:
        console.print(Text("Not run."))
    for note in table.notes:
        console.print(Text(note, style="italic"))


def _terminal_rows(table: Table, line: Line) -> Iterator[list[str]]:
    """The network's name, then a row for each cell; of a network that was not run, for each that the paper has."""
    ran = any(cell.scores for cell in line.cells)
    empty = not ran and all(cell.none in (NO_IMAGES, DASH) for cell in line.cells)
    shared = NO_IMAGES if empty else line.shared_images
    yield [", ".join(filter(None, (line.title, shared))), *[""] * 5]
    if empty:
        return
    for column, cell in zip(table.columns, line.cells, strict=True):
        if (ran and cell.none == NOT_RUN) or cell.scores or cell.paper is not None:
            attacks = cell.said["attacks"][0]
            title = f"  {column.title}" + (f" ({attacks} attacks)" if attacks else "")
            said = [cell.text(*lines) for lines in (("paper",), ("ours", "± seeds"), ("difference",), ("95 %",))]
            yield [title, *said, DASH if shared else cell.text("images")]


def _fitted(titles: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> RichTable | Text:
    """Columns of short cells keep their width and let their titles wrap, the others share what is left.

    Where that is too little, a line for each row says the titles again. A row of one cell is a heading.
    """
    used = [place for place in range(len(titles)) if any(row[place] not in ("", DASH) for row in rows)]
    cells = {place: [row[place] for row in rows if place or any(row[1:])] for place in used}
    longest = {place: max(map(len, (*cells[place], *titles[place].split())), default=0) for place in used}
    widths = {place: longest[place] if place and longest[place] <= 22 else None for place in used}
    words = {place: [min(len(word), 24) for cell in cells[place] for word in cell.split()] for place in used}
    least = {
        place: max(12, longest[place] // 6, *words[place]) for place in used
    }  # words whole, and cells of few lines
    if sum(2 + (width or least[place]) for place, width in widths.items()) > room:
        return Text("\n".join(_in_words(titles, row) for row in rows))
    shown = RichTable(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for place in used:
        justify: Literal["left", "right"] = "right" if all(map(_is_number, cells[place])) else "left"
        shown.add_column(Text(titles[place]), overflow="fold", width=widths[place], justify=justify)
    for row in rows:
        style = "" if any(row[1:]) else "bold"
        shown.add_row(*(Text(row[place], style=style) for place in used))
    return shown


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] in ("", DASH, "+", MINUS) or text in (NOT_RUN, NO_IMAGES)


def _in_words(titles: Sequence[str], row: Sequence[str]) -> str:
    told = [(title, text) for title, text in zip(titles, row, strict=True) if text not in ("", DASH)]
    return "; ".join(f"{title} {text}".strip() for title, text in told)
