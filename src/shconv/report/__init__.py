"""A run folder as tables, figures and one HTML page, drawn without a network: ``rows.jsonl``, ``outcomes/`` and
``arrays/`` are all it reads."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.text import Text

from shconv.errors import InputError
from shconv.files import replace_file, replace_text
from shconv.report.audit.sections import comparison, sections
from shconv.report.audit.tables import audit_tables
from shconv.report.folder.run import Run, load_run
from shconv.report.output.cells import Grid, Table
from shconv.report.output.render import print_table, to_csv, to_markdown
from shconv.report.output.tex import to_tex
from shconv.report.paper.answer import answer, limits, meaning
from shconv.report.paper.beside import pairs
from shconv.report.paper.reading import read
from shconv.report.paper.statement import Statement
from shconv.report.paper.summaries import summaries
from shconv.report.paper.tables import paper_tables

__all__ = ["Run", "Statement", "load_run", "print_tables", "read", "write"]

TABLE_FORMATS: dict[str, Callable[[Table | Grid, Run], str]] = {
    "md": lambda table, _: to_markdown(table),
    "csv": lambda table, run: to_csv(table, run.data.name),
    "tex": lambda table, _: to_tex(table),
}


def write(
    run_folder: Run | Path | str,
    figures: Sequence[str] = ("svg", "png"),
    tables: Sequence[str] = ("md", "csv"),
    console: Console | None = None,
) -> Path:
    """Write ``tables/``, ``figures/`` and ``report.html`` into a run folder.

    figures: the formats of the figures' files, of pdf, svg and png. tables: of the tables' files, of md, csv and tex.
    console: where ``print_tables`` shall print meanwhile.

    Returns
    -------
    Path
        Of report.html, which is written last; each file appears whole or not at all.

    Raises
    ------
    InputError
        Where the folder is missing, holds no row yet, or has a damaged file or line, or for an unknown format; the
        message names it.
    """
    from shconv.report.audit.figures import draw_audit, draw_comparison
    from shconv.report.output.canvas import FORMATS, painting  # matplotlib takes a second to import
    from shconv.report.page.page import render
    from shconv.report.paper.figures import draw

    _check("figures", figures, FORMATS)
    _check("tables", tables, TABLE_FORMATS)
    run = run_folder if isinstance(run_folder, Run) else load_run(run_folder)
    drawn = draw(run) if run.rows else ()
    of_audits = [draw_audit(run, audit) for audit in run.audits]
    compared = draw_comparison(run.audits)
    painted = painting([*drawn, compared, *chain(*of_audits)], tuple(dict.fromkeys(("svg", *figures))))
    made, said = _tables(run), _statements(run)
    if console is not None:
        _print(run, made, said, console)
    painted()
    kinds = {"figures": tuple(figures), "tables": tuple(tables)}
    page = render(run, made, said, drawn, of_audits, compared, kinds)
    content: dict[str, bytes | str] = {}
    for kind in tables:
        for table in (*made, *audit_tables(run.audits)):
            content[f"tables/{table.name}.{kind}"] = TABLE_FORMATS[kind](table, run)
    for figure in chain(drawn, [compared], *of_audits):
        for kind in figures if figure.figure is not None else ():
            content[f"figures/{figure.name}.{kind}"] = figure.saved(kind)
    content["report.html"] = page
    for name, text in content.items():
        (run.folder / name).parent.mkdir(exist_ok=True)
        replace_text(run.folder / name, text) if isinstance(text, str) else replace_file(run.folder / name, text)
    return run.folder / "report.html"


def _check(name: str, given: Sequence[str], known: Iterable[str]) -> None:
    for kind in given:
        if kind not in known:
            raise InputError(f"{name}: got {kind!r}, want one of {', '.join(known)}")


def print_tables(run_folder: Path | str, console: Console) -> None:
    """Print the tables, then what they show, and last the answer, on a terminal. Raises InputError as ``write``
    does."""
    run = load_run(run_folder)
    _print(run, _tables(run), _statements(run), console)


def _print(run: Run, tables: Iterable[Table | Grid], statements: Iterable[Statement], console: Console) -> None:
    for note in run.notes:
        console.print(Text(note, style="yellow"))
    for table in tables:
        print_table(table, console)
    _print_audits(run, console)
    topic = ""
    for said in statements:
        if said.topic != topic:
            console.print(Text(f"\n{said.topic}", style="bold"))
            topic = said.topic
        console.print(Text(f"{'!' if said.alarm else ' '} {said.text}"))
    found = [pair for pair in pairs(run) if pair.results]
    ends = [("What it means", meaning(run, found)), ("What it does not mean", limits(run, found))] if found else []
    for topic, sentences in (*answer(found), *(each for each in ends if each[1])):
        console.print(Text(f"\n{topic}", style="bold"))
        for sentence in sentences:
            console.print(Text(f"  {sentence}"))


def _tables(run: Run) -> list[Table | Grid]:
    """The tables of the paper's experiments or of named attacks; none where the folder holds an audit alone."""
    return [*([] if run.is_own else paper_tables(run)), *summaries(run)] if run.rows else []


def _statements(run: Run) -> Sequence[Statement]:
    """What the paper's tables show."""
    return () if run.is_own else read(run)


def _print_audits(run: Run, console: Console) -> None:
    for section in sections(run.audits):
        console.print(Text(f"\nAudit of {section.title}", style="bold"))
        for sentence in section.preflight:
            console.print(Text(f"! {sentence}", style="yellow"))
        for grid in (*section.attacks, section.checks, *([section.results] if section.results else [])):
            print_table(grid, console)
        console.print()
        for sentence in section.text or ("The audit is not finished: there is no verdict yet.",):
            console.print(Text(sentence))
    if len(run.audits) > 1:
        print_table(comparison(run.audits), console)
