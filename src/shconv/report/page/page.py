"""One HTML page of a run: self-contained, readable on a telephone, on a desk and on paper, in light and dark.
This file turns tables and figures into what the template prints; the template escapes every word."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from shconv.report.audit.sections import Section, comparison, sections
from shconv.report.computed.compare import VERDICTS
from shconv.report.folder.audits import ALARM
from shconv.report.folder.run import Run
from shconv.report.output.canvas import Drawn
from shconv.report.output.cells import (
    Cell,
    Grid,
    Line,
    Table,
    accuracy_sd_text,
    accuracy_text,
    attacks_text,
    between,
    count,
    difference_text,
    images_text,
    paper_text,
    rcd_sd_text,
    rcd_text,
    shared_images,
    signed,
    span,
)
from shconv.report.paper.answer import answer, limits, meaning, pairs
from shconv.report.paper.reading import Statement
from shconv.report.paper.tables import OWN_ROUTES, WORST_CASE
from shconv.report.published import network_name

CLASSES_SHOWN = 20
GLOSSARY = (
    ("Twin", "The ordinary network: the same layers and training, without statistical hyper-convolution (SHC)."),
    (
        "Route",
        "A path of the gradient in an SHC layer: through the convolution, or through the hypernetwork that makes "
        "the filter map. Attacks follow both by default. Strict: only paths through a filter map.",
    ),
    (
        "RCD",
        "Relative Confidence Diminution: how far an attack lowers ln(p_y / s). p_y is the probability of the true "
        "class, s the standard deviation of the other classes' probabilities. Smaller is better. It measures "
        "confidence, not accuracy.",
    ),
    ("Worst case", "An image counts as correct only if no attack within the budget fools the network."),
    (
        "Objective",
        "What the attack's loss asks for. Least-likely: the class that the network thinks least likely. "
        "Untargeted: any wrong class.",
    ),
    (
        "95 %",
        "An interval that contains the true value in 95 of 100 repetitions. A verdict needs p < 0.05 on the images.",
    ),
)
IN_TABLES = (
    "Gradient routes (Table 4)",
    "Worst case per image",
    "Gradient attacks (Table 2)",
    "LocSearchAdv (Table 3)",
    "How strong the search is",
    "Clean images and noise (Table 1)",
)  # topics whose verdicts the tables show


def render(
    run: Run,
    tables: Sequence[Table],
    grids: Sequence[Grid],
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
    found = pairs(run)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["address"] = lambda name: quote(name, errors="surrogateescape")  # names may be no text
    template = environment.from_string(room.joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        run=run,
        css=Markup(room.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        kinds=kinds,
        lead=_lead(run),
        pairs_found=found,
        answer=answer(found),
        meaning=meaning(run, found),
        limits=limits(run, found),
        verdicts=VERDICTS,
        any_own=any(line.own is not None and line.own < line.seen.second for each in found for line in each.lines),
        glossary=GLOSSARY,
        alarms=[said for said in statements if said.alarm and said.topic not in IN_TABLES],
        facts=list(_facts(run)),
        reading=[(topic, list(said)) for topic, said in groupby(statements, key=lambda each: each.topic)],
        tables=[_wide(table) | {"published": _published(table)} for table in tables],
        grids={grid.name: _plain(grid, grid.name) for grid in grids},
        figures=[_figure(figure) for figure in figures if figure.figure is not None],
        missing=[figure.title for figure in figures if figure.figure is None],
        comparison=_plain(comparison(run.audits)) if len(run.audits) > 1 else None,
        compared=_figure(compared) if compared is not None and compared.figure is not None else None,
        audits=[_audit(*each) for each in zip(sections(run.audits), audit_figures, strict=True)],
        configuration=list(_flat(run.config)),
        environment=list(_flat(run.environment)),
    )


def _lead(run: Run) -> str:
    """What was run, in one line."""
    if not run.rows:
        names = " and ".join(dict.fromkeys(audit.name for audit in run.audits))
        return f"What was tried to break {names} on {run.data.title}, and what is left."
    said = [", ".join(network_name(model) for model in run.models) + f" on {run.data.title}"]
    for experiment, words in (("table1", "clean images"), ("table2", "images attacked"), ("table3", "images searched")):
        if counts := [row.n for row in run.rows if row.experiment == experiment and row.n]:
            said.append(f"{between(counts)} {words}")
    seeds = sorted({row.seed for row in run.rows})
    return f"{'; '.join(said)}; seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}."


def _published(table: Table) -> dict[str, Any] | None:
    """The paper's numbers of the networks that were run, where they are about other data than ours."""
    lines = [line for line in table.lines if any(cell.paper for cell in line.cells)]
    if table.comparable or not lines:
        return None
    places = [place for place in range(len(table.columns)) if any(line.cells[place].paper for line in lines)]
    return {
        "name": f"{table.name}-paper",
        "file": "",
        "title": "The paper's numbers",
        "caption": "Accuracy in per cent / mean RCD on ImageNet (ILSVRC-2012, 1000 classes); not comparable with ours.",
        "notes": (),
        "header": [("Network", False), *((table.columns[place].title, True) for place in places)],
        "rows": [
            (False, [(line.name, False), *((paper_text(line.cells[place]), True) for place in places)])
            for line in lines
        ],
    }


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """What was run and where, as (word, text)."""
    data = run.data
    yield "Data", f"{data.title}. {data.note}".strip()
    if data.classes:
        more = len(data.classes) - CLASSES_SHOWN
        shown = ", ".join(data.classes[:CLASSES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
        yield "Classes", f"{len(data.classes):,}: {shown}"
    sizes = [
        f"{data.train_images:,} to train on" if data.train_images else "",  # an audit reads none
        f"{data.test_images:,} to test on" if data.test_images is not None else "",
        f"{data.image_size} pixels a side" if data.image_size is not None else "",
    ]
    if any(sizes):
        yield "Images", ", ".join(size for size in sizes if size)
    if run.rows:
        yield "Networks", ", ".join(network_name(model) for model in run.models)
        yield "Seeds", ", ".join(map(str, sorted({row.seed for row in run.rows})))
        images = [row.n for row in run.rows if row.n]
        yield "Rows", f"{len(run.rows):,}" + (f", over {between(images)} images each" if images else "")
    if run.audits:
        yield "Audited", "; ".join(dict.fromkeys(f"{audit.name}, seed {audit.seed}" for audit in run.audits))
        yield "Attacks of the audit", f"{sum(len(audit.tried) for audit in run.audits):,}"
    for key in ("started", "device", "processor", "platform"):
        if run.environment.get(key):
            yield key.capitalize(), str(run.environment[key])
    versions = [f"{key} {run.environment[key]}" for key in ("shconv", "torch", "python") if run.environment.get(key)]
    if versions:
        yield "Versions", ", ".join(versions)


def _wide(table: Table) -> dict[str, Any]:
    """The paper's layout: a column for each attack; for each network the paper's line, ours and what goes with it."""
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "notes": table.notes,
        "groups": [(group, len(list(same))) for group, same in groupby(table.columns, key=lambda column: column.group)],
        "labels": [column.label for column in table.columns] if any(column.label for column in table.columns) else [],
        "classes": _classes(table),
        "networks": [
            _network(line, before, table.comparable) for before, line in pairwise([None, *table.lines]) if line
        ],
    }


def _network(line: Line, before: Line | None, comparable: bool) -> dict[str, Any]:
    """A network's block of lines; ``more`` where it is another variant of the network above."""
    return {
        "name": line.name,
        "variant": line.variant,
        "more": before is not None and before.name == line.name,
        "images": shared_images(line),
        "lines": list(_lines(line, comparable)),
    }


def _classes(table: Table) -> list[str]:
    """A column's look: does it begin a group, is it a worst case."""
    groups = [None, *(column.group for column in table.columns)]
    return [
        " ".join(
            word for word, holds in (("start", after != before), ("worst", after in (WORST_CASE, OWN_ROUTES))) if holds
        )
        for before, after in pairwise(groups)
    ]


def _lines(line: Line, comparable: bool) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """(kind, word, cells), a cell as its accuracy and its RCD part."""
    if comparable and any(cell.paper for cell in line.cells):
        yield "paper", "paper", [_parts(paper_text(cell)) for cell in line.cells]
    yield "ours", "ours" if comparable else "accuracy", [(accuracy_text(cell), rcd_text(cell)) for cell in line.cells]
    ran = [cell for cell in line.cells if cell.scores]
    if not ran:
        return
    if comparable and any(cell.difference is not None for cell in ran):
        yield "difference", "difference", [_parts(difference_text(cell) if cell.scores else "") for cell in line.cells]
    if any(cell.accuracy_sd is not None for cell in ran):
        yield "small", "± seeds", [(accuracy_sd_text(cell), rcd_sd_text(cell)) for cell in line.cells]
    yield "small", "95 %", [(span(cell.interval) if cell.interval else "", "") for cell in line.cells]
    if any(cell.rcd_median is not None for cell in ran):
        yield "small", "RCD median", [("", _median(cell)) for cell in line.cells]
    if not shared_images(line):
        yield "small", "images", [(images_text(cell) if cell.scores else "", "") for cell in line.cells]
    if any(attacks_text(cell) for cell in ran):
        yield "small", "attacks", [(attacks_text(cell), "") for cell in line.cells]


def _parts(text: str) -> tuple[str, str]:
    accuracy, _, rcd = text.partition(" / ")
    return accuracy, rcd


def _median(cell: Cell) -> str:
    if cell.rcd_median is None:
        return ""
    floored = f" ({count(cell.rcd_floored)} floored)" if cell.rcd_floored else ""
    return signed(cell.rcd_median).removeprefix("+") + floored


def _plain(grid: Grid, file: str = "") -> dict[str, Any]:
    """``file``: the name of its files in tables/."""
    numeric = [
        all(isinstance(record[column.key], int | float | tuple | None) for record in grid.records)
        for column in grid.columns
    ]
    return {
        "name": grid.name,
        "file": file,
        "title": grid.title,
        "caption": grid.caption,
        "notes": grid.notes,
        "header": list(zip([column.title for column in grid.columns], numeric, strict=True)),
        "rows": [
            (record.get("result") == ALARM, list(zip(row, numeric, strict=True)))
            for record, row in zip(grid.records, grid.shown(), strict=True)
        ],
    }


def _audit(section: Section, figures: Sequence[Drawn]) -> dict[str, Any]:
    return {
        "title": section.title,
        "anchor": section.anchor,
        "results": _plain(section.results) if section.results else None,
        "text": section.text,
        "preflight": section.preflight,
        "checks": _plain(section.checks),
        "attacks": [_plain(grid) for grid in section.attacks],
        "figures": [_figure(figure) for figure in figures if figure.figure is not None],
        "missing": [figure.title for figure in figures if figure.figure is None],
    }


def _figure(figure: Drawn) -> dict[str, str]:
    source = f"data:image/svg+xml;base64,{base64.b64encode(figure.saved('svg')).decode('ascii')}"
    return {"name": figure.name, "title": figure.title, "caption": figure.caption, "source": source}


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested options as (dotted name, value)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
