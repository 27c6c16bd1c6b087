"""An inspection as one picture: for each layer the gradient's share, the maps' spread and what holding them costs, and
below the accuracy that every attack leaves through each route."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from shconv.report.output.canvas import ROUTE_LOOKS, Drawn, Look, Shares, bars, canvas, legend

PANELS = {
    "share": ("share of the\ngradient, %", 100.0),
    "spread": ("spread of M", 1.0),
    "sensitivity": ("|dM/dX|", 1.0),
    "moved": ("logits moved\nwithout it, %", 100.0),
}


def draw(held: Mapping[str, Any]) -> Drawn:
    """The figure of what inspection.json holds."""
    layers = held["layers"]
    title = f"Filter maps and gradient routes of {held['name']}"
    with canvas(2.6 + 0.24 * len(layers) + 1.2) as figure:
        grid = figure.add_gridspec(2, len(PANELS), height_ratios=(1.2 + 0.24 * len(layers), 2.4))
        first: Axes | None = None
        for place, (key, (words, unit)) in enumerate(PANELS.items()):
            axes = figure.add_subplot(grid[0, place], sharey=first)
            values = [unit * each[key] for each in layers]
            colours = ["#bbbbbb" if each["verdict"] in ("dead", "idle") else "#0072B2" for each in layers]
            axes.barh(range(len(layers)), values, 0.7, color=colours)
            axes.set_xlabel(words)
            axes.locator_params(axis="x", nbins=3)
            if first is None:
                first = axes
                axes.set_yticks(range(len(layers)), [each["layer"] for each in layers])
                axes.invert_yaxis()
            else:
                axes.tick_params(labelleft=False)
        below = figure.add_subplot(grid[1, :])
        _routes(below, held)
        legend(figure, below, columns=4)
    caption = (
        "Above, by layer: the share of the input gradient that passes through its map, the map's spread between "
        "images, its sensitivity, and how far logits move if it is held at its mean; grey: dead or idle. Below: "
        "the accuracy under each attack through each route, with 95 % intervals. A convolution route below both "
        "routes is masking."
    )
    return Drawn("inspection", title, caption, figure)


def _routes(axes: Axes, held: Mapping[str, Any]) -> None:
    attacks = list(dict.fromkeys(each["attack"] for each in held["attacks"]))
    series: dict[str, tuple[Look, Shares]] = {}
    for route, look in ROUTE_LOOKS.items():
        known = [each for each in held["attacks"] if each["route"] == route and each["accuracy"] is not None]
        series[route] = look, {attacks.index(each["attack"]): (each["accuracy"], each["interval"]) for each in known}
    bars(axes, attacks, series, 80)
    axes.set_ylabel("accuracy, %")
