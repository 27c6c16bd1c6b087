"""SHC minus its vanilla twin, in points: every column of Tables 1 and 2 and the worst case, each with its interval."""

from shconv.report.computed.compare import VERDICTS
from shconv.report.folder.run import Run
from shconv.report.numbers import percent, signed
from shconv.report.output.cells import Grid, GridColumn
from shconv.report.paper.beside import pairs


def twins(run: Run) -> Grid:
    """A record for each pair and column that both networks have."""
    return Grid.over(
        [(pair.shc, each) for pair in pairs(run) for each in pair.results],
        name="twins",
        title="SHC minus twin",
        caption="Accuracy of each SHC network minus that of its vanilla twin, in points. For several seeds the "
        "interval is for the mean over the seeds (Student's t); for one seed it is from the images of both networks. "
        "One of twenty such intervals excludes zero by chance. The verdict is by image (McNemar's exact test, 5 %) if "
        "outcomes are stored, and all seeds have to agree. Attacks follow the gradient of both routes. Worst cases "
        "are over the same attacks.",
        columns=(
            GridColumn("network", "Network", of=lambda each: each[0]),
            GridColumn("column", "Column", of=lambda each: each[1].title),
            GridColumn("vanilla", "Twin, %", percent, of=lambda each: each[1].seen.first),
            GridColumn("shc", "SHC, %", percent, of=lambda each: each[1].seen.second),
            GridColumn("points", "Difference", lambda value: signed(value, 1), of=lambda each: each[1].seen.points),
            GridColumn(
                "interval",
                "95 %",
                lambda ends: f"{signed(ends[0], 1)} to {signed(ends[1], 1)}",
                of=lambda each: each[1].seen.interval,
            ),
            GridColumn("seeds", "Seeds", of=lambda each: len(each[1].seen.verdicts)),
            GridColumn("verdict", "Verdict", of=lambda each: VERDICTS[each[1].seen.verdict]),
        ),
    )
