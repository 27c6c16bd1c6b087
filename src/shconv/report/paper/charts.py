"""Charts that are drawn from a run's rows and logs alone: accuracy by gradient route, and training curves."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from shconv.report.computed.worst_case import OBJECTIVES, ROUTES
from shconv.report.folder.fields import measured
from shconv.report.folder.rows import Outcomes
from shconv.report.folder.run import Run
from shconv.report.output.canvas import (
    GREY,
    ROUTE_LOOKS,
    Drawn,
    Look,
    Shares,
    bars,
    canvas,
    legend,
    line_style,
    on_axis,
)
from shconv.report.output.gradient_maps import ROUTES as ROUTE_NAMES
from shconv.report.paper.results import OBJECTIVE_NAMES, by_route
from shconv.report.published import is_shc, network_name, twin

# (words, the twin's rows or its own, gradient route, look)
BARS = (
    ("twin", True, "both", (GREY, "")),
    *((f"SHC, {words}", False, route, ROUTE_LOOKS[route]) for route, words in ROUTE_NAMES.items()),
)
LETTERS = 34  # of names below one of two panels


def draw_routes(run: Run) -> Drawn:
    """Accuracy under RAND+FGSM by gradient route, the twin beside it."""
    title = "Accuracy under RAND+FGSM by gradient route"
    every = [(objective, route) for objective in OBJECTIVES for route in ROUTES]
    models = [name for name in filter(is_shc, run.models) if any(by_route(run, name, *each).scores for each in every)]
    if not models:
        return Drawn("routes", title, "")
    with canvas(2.9 + on_axis([network_name(model) for model in models], LETTERS)[1]) as figure:
        panels: tuple[Axes, ...] = tuple(figure.subplots(1, 2, sharey=True))
        for axes, objective in zip(panels, OBJECTIVES, strict=True):
            _bars(axes, run, models, objective)
        panels[0].set_ylabel("accuracy, %")
        legend(figure, panels[0])
    caption = (
        "The whole network's accuracy on examples made with the gradient of one route. Where the convolution route is "
        "below both routes, the hypernetwork route masks the gradient. Whiskers: 95 % intervals; of several seeds, "
        "from the lowest to the highest end of the seeds' own. No bar: not run."
    )
    return Drawn("routes", title, caption, figure)


def _bars(axes: Axes, run: Run, models: list[str], objective: str) -> None:
    series: dict[str, tuple[Look, Shares]] = {}
    for words, of_twin, route, look in BARS:
        shares: Shares = {}
        for place, model in enumerate(models):
            cell = by_route(run, twin(model) if of_twin else model, objective, route)
            if cell.accuracy is not None and cell.interval is not None:
                shares[place] = cell.accuracy, cell.interval
        series[words] = look, shares
    bars(axes, [network_name(model) for model in models], series, LETTERS)
    axes.set_xlim(-0.6, len(models) - 0.4)
    axes.set_title(OBJECTIVE_NAMES[objective])


def draw_distances(run: Run) -> tuple[Drawn, ...]:
    """Accuracy over the distance that attacks without a budget needed; nothing where none of them was run."""
    rows = [row for row in run.rows if row.experiment == "table2" and "median_l2" in row.extra]
    found = [(row, run.outcomes[row.id]) for row in rows if row.id in run.outcomes]
    found = [(row, each) for row, each in found if each.l2 is not None]
    names = list(dict.fromkeys(row.attack for row, _ in found))
    if not names:
        return ()
    models = tuple(dict.fromkeys(row.model for row, _ in found))
    lines = -(-len(names) // 2)
    with canvas(0.6 + 2.2 * lines) as figure:
        grid = figure.subplots(lines, 2, sharey=True, squeeze=False)
        for axes, name in zip_longest(grid.flat, names):
            if name is None:
                axes.set_axis_off()
                continue
            for row, outcomes in found:
                if row.attack == name:
                    style = line_style(row.model, models)
                    axes.step(*falling(outcomes), where="post", label=network_name(row.model), **style)
            axes.set_title(name)
            axes.set_ylim(-3, 103)
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy, %")
        figure.supxlabel("L2 distance", fontsize="medium")
        legend(figure, grid[0, 0])
    caption = (
        "Attacks that look for the nearest image that fools, on the images of Table 2: the share that is still right "
        "when images may be moved so far. An attack finds an upper bound. One line for each seed."
    )
    return (Drawn("distances", "Accuracy over distance", caption, figure),)


def falling(outcomes: Outcomes) -> tuple[list[float], list[float]]:
    """Distances, from 0, and the accuracy in per cent from each on: it falls where an image was fooled."""
    assert outcomes.l2 is not None
    falls = np.sort(outcomes.l2[~outcomes.correct])
    shares = 100 * (1 - np.arange(1, len(falls) + 1) / len(outcomes.index))
    return [0.0, *falls.tolist()], [100.0, *shares.tolist()]


def draw_training(run: Run) -> Drawn:
    """Test accuracy and loss by epoch."""
    title = "Training curves"
    logs = [each for each in run.trained if any(_points(each.log, key)[0] for key in ("test_accuracy", "loss"))]
    if not logs:
        return Drawn("training", title, "")
    models = tuple(dict.fromkeys(each.model for each in logs))
    with canvas(2.9) as figure:
        left, right = figure.subplots(1, 2)
        for axes, key, factor, words in (
            (left, "test_accuracy", 100, "test accuracy, %"),
            (right, "loss", 1, "training loss"),
        ):
            for each in logs:
                epochs, values = _points(each.log, key)
                style = {"marker": "o" if len(epochs) < 2 else None, "markersize": 3, **line_style(each.model, models)}
                axes.plot(epochs, factor * np.array(values), label=network_name(each.model), **style)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("epoch")
            axes.set_title(words)
        legend(figure, left)
    caption = "One line for each seed. SHC networks are solid, their twins dashed in the same colour."
    return Drawn("training", title, caption, figure)


def _points(log: tuple[Mapping[str, Any], ...], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a log, where it has the value."""
    known = [
        (float(record.get("epoch", place)), value)
        for place, record in enumerate(log)
        if (value := measured(record, key)) is not None
    ]
    return [epoch for epoch, _ in known], [value for _, value in known]
