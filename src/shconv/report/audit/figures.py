"""Figures of an audit from ``arrays/audit-*.npz``; a finding's row names the file, the end of its name the figure.
docs/arrays.md describes the files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shconv.numbers import radius_text
from shconv.report.audit.sections import shared_budget
from shconv.report.audit.tables import route_words
from shconv.report.folder.arrays import Arrays, check, load
from shconv.report.folder.audits import Audit
from shconv.report.folder.run import Run
from shconv.report.output.canvas import (
    BLUE,
    BROWN,
    GREY,
    PAIR_COLOURS,
    RED,
    ROUTE_LOOKS,
    WHISKERS,
    Drawn,
    canvas,
    legend,
    picture,
    wrapped,
)
from shconv.report.output.gradient_maps import ROUTES as MAPS
from shconv.report.output.gradient_maps import caption, draw_maps, say_scales

KINDS = {"budget": "budget curve", "routes": "gradient routes", "surface": "loss surface", "gradients": "gradient maps"}


def draw_audit(run: Run, audit: Audit) -> tuple[Drawn, ...]:
    """The figures of one audit; what it has no arrays for is there without a picture.

    Raises InputError where an array file is damaged; the message names it.
    """
    draw = {"budget": budget, "routes": routes, "surface": surface, "gradients": gradients}
    files = {_kind(finding.array): finding.array for finding in audit.findings if finding.array}
    figures = []
    for kind, words in KINDS.items():
        title = f"{words.capitalize()}: {audit.name}, seed {audit.seed}"
        # a row names a file of this run's, and no other folder
        path = run.folder / "arrays" / f"{Path(files.get(kind, '')).name.removesuffix('.npz')}.npz"
        if kind in files and path.is_file():
            figures.append(Drawn(path.stem, title, *draw[kind](path, audit)))
        else:
            figures.append(Drawn(f"audit-{audit.model}-seed{audit.seed}-{kind}", title, ""))
    return tuple(figures)


def draw_comparison(audits: Sequence[Audit]) -> Drawn:
    """All audited networks: clean accuracy and each worst case, with their intervals."""
    title = "Clean accuracy and the worst case of each network"
    verdicts = [(f"{wrapped(audit.name, 32)}, {audit.seed}", audit.verdict) for audit in audits if audit.verdict]
    if len(verdicts) < 2:
        return Drawn("audit", title, "")
    held = dict.fromkeys(key for _, verdict in verdicts for key in verdict.worst_case)
    with canvas(1.0 + 0.42 * len(verdicts)) as figure:
        axes = figure.subplots()
        for place, key in enumerate([None, *held]):
            shares = [verdict.clean if key is None else verdict.worst_case.get(key) for _, verdict in verdicts]
            known = [(y, each) for y, each in enumerate(shares) if each and each.accuracy is not None]
            if not known:
                continue
            at = np.array([y + 0.6 * ((place + 0.5) / (1 + len(held)) - 0.5) for y, _ in known])
            middle = np.array([100 * (each.accuracy or 0.0) for _, each in known])
            ends = 100 * np.array([each.interval or (each.accuracy,) * 2 for _, each in known], float).reshape(-1, 2)
            colour, marker = (GREY, *PAIR_COLOURS)[place % 7], "osD^v"[place % 5]
            words = "clean" if key is None else f"worst case, {shared_budget(audits, key)}"
            style: Any = {"fmt": marker, "color": colour, "markersize": 4.5, "elinewidth": 1, "capsize": 2}
            axes.errorbar(middle, at, xerr=np.abs(ends.T - middle), label=words, **style)
        axes.set_yticks(range(len(verdicts)), [name for name, _ in verdicts])
        axes.set_ylim(len(verdicts) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, %")
        legend(figure, axes)
    text = (
        "By network and training seed, with 95 % intervals. Each worst case is an upper bound; if some images "
        "were not attacked there is none. Compare networks over the shared attacks, which can be run on any network."
    )
    return Drawn("audit", title, text, figure)


def _kind(array: str) -> str:
    return re.split(r"[-/]", array.removesuffix(".npz"))[-1]


def budget(path: Path, audit: Audit) -> tuple[str, Figure]:
    """Accuracy over the budget; the axis grows with its square root, so that small budgets have room."""
    arrays = load(path)
    check(path, arrays, {"epsilon": ("E",), "accuracy": ("E",), "chance": ()})
    order = np.argsort(arrays["epsilon"])
    epsilon, accuracy = arrays["epsilon"][order], 100 * arrays["accuracy"][order]
    chance = 100 * float(arrays["chance"])
    with canvas(2.9) as figure:
        axes = figure.subplots()
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axes.axhline(chance, color=RED, linestyle="--", linewidth=1)
        axes.text(0.995, chance + 1.5, f"chance, {chance:.3g} %", color=RED, ha="right", fontsize=8,
                  transform=axes.get_yaxis_transform())  # fmt: skip
        axes.plot(epsilon, accuracy, color=BLUE, linewidth=1.6, marker="o", markersize=4, clip_on=False, zorder=3)
        audited = audit.epsilon("linf")
        if audited is not None:
            axes.axvline(audited, color="#999999", linewidth=0.8, linestyle=":")
            axes.text(audited, 1.01, f" audited: {radius_text(audited)}", color="#555555", fontsize=8,
                      transform=axes.get_xaxis_transform())  # fmt: skip
        ticks = [0, 1 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255, 64 / 255, 0.5, 1]
        names = ["0", "1/255", "4", "8", "16", "32", "64/255", "0.5", "1"]
        axes.set_xticks(ticks, names)
        axes.set_xlim(0, max(1.0, float(epsilon.max())))
        axes.set_ylim(0, 103)
        axes.set_xlabel("ε of L∞")
        axes.set_ylabel("accuracy, %")
    return (
        "Accuracy by budget, on images that are correct without an attack. It must fall to guessing at 0.5, where "
        "every image can become grey, and to 0 at 1, where it can become any other image. If it does not, the attack "
        "fails. The horizontal axis is stretched for small budgets.",
        figure,
    )


def routes(path: Path, audit: Audit) -> tuple[str, Figure]:
    """A bar for each gradient route; the line is at both routes."""
    arrays = load(path)
    count = check(path, arrays, dict.fromkeys(("names", "accuracy", "low", "high"), ("R",)))["R"]
    names = [str(name) for name in arrays["names"]]
    accuracy, low, high = (100 * arrays[key] for key in ("accuracy", "low", "high"))
    known = high - low < 100  # an interval from 0 to 1 is one of no images
    looks = [ROUTE_LOOKS.get(name, (GREY, "")) for name in names]
    with canvas(0.75 + 0.3 * count) as figure:
        axes = figure.subplots()
        at = np.arange(count)
        for place, (colour, hatch) in enumerate(looks):
            if not known[place]:
                axes.text(1.5, place, "no image tried", va="center", fontsize=8, color=GREY)
                continue
            axes.barh(place, accuracy[place], 0.68, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
            axes.text(max(high[place], accuracy[place]) + 1.5, place, f"{accuracy[place]:.1f}", va="center", fontsize=8)
        errors = np.abs(np.stack([accuracy - low, high - accuracy]))[:, known]
        axes.errorbar(accuracy[known], at[known], xerr=errors, **WHISKERS)
        if "both" in names:
            axes.axvline(accuracy[names.index("both")], color="#0072B2", linewidth=0.9, linestyle="--", zorder=0)
        axes.set_yticks(at, [route_words(name) for name in names])
        axes.invert_yaxis()
        axes.set_xlim(0, 109)
        axes.set_xticks(range(0, 101, 20))
        axes.grid(False, axis="y")
        axes.set_xlabel("accuracy, %")
    return (
        "The whole network's accuracy when the attack takes the gradient of one route, with 95 % intervals, on images "
        "that are correct without an attack. The dashed line is at both routes. A bar that ends to its left belongs to "
        "a stronger attack than the ordinary gradient's: the difference was masked.",
        figure,
    )


def surface(path: Path, audit: Audit) -> tuple[str, Figure]:
    """The loss over the plane of two directions, and along each of them alone; a twin's in a second column."""
    arrays = load(path)
    losses = {"loss": audit.name, **({"twin_loss": "its twin"} if "twin_loss" in arrays else {})}
    check(path, arrays, {"a": ("A",), "b": ("B",), **dict.fromkeys(losses, ("A", "B"))})
    for key in losses:  # a network that overflows has no loss there
        arrays[key] = np.where(np.isfinite(arrays[key]), arrays[key], np.nan)
    other = "the twin's gradient" if "twin_loss" in arrays else "random signs"
    with canvas(5.4 if len(losses) > 1 else 2.9) as figure:
        grid = np.array(figure.subplots(*((2, 2) if len(losses) > 1 else (1, 2)))).reshape(2, -1)
        for (above, below), (key, words) in zip(grid.T, losses.items(), strict=True):
            _from_above(figure, above, arrays, key)
            above.set_xlabel("along the network's gradient, 1/255")
            above.set_ylabel(f"along {other}, 1/255")
            above.set_title(f"loss of {words}")
            _along(below, arrays, key, other)
        highest = max(axes.get_ylim()[1] for axes in grid[1])
        for axes in grid[1]:
            axes.set_ylim(min(0.0, axes.get_ylim()[0]), highest)
        legend(figure, grid[1, 0])
    return (
        f"Mean loss around a few images: steps along the sign of the network's gradient, and along {other}. The cross "
        "is the clean image. Above: both directions, with a colour scale for each network. Below: each direction "
        "alone, on one scale. If another direction raises the loss more than the gradient does, the gradient misleads.",
        figure,
    )


def _from_above(figure: Figure, axes: Axes, arrays: Arrays, key: str) -> None:
    a, b, loss = 255 * arrays["a"], 255 * arrays["b"], arrays[key]
    values = np.ma.masked_invalid(loss.T)
    mesh = axes.pcolormesh(a, b, values, cmap="cividis", shading="gouraud", rasterized=True)  # as shapes: megabytes
    if len(set(loss[np.isfinite(loss)])) > 1:
        axes.contour(a, b, loss.T, 8, colors="white", linewidths=0.5, alpha=0.7)
    axes.plot(0, 0, "+", color="white", markersize=8, markeredgewidth=1.5)
    axes.grid(False)
    figure.colorbar(mesh, ax=axes, shrink=0.9)


def _along(axes: Axes, arrays: Arrays, key: str, other: str) -> None:
    a, b, loss = 255 * arrays["a"], 255 * arrays["b"], arrays[key]
    at_a, at_b = np.abs(a).argmin(), np.abs(b).argmin()  # the image itself, or as near as the grid comes
    axes.plot(a, loss[:, at_b], color=BLUE, linewidth=1.6, label="along the network's gradient")
    axes.plot(b, loss[at_a], color=BROWN, linewidth=1.6, linestyle=(0, (4, 2)), label=f"along {other}")
    axes.set_xlabel("step, 1/255")
    axes.set_ylabel("loss")


def gradients(path: Path, audit: Audit) -> tuple[str, Figure]:
    """The gradient of one image, whole and by route."""
    arrays = load(path)
    parts = {key: words for key, words in MAPS.items() if key in arrays or key == "both"}
    check(path, arrays, {"image": ("C", "H", "W"), **dict.fromkeys(parts, ("H", "W"))})
    if len(parts) == 1:
        parts = {"both": "gradient"}
    rows = 1 if len(parts) == 1 else 2  # a second row, each on its own scale, says nothing new of one map
    with canvas(0.3 + 1.8 * rows) as figure:
        grid = figure.subplots(rows, 4, squeeze=False)
        for axes in grid[:, 1 + len(parts) :].flat:
            axes.axis("off")
        picture(grid[0, 0], arrays["image"])
        grid[0, 0].set_title("(a) image", fontsize=8)
        if rows == 2:
            say_scales(grid[1, 0])
        draw_maps(grid[:, 1 : 1 + len(parts)], arrays, parts)
    return f"Gradient with respect to one image, summed over its channels; {caption(arrays, parts)}", figure
