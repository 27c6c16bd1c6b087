"""A run folder as tables, figures and one HTML page, drawn without a network: ``rows.jsonl``, ``outcomes/`` and
``arrays/`` are all it reads."""

from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.text import Text

from shconv.files import replace_file, replace_text
from shconv.report.audit.sections import comparison, sections
from shconv.report.audit.tables import audit_tables
from shconv.report.folder.run import Run, load_run
from shconv.report.output.cells import Grid, Table
from shconv.report.output.render import print_table, to_csv, to_markdown
from shconv.report.paper.reading import Statement, read
from shconv.report.paper.summaries import summaries
from shconv.report.paper.tables import paper_tables

__all__ = ["Run", "Statement", "load_run", "print_tables", "read", "write"]


def write(run_folder: Path | str) -> Path:
    """Write ``tables/*.csv``, ``tables/*.md``, ``figures/*.png`` and ``report.html`` into a run folder.

    Returns
    -------
    Path
        Of report.html, which is written last; each file appears whole or not at all.

    Raises
    ------
    InputError
        Where the folder is missing, holds no row yet, or has a damaged file or line; the message names it.
    """
    from shconv.report.audit.figures import draw_audit, draw_comparison
    from shconv.report.page.page import render
    from shconv.report.paper.figures import draw  # matplotlib takes a second to import

    run = load_run(run_folder)
    figures = draw(run) if run.rows else ()
    of_audits = [draw_audit(run, audit) for audit in run.audits]
    compared = draw_comparison(run.audits)
    papers = paper_tables(run) if run.rows else ()
    page = render(run, papers, summaries(run), read(run), figures, of_audits, compared)
    content: dict[str, bytes | str] = {}
    for table in _tables(run):
        content[f"tables/{table.name}.csv"] = to_csv(table, run.data.name)
        content[f"tables/{table.name}.md"] = to_markdown(table, run.data.warning)
    for table in audit_tables(run.audits):  # no number of the paper stands beside these: no warning
        content[f"tables/{table.name}.csv"] = to_csv(table, run.data.name)
        content[f"tables/{table.name}.md"] = to_markdown(table, "")
    for figure in chain(figures, [compared], *of_audits):
        if figure.png is not None:
            content[f"figures/{figure.name}.png"] = figure.png
    content["report.html"] = page
    for name, text in content.items():
        (run.folder / name).parent.mkdir(exist_ok=True)
        replace_text(run.folder / name, text) if isinstance(text, str) else replace_file(run.folder / name, text)
    return run.folder / "report.html"


def print_tables(run_folder: Path | str, console: Console) -> None:
    """Print the tables, then what they show, on a terminal. Raises InputError as ``write`` does."""
    run = load_run(run_folder)
    for note in (run.data.warning if run.rows else "", *run.notes):
        if note:
            console.print(Text(note, style="yellow"))
    for table in _tables(run):
        print_table(table, console)
    _print_audits(run, console)
    topic = ""
    for said in read(run):
        if said.topic != topic:
            console.print(Text(f"\n{said.topic}", style="bold"))
            topic = said.topic
        console.print(Text(f"{'!' if said.alarm else ' '} {said.text}"))


def _tables(run: Run) -> list[Table | Grid]:
    """The tables of the paper's experiments; none where the folder holds an audit alone."""
    return [*paper_tables(run), *summaries(run)] if run.rows else []


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
