"""Rows of words as people see them: on a terminal, as Markdown and as LaTeX."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from shconv.report.output.render import in_markdown
from shconv.report.output.tex import row as tex_row

Words = Sequence[str]
NAME = 12  # letters of a name or a title that stay together


def percent(share: tuple[float, float, float] | None) -> str:
    """An accuracy, a share of 1 that has its interval beside it; a dash where there is none."""
    return "–" if share is None else f"{100 * share[0]:.1f}"


def terminal(header: Words, rows: Iterable[Words], room: int) -> Group:
    """Names at the left, all else at the right; what there is less of, networks or measures, stands across.

    Only names and titles are wrapped; columns for which there is no room follow in a further table.
    """
    lines = [header, *rows]
    columns = lines if len(header) > len(lines) else list(zip(*lines, strict=True))
    names, *others = columns
    named = min(_longest(names), NAME)
    parts: list[list[Words]] = []
    for column in others:
        if not parts or named + sum(2 + _least(each) for each in (*parts[-1], column)) > room:
            parts.append([])
        parts[-1].append(column)
    return Group(*[each for part in parts for each in (Text(), _table(names, part, room - named))][1:])


def _table(names: Words, columns: Sequence[Words], room: int) -> Table:
    """What is left of the room goes to the names, then from left to right."""
    spare = max(0, room - sum(2 + _least(each) for each in columns))
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in (names, *columns):
        least = min(_longest(names), NAME) if column is names else _least(column)
        width = min(_longest(column), least + spare)
        spare -= width - least
        table.add_column(Text(column[0]), justify="left" if column is names else "right", overflow="fold", width=width)
    for cells in zip(*(column[1:] for column in (names, *columns)), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _longest(column: Words) -> int:
    return max(map(cell_len, column))


def _least(column: Words) -> int:
    """How wide a column of numbers has to be."""
    return max(min(cell_len(column[0]), NAME), *map(cell_len, column[1:]))


def markdown(header: Words, rows: Iterable[Words], notes: Iterable[str]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = [f"| {' | '.join(map(in_markdown, line))} |" for line in lines]
    return "\n".join([*table, "", *(f"{in_markdown(note)}\n" for note in notes)])


def latex(header: Words, rows: Iterable[Words]) -> str:
    """A booktabs table."""
    body = [r"\toprule", tex_row(header), r"\midrule", *map(tex_row, rows), r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", *body, r"\end{tabular}", ""])
