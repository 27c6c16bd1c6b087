"""The two checks of the attacks as tables with a verdict: each gradient route against both, and the search of Table 3
against a better search and against chance."""

from collections.abc import Iterator, Mapping
from typing import Any

from shconv.report.computed.compare import Comparison, compare, measured
from shconv.report.computed.worst_case import OBJECTIVES
from shconv.report.folder.rows import Row
from shconv.report.folder.run import Run
from shconv.report.output.cells import Grid, GridColumn, mean, percent
from shconv.report.paper.tables import OBJECTIVE_NAMES, SEARCHES, route_rows, search_rows
from shconv.report.published import is_shc, network_name, twin

MASKED, NO_ALARM, DISAGREE = "gradient masking", "no alarm", "the seeds disagree"
ROUTES = ("both", "convolution", "hypernetwork", "strict")


def routes(run: Run) -> Grid:
    """A record for each SHC network and objective of Table 4."""
    return Grid(
        name="route_verdicts",
        title="Gradient routes under RAND+FGSM",
        caption="Accuracy in per cent of the whole network on examples made with a part of its gradient. Gradient "
        "masking: the attack is stronger without the hypernetwork route. No alarm is no evidence of robustness.",
        columns=(
            GridColumn("network", "Network"),
            GridColumn("objective", "Objective"),
            *(GridColumn(route, f"{route.capitalize()}, %", percent) for route in ROUTES),
            GridColumn("twin", "Twin, %", percent),
            GridColumn("verdict", "Verdict"),
        ),
        records=tuple(_routes(run)),
    )


def _routes(run: Run) -> Iterator[dict[str, Any]]:
    for model in filter(is_shc, run.models):
        for objective in OBJECTIVES:
            rows = {route: route_rows(run, model, "rand_fgsm", objective, route) for route in ROUTES}
            if not any(rows.values()):
                continue
            seen = compare(measured(run, rows["both"]), measured(run, rows["convolution"]))
            words = {"lower": MASKED, "higher": NO_ALARM, "none": NO_ALARM, "mixed": DISAGREE}
            yield {
                "network": network_name(model),
                "objective": OBJECTIVE_NAMES[objective],
                **{route: _accuracy(found) for route, found in rows.items()},
                "twin": _accuracy(route_rows(run, twin(model), "rand_fgsm", objective, "both")),
                "verdict": words[seen.verdict] if seen else None,
            }


def searches(run: Run) -> Grid:
    """A record for each network of Table 3: accuracy after the last round."""
    return Grid(
        name="search_verdicts",
        title="How strong the search of Table 3 is",
        caption="Accuracy in per cent after the last round. A default search that is weaker than the cyclic probe "
        "understates the attack; one that is no better than random pixels says little about robustness.",
        columns=(
            GridColumn("network", "Network"),
            *(GridColumn(attack, f"{words}, %", percent) for attack, words in SEARCHES.items()),
            GridColumn("cyclic", "Default against cyclic"),
            GridColumn("random", "Default against random"),
        ),
        records=tuple(_searches(run)),
    )


def _searches(run: Run) -> Iterator[dict[str, Any]]:
    for model in run.models:
        ends = {attack: search_rows(run, model, attack).get(5, {}) for attack in SEARCHES}
        if not any(ends.values()):
            continue
        default = measured(run, ends["locsearch"])
        yield {
            "network": network_name(model),
            **{attack: _accuracy(found) for attack, found in ends.items()},
            "cyclic": _strength(compare(measured(run, ends["locsearch_cyclic"]), default)),
            "random": _strength(compare(measured(run, ends["locsearch_random"]), default)),
        }


def _strength(seen: Comparison | None) -> str | None:
    words = {"higher": "weaker", "lower": "stronger", "none": "no significant difference", "mixed": DISAGREE}
    return words[seen.verdict] if seen else None


def _accuracy(rows: Mapping[int, Row]) -> float | None:
    return mean(row.accuracy for row in rows.values())
