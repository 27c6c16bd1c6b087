"""The two checks of the attacks as tables with a verdict: each gradient route against both, and the search of Table 3
against a better search and against chance."""

from collections.abc import Iterator
from typing import Any

from shconv.report.computed.compare import compare
from shconv.report.computed.worst_case import OBJECTIVES
from shconv.report.folder.run import Run
from shconv.report.numbers import percent
from shconv.report.output.cells import Grid, GridColumn
from shconv.report.paper.results import OBJECTIVE_NAMES, SEARCHES, blocked, by_route, searched
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
    words = {"lower": MASKED, "higher": NO_ALARM, "none": NO_ALARM, "mixed": DISAGREE}
    for model in filter(is_shc, run.models):
        for objective in OBJECTIVES:
            cells = {route: by_route(run, model, objective, route) for route in ROUTES}
            if not any(cell.scores for cell in cells.values()):
                continue
            seen = blocked(run, model, objective)
            yield {
                "network": network_name(model),
                "objective": OBJECTIVE_NAMES[objective],
                **{route: cell.accuracy for route, cell in cells.items()},
                "twin": by_route(run, twin(model), objective, "both").accuracy,
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
    words = {"higher": "weaker", "lower": "stronger", "none": "no significant difference", "mixed": DISAGREE}
    for model in run.models:
        ends = {attack: searched(run, model, attack)[5] for attack in SEARCHES}
        if not any(cell.scores for cell in ends.values()):
            continue
        seen = {other: compare(ends[f"locsearch_{other}"], ends["locsearch"]) for other in ("cyclic", "random")}
        yield {
            "network": network_name(model),
            **{attack: cell.accuracy for attack, cell in ends.items()},
            **{other: words[each.verdict] if each else None for other, each in seen.items()},
        }
