"""SHC minus its vanilla twin, in points: every column of Tables 1 and 2 and the worst case, each with its interval."""

from collections.abc import Iterator
from typing import Any

from shconv.report.computed.compare import VERDICTS, Comparison, compare, measured, measured_worst
from shconv.report.computed.worst_case import OBJECTIVES, THREATS, over_same_attacks
from shconv.report.folder.run import Run
from shconv.report.output.cells import Grid, GridColumn, percent, signed
from shconv.report.paper.tables import ATTACKS, OBJECTIVE_NAMES
from shconv.report.published import SIGMAS, network_name


def twins(run: Run) -> Grid:
    """A record for each pair and column that both networks have."""
    return Grid(
        name="twins",
        title="SHC minus twin",
        caption="Accuracy of each SHC network minus that of its vanilla twin, in points. For several seeds the "
        "interval is for the mean over the seeds (Student's t); for one seed it is from the images of both networks. "
        "One of twenty such intervals excludes zero by chance. The verdict is by image (McNemar's exact test, 5 %) if "
        "outcomes are stored, and all seeds have to agree. Attacks follow the gradient of both routes. Worst cases "
        "are over the same attacks.",
        columns=(
            GridColumn("network", "Network"),
            GridColumn("column", "Column"),
            GridColumn("vanilla", "Twin, %", percent),
            GridColumn("shc", "SHC, %", percent),
            GridColumn("points", "Difference", lambda value: signed(value, 1)),
            GridColumn("interval", "95 %", lambda ends: f"{signed(ends[0], 1)} to {signed(ends[1], 1)}"),
            GridColumn("seeds", "Seeds"),
            GridColumn("verdict", "Verdict"),
        ),
        records=tuple(
            _record(shc, column, against)
            for vanilla, shc in run.pairs
            for column, against in columns(run, vanilla, shc)
        ),
    )


def columns(run: Run, vanilla: str, shc: str) -> Iterator[tuple[str, Comparison]]:
    """What both networks of a pair have: clean images, noise, each attack of Table 2, the worst cases."""

    def found(title: str, *of: Any, **where: Any) -> Iterator[tuple[str, Comparison]]:
        first, second = (measured(run, run.find(of[0], model, *of[1:], **where)) for model in (vanilla, shc))
        if against := compare(first, second):
            yield title, against

    yield from found("clean", "table1", "clean")
    for sigma in SIGMAS:
        yield from found(f"noise, σ {sigma:g}", "table1", "gaussian", sigma=sigma)
    for objective in OBJECTIVES:
        for attack, name in ATTACKS.items():
            yield from found(f"{name}, {OBJECTIVE_NAMES[objective]}", "table2", attack, objective, "both")
    for threat in THREATS:
        if against := compare(*map(measured_worst, over_same_attacks(run, vanilla, shc, threat))):
            yield f"worst case, {threat.name}", against


def _record(shc: str, column: str, against: Comparison) -> dict[str, Any]:
    return {
        "network": network_name(shc),
        "column": column,
        "vanilla": against.first,
        "shc": against.second,
        "points": against.points,
        "interval": against.interval,
        "seeds": len(against.verdicts),
        "verdict": VERDICTS[against.verdict],
    }
