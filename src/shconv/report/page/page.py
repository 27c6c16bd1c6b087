"""One HTML page of a run: self-contained, readable on a telephone, on a desk and on paper, in light and dark.
This file finds what the template prints; the template lays it out and escapes every word."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from shconv.errors import few
from shconv.report.audit.sections import answer as audit_answer
from shconv.report.audit.sections import comparison, sections
from shconv.report.computed.compare import VERDICTS
from shconv.report.folder.audits import ALARM
from shconv.report.folder.run import Run
from shconv.report.numbers import between, joined
from shconv.report.output.canvas import Drawn
from shconv.report.output.cells import Grid, GridColumn, Line, Table
from shconv.report.paper.answer import PAPERS, answer, limits, meaning
from shconv.report.paper.beside import CLEAN, WORST, pairs
from shconv.report.paper.statement import Statement
from shconv.report.published import network_name

CLASSES_SHOWN = 20
CHARTED = (CLEAN, PAPERS, WORST)
IN_TABLES = (
    "Gradient routes (Table 4)",
    "Worst case per image",
    "Gradient attacks (Table 2)",
    "LocSearchAdv (Table 3)",
    "How strong the search is",
    "Clean images and noise (Table 1)",
)  # topics whose verdicts the tables show
LAYOUT: Any = {"trim_blocks": True, "lstrip_blocks": True, "extensions": ["jinja2.ext.do"]}
# the lines of a network in the paper's tables, and their look
LINES = {"paper": "paper", "ours": "ours", "difference": "difference"}
LINES |= dict.fromkeys(("± seeds", "95 %", "RCD median", "images", "attacks"), "small")


def render(
    run: Run,
    tables: Sequence[Table | Grid],
    statements: Sequence[Statement],
    figures: Sequence[Drawn],
    audit_figures: Sequence[Sequence[Drawn]] = (),
    compared: Drawn | None = None,
    kinds: Mapping[str, Sequence[str]] = MappingProxyType({"figures": (), "tables": ()}),
) -> str:
    """The page as text; ``audit_figures`` are those of each of ``run.audits``, ``compared`` shows all of them.

    kinds: the formats of the files that lie beside the page in ``figures/`` and ``tables/``, to be linked.
    """
    room = files(__package__)
    script = room.joinpath("page.js").read_text(encoding="utf-8")
    found = [pair for pair in pairs(run) if pair.results]
    return _template().render(
        run=run,
        css=Markup(room.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        kinds=kinds,
        lead=_lead(run),
        answer=answer(found),
        meaning=meaning(run, found),
        limits=limits(run, found),
        charts=[(pair, [each for group in CHARTED for each in pair.of(group)]) for pair in found],
        alarms=[said for said in statements if said.alarm and said.topic not in IN_TABLES],
        facts=list(_facts(run)),
        reading=[(topic, list(said)) for topic, said in groupby(statements, key=lambda each: each.topic)],
        tables=[table for table in tables if isinstance(table, Table)],
        grids={grid.name: grid for grid in tables if isinstance(grid, Grid)},
        figures=figures,
        comparison=comparison(run.audits) if len(run.audits) > 1 else None,
        compared=compared,
        audit_answer=audit_answer(run.audits),
        audits=list(zip(sections(run.audits), audit_figures, strict=True)),
        configuration=list(_flat(run.config)),
        environment=list(_flat(run.environment)),
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, **LAYOUT)
    environment.filters["address"] = lambda name: quote(name, errors="surrogateescape")  # names may be no text
    environment.filters["source"] = _source
    environment.filters["whole"] = lambda text: text.replace("L∞ ", "L∞\u00a0")  # a budget stays on one line
    environment.globals |= {"zip": zip, "lines": _lines, "published": _published, "ALARM": ALARM, "VERDICTS": VERDICTS}
    return environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))


def _lead(run: Run) -> str:
    """What was run, in one line."""
    if not run.rows:
        names = joined(dict.fromkeys(audit.name for audit in run.audits))
        return f"What was tried to break {names} on {run.data.title}, and what is left."
    said = [", ".join(network_name(model) for model in run.models) + f" on {run.data.title}"]
    measured = {"table1": "clean images", "table2": "images attacked", "table3": "images for the pixel search"}
    for experiment, words in (measured | {"evaluate": "images attacked"}).items():
        if counts := [row.n for row in run.rows if row.experiment == experiment and row.n]:
            said.append(f"{between(counts)} {words}")
    return f"{'; '.join(said)}; seed{'s' if len(run.seeds) > 1 else ''} {', '.join(map(str, run.seeds))}."


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """What was run and where, as (word, text)."""
    data = run.data
    yield "Data", f"{data.title}. {data.note}".strip()
    if data.classes:
        yield "Classes", f"{len(data.classes):,}: {few(data.classes, CLASSES_SHOWN)}"
    sizes = [
        f"{data.train_images:,} to train on" if data.train_images else "",  # an audit reads none
        f"{data.test_images:,} to test on" if data.test_images is not None else "",
        f"{data.image_size} pixels a side" if data.image_size is not None else "",
    ]
    if any(sizes):
        yield "Images", ", ".join(size for size in sizes if size)
    if run.rows:
        yield "Networks", ", ".join(network_name(model) for model in run.models)
        yield "Seeds", ", ".join(map(str, run.seeds))
        images = [row.n for row in run.rows if row.n]
        yield "Rows", f"{len(run.rows):,}" + (f", over {between(images)} images each" if images else "")
    if run.audits:
        yield "Audited", "; ".join(dict.fromkeys(f"{audit.name}, seed {audit.seed}" for audit in run.audits))
        yield "Attacks of the audit", f"{sum(len(audit.tried) for audit in run.audits):,}"
    for key in ("started", "device", "gpu", "processor", "platform"):
        if run.environment.get(key):
            yield "GPU" if key == "gpu" else key.capitalize(), str(run.environment[key])
    versions = [f"{key} {run.environment[key]}" for key in ("shconv", "torch", "python") if run.environment.get(key)]
    if versions:
        yield "Versions", ", ".join(versions)


def _published(table: Table) -> Grid | None:
    """The paper's numbers of the networks that were run, where they are about other data than ours."""
    lines = [line for line in table.lines if any(cell.paper for cell in line.cells)]
    if table.comparable or not lines:
        return None
    titles = [column.published or column.title for column in table.columns]
    columns = [GridColumn(title, title, lambda parts: " / ".join(filter(None, parts))) for title in titles]
    numbers = [[cell.said["paper"] if cell.paper else None for cell in line.cells] for line in lines]
    return Grid(
        name=f"{table.name}-paper",
        title="The paper's numbers",
        caption="Accuracy in per cent / mean RCD on ImageNet (ILSVRC-2012, 1000 classes); not comparable with ours.",
        columns=(GridColumn("network", "Network"), *columns),
        records=tuple(
            {"network": line.name, **dict(zip(titles, row, strict=True))}
            for line, row in zip(lines, numbers, strict=True)
        ),
    ).filled()


def _lines(line: Line, comparable: bool) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """(look, word, cells) of what a network's cells say, a cell as its accuracy and its RCD part."""
    hidden = set() if comparable else {"paper", "difference"}
    hidden |= {"images"} if line.shared_images else set()
    for word, look in LINES.items():
        cells = [cell.said[word] for cell in line.cells]
        if word == "RCD median":
            floored = [cell.said["floored"][1] for cell in line.cells]
            more = [f" ({text} floored)" if text not in ("", "0") else "" for text in floored]
            cells = [(accuracy, rcd + each) for (accuracy, rcd), each in zip(cells, more, strict=True)]
        if word not in hidden and any(map(any, cells)):
            yield look, "accuracy" if word == "ours" and not comparable else word, cells


def _source(figure: Drawn) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(figure.saved('svg')).decode('ascii')}"


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested options as (dotted name, value)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
