"""Tables as text: one line for each cell on the terminal and in Markdown, all numbers unrounded in CSV.
Whatever came from a file is escaped for the form it is put into."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from shconv.report.output.cells import (
    DASH,
    MINUS,
    NO_IMAGES,
    NOT_RUN,
    Cell,
    Column,
    Grid,
    GridColumn,
    Line,
    Table,
    accuracy_sd_text,
    accuracy_text,
    attacks_text,
    count,
    difference_text,
    images_text,
    ours_text,
    paper_text,
    rcd_sd_text,
    rcd_text,
    shared_images,
    signed,
    span,
)

CSV_COLUMNS = (
    *("table", "data", "model", "network", "variant", "group", "column", "status", "seed", "n", "wanted", "accuracy"),
    *("interval_low", "interval_high", "rcd_mean", "rcd_median", "rcd_floored", "attacks", "attacks_wanted"),
    *("paper_accuracy_percent", "paper_rcd", "difference_points", "rcd_difference"),
)


def to_csv(table: Table | Grid, data: str) -> str:
    """Long form: a line for each cell and seed ("not run" has one too), numbers as Python writes them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if isinstance(table, Grid):
        records = [_ends_apart(record) for record in table.records]
        keys = list(_ends_apart({column.key: None for column in table.columns}))
        writer.writerow([*keys, "data"])
        for record in records:
            writer.writerow([*(_csv_value(record[key]) for key in keys), data])
    else:
        writer.writerow(CSV_COLUMNS)
        for record in _csv_records(table, data):
            writer.writerow([_csv_value(record.get(key)) for key in CSV_COLUMNS])
    return out.getvalue()


def _csv_records(table: Table, data: str) -> Iterator[dict[str, Any]]:
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
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
                low, high = score.interval or (None, None)
                yield {
                    **about,
                    **vars(score),
                    "status": "run" if score.n else "no images",
                    "interval_low": low,
                    "interval_high": high,
                    "difference_points": own.difference,
                    "rcd_difference": own.rcd_difference,
                }
            if not cell.scores:
                yield {**about, "status": "does not apply" if cell.none == DASH else cell.none}


def _ends_apart(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its intervals, where it has some, as two columns each."""
    apart: dict[str, Any] = {}
    for key, value in record.items():
        if key.endswith("interval"):
            apart[f"{key}_low"], apart[f"{key}_high"] = value or (None, None)
        else:
            apart[key] = value
    return apart


def _csv_value(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def to_markdown(table: Table | Grid) -> str:
    """A section with heading, caption, the table and its notes."""
    grid = long_form(table) if isinstance(table, Table) else table
    rows = [[column.title for column in grid.columns], ["---"] * len(grid.columns), *grid.shown()]
    lines = [f"| {' | '.join(_markdown(text) for text in row)} |" for row in rows]
    notes = [f"- {_markdown(note)}" for note in grid.notes]
    head = [f"# {_markdown(grid.title)}", _markdown(grid.caption)]
    body = "\n".join(lines) if grid.records else "Not run."
    return "\n\n".join([*head, body, *(["\n".join(notes)] if notes else [])]) + "\n"


def _markdown(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("`", "&#96;")):
        text = text.replace(character, entity)
    return " ".join(text.replace("*", "\\*").replace("_", "\\_").split())


_PAPERS = (3, 5, 7, 9)  # columns of the long form that the paper's numbers are in


def long_form(table: Table) -> Grid:
    """The table with one record for each cell, all that is known of it side by side."""
    columns = (
        *("Network", "Variant", "Column", "Paper, %", "Ours, %", "Difference", "95 %", "Paper RCD", "RCD mean"),
        *("Difference", "RCD median", "Floored", "Images", "Attacks"),
    )
    records = [
        dict(zip((f"{place}" for place in range(len(columns))), _long_record(line, column, cell), strict=True))
        for line in table.lines
        for column, cell in zip(table.columns, line.cells, strict=True)
    ]
    # columns that are empty throughout (variants, attacks) only take room
    used = [
        key
        for key in map(str, range(len(columns)))
        if any(record[key] for record in records) and (table.comparable or int(key) not in _PAPERS)
    ]
    return Grid(
        name=table.name,
        title=table.title,
        caption=table.caption,
        columns=tuple(GridColumn(key, columns[int(key)]) for key in used),
        records=tuple(records),
        notes=table.notes,
    )


def _long_record(line: Line, column: Column, cell: Cell) -> tuple[str | None, ...]:
    rcd = None if cell.rcd_difference is None else signed(cell.rcd_difference)
    return (
        line.name,
        line.variant or None,
        column.title,
        None if cell.paper is None else f"{cell.paper.accuracy:.2f}",
        accuracy_text(cell) + accuracy_sd_text(cell),
        None if cell.difference is None else signed(cell.difference),
        None if cell.interval is None else span(cell.interval),
        None if cell.paper is None or cell.paper.rcd is None else f"{cell.paper.rcd:.2f}",
        rcd_text(cell) + rcd_sd_text(cell) or None,
        rcd,
        None if cell.rcd_median is None else f"{cell.rcd_median:.2f}",
        None if cell.rcd_floored is None else count(cell.rcd_floored),
        images_text(cell) if cell.scores else None,
        attacks_text(cell) or None,
    )


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
    shared, ran = shared_images(line), any(cell.scores for cell in line.cells)
    empty = all(accuracy_text(cell) in (NO_IMAGES, DASH) for cell in line.cells)
    shared = NO_IMAGES if empty else shared
    yield [", ".join(part for part in (line.name, line.variant, shared) if part), *[""] * 5]
    if empty:
        return
    for column, cell in zip(table.columns, line.cells, strict=True):
        if (ran and cell.none == NOT_RUN) or cell.scores or cell.paper is not None:
            attacks = attacks_text(cell)
            title = f"  {column.title}" + (f" ({attacks} attacks)" if attacks else "")
            interval = DASH if cell.interval is None else span(cell.interval)
            images = DASH if shared else images_text(cell)
            yield [title, paper_text(cell), ours_text(cell), difference_text(cell), interval, images]


def _fitted(titles: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> RichTable | Text:
    """Columns of short cells keep their width and let their titles wrap, the others share what is left.

    Where that is too little, a line for each row says the titles again. A row of one cell is a heading.
    """
    used = [place for place in range(len(titles)) if any(row[place] not in ("", DASH) for row in rows)]
    cells = {place: [row[place] for row in rows if place or any(row[1:])] for place in used}
    longest = {place: max(map(len, (*cells[place], *titles[place].split())), default=0) for place in used}
    widths = {place: longest[place] if place and longest[place] <= 22 else None for place in used}
    if sum(2 + (width or 12) for width in widths.values()) > room:
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
