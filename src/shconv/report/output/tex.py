"""Tables for LaTeX: booktabs rules, a network a line as the paper has it. Needs \\usepackage{booktabs}.
Whatever came from a file is escaped; what TeX has no letter for is written as a command."""

from collections.abc import Iterable, Iterator

from shconv.report.output.cells import Grid, Line, Table

ESCAPED = {each: f"\\{each}" for each in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # this one and the next would be an option of the row before
    "*": "{*}",
    "–": "--",
    "\N{MINUS SIGN}": "$-$",
    "∞": r"$\infty$",
    "σ": r"$\sigma$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "ε": r"$\varepsilon$",
    "\N{NO-BREAK SPACE}": "~",
}


def to_tex(table: Table | Grid) -> str:
    """A table environment with caption and label; the paper's lines only where they are comparable."""
    head, rows = _of_table(table) if isinstance(table, Table) else _of_grid(table)
    notes = [text for text in (table.caption, *table.notes) if text]
    body = [*head, r"\midrule", *rows] if rows else [r"Not run. \\"]
    width = max((line.count(" & ") + 1 for line in rows), default=1)
    columns = "l" * (2 if isinstance(table, Table) else 1)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escaped(table.title)}. {escaped(' '.join(notes))}}}",
            rf"\label{{tab:{table.name.replace('_', '-')}}}",
            r"\centering",
            rf"\begin{{tabular}}{{{columns[:width]}{'r' * (width - len(columns))}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """On one line: an empty one ends a paragraph."""
    return " ".join("".join(ESCAPED.get(letter, letter) for letter in text).split())


def row(cells: Iterable[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def _of_grid(grid: Grid) -> tuple[list[str], list[str]]:
    return [row([column.title for column in grid.columns])], [row(cells) for cells in grid.shown()]


def _of_table(table: Table) -> tuple[list[str], list[str]]:
    spans = " & ".join(rf"\multicolumn{{{count}}}{{c}}{{{escaped(group)}}}" for group, count in table.groups)
    head = [rf"Network & & {spans} \\"]
    if any(column.label for column in table.columns):
        start = 3
        for _, count in table.groups:
            head.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
            start += count
        head.append(row(["", "", *(column.label for column in table.columns)]))
    return head, [each for line in table.lines for each in _lines(line, table.comparable)]


def _lines(line: Line, comparable: bool) -> Iterator[str]:
    name = line.title
    if comparable and any(cell.paper for cell in line.cells):
        yield row([name, "paper", *(cell.text("paper") for cell in line.cells)])
        name = ""
    yield row([name, "ours", *(cell.text("ours", "± seeds") for cell in line.cells)])
