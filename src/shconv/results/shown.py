"""Rows of words as people see them: on a terminal, as Markdown and as LaTeX."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from shconv.report.output.render import in_markdown
from shconv.report.output.tex import row as tex_row

Words = Sequence[str]


def percent(share: tuple[float, float, float] | None) -> str:
    """An accuracy, a share of 1 that has its interval beside it; a dash where there is none."""
    return "–" if share is None else f"{100 * share[0]:.1f}"


def terminal(header: Words, rows: Iterable[Words], **first: Any) -> Table:
    """Names at the left, all else at the right; ``first`` are rich's settings of the first column."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(Text(header[0]), **({"overflow": "fold"} | first))
    for title in header[1:]:
        table.add_column(Text(title), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def markdown(header: Words, rows: Iterable[Words], notes: Iterable[str]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = [f"| {' | '.join(map(in_markdown, line))} |" for line in lines]
    return "\n".join([*table, "", *(f"{in_markdown(note)}\n" for note in notes)])


def latex(header: Words, rows: Iterable[Words]) -> str:
    """A booktabs table."""
    body = [r"\toprule", tex_row(header), r"\midrule", *map(tex_row, rows), r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", *body, r"\end{tabular}", ""])
