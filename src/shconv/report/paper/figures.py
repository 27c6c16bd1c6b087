"""Figures 2 to 4 of the paper from ``arrays/*.npz``, which the experiments write; docs/arrays.md describes them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from shconv.report.folder.arrays import Arrays, check, load
from shconv.report.folder.run import Run
from shconv.report.output.canvas import BLUE, BROWN, GREEN, RED, Drawn, bare, canvas, line_style, picture
from shconv.report.output.gradient_maps import ROUTES, STRICT, caption, draw_maps, say_scales
from shconv.report.paper.charts import draw_distances, draw_routes, draw_training
from shconv.report.published import is_shc, network_name

MOST_MOVED = "The selected image whose confidence the search of Table 3 lowers most."


def draw(run: Run) -> tuple[Drawn, ...]:
    """Every figure of the run; what it has no arrays or rows for is there without a picture.

    Raises InputError where an array file is damaged; the message names it.
    """
    folder = run.folder / "arrays"
    return (
        *_drawn(folder, "figure2", r"figure2()()", [], figure2),
        *_drawn(folder, "figure3", r"figure3_(.+)-seed(\d+)", [vanilla for vanilla, _ in run.pairs], figure3),
        *_drawn(folder, "figure4", r"figure4_(.+)-seed(\d+)", list(filter(is_shc, run.models)), figure4),
        draw_routes(run),
        *draw_distances(run),
        draw_training(run),
    )


def _drawn(
    folder: Path, name: str, pattern: str, wanted: list[str], draw_one: Callable[[Path], Drawn]
) -> Iterator[Drawn]:
    found = [(path, match) for path in sorted(folder.glob("*.npz")) if (match := re.fullmatch(pattern, path.stem))]
    for path, _ in found:
        yield draw_one(path)
    held = {match[1] for _, match in found}
    for model in wanted:
        if model not in held:
            yield Drawn(f"{name}_{model}", f"Figure {name[-1]}. {network_name(model)}", "")
    if not found and not wanted:
        yield Drawn(name, f"Figure {name[-1]}", "")


def figure2(path: Path) -> Drawn:
    """Confidence and RCD of one image under growing noise."""
    arrays = load(path)
    shapes = {"sigma": ("K",), "models": ("J",), "p_y": ("J", "K"), "rcd": ("J", "K"), "images": ("K", "C", "H", "W")}
    levels = check(path, arrays, shapes)["K"]
    models = tuple(str(model) for model in arrays["models"])
    with canvas(4.4) as figure:
        parts: Any = figure.subfigures(2, 1, height_ratios=[1.3, 3])
        top, bottom = parts
        for place, axes in enumerate(np.atleast_1d(top.subplots(1, levels))):
            picture(axes, arrays["images"][place])
            axes.set_title(f"σ {arrays['sigma'][place]:.2f}")
        left, right = bottom.subplots(1, 2)
        for axes, key, words, colour in ((left, "p_y", "confidence $p_y$", BROWN), (right, "rcd", "RCD", BLUE)):
            for model, values in zip(models, arrays[key], strict=True):
                style = line_style(model, models)
                filled = style["color"] if is_shc(model) else "white"
                marks = {"marker": "o", "markersize": 4, "markerfacecolor": filled}
                axes.plot(arrays["sigma"], values, label=network_name(model), **marks, **style)
            axes.set_xlabel("σ of the noise")
            axes.set_title(words, color=colour, parse_math=True)
        left.set_ylim(-0.03, 1.03)
        left.legend()
    return Drawn(
        path.stem,
        "Figure 2. One image under Gaussian noise",
        f"{_class(arrays)}{MOST_MOVED} Confidence of the true class and RCD as noise grows; SHC networks solid, their "
        "twins dashed.",
        figure,
    )


def figure3(path: Path) -> Drawn:
    """LocSearchAdv on one image of a pair."""
    arrays = load(path)
    shapes: dict[str, tuple[str | int, ...]] = {
        "models": (2,),
        "p_y": (2, "R + 1"),
        "rcd": (2, "R + 1"),
        "marks": ("K",),
        "images": (2, "K", "C", "H", "W"),
        "correct": (2, "K"),
        "maps": ("K", "S", "S"),
    }
    check(path, arrays, shapes)
    names = [network_name(str(model)) for model in arrays["models"]]
    low, high = float(arrays["maps"].min()), float(arrays["maps"].max())
    with canvas(7.8) as figure:
        parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.3])
        for place, (part, name) in enumerate(zip(parts, names, strict=True)):
            rows = part.subfigures(3 if place else 2, 1, height_ratios=[1.25, 2, 1][: 3 if place else 2])
            part.suptitle(f"({'ab'[place]}) {name}", x=0.01, ha="left", fontweight="bold", fontsize=10)
            _framed(rows[0], arrays, place)
            _trace(rows[1].subplots(), arrays, place)
            if place:
                _maps(rows[2], arrays, low, high)
    return Drawn(
        path.stem,
        f"Figure 3. LocSearchAdv on one image: {' and '.join(names)}{_seed(path)}",
        f"{_class(arrays)}{MOST_MOVED} Confidence of the true class (brown) and RCD (blue) along the search. Above: "
        "the perturbed images, framed green where the network is right and red, dashed, where it is wrong. "
        f"Below: filter map M of the last SHC layer, all on one scale, {low:.3f} (dark) to {high:.3f} (light); between "
        f"the marks no entry moves by more than {np.ptp(arrays['maps'], axis=0).max():.2g}.",
        figure,
    )


def _framed(part: SubFigure, arrays: Arrays, place: int) -> None:
    for mark, axes in enumerate(np.atleast_1d(part.subplots(1, len(arrays["marks"])))):
        picture(axes, arrays["images"][place, mark])
        right = bool(arrays["correct"][place, mark])
        for spine in axes.spines.values():
            spine.set(visible=True, linewidth=2.5, color=GREEN if right else RED, linestyle="-" if right else "--")
        step = f"step {arrays['marks'][mark]}"
        axes.set_title(f"{step}, {'right' if right else 'wrong'}", color=GREEN if right else RED, fontsize=8)


def _trace(axes: Axes, arrays: Arrays, place: int) -> None:
    steps = np.arange(arrays["p_y"].shape[1])
    for mark in arrays["marks"]:
        axes.axvline(mark, color="#cccccc", linewidth=0.7, zorder=0)
    axes.plot(steps, arrays["p_y"][place], color=BROWN, linewidth=1.6)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(0, len(steps) - 1)
    axes.set_xticks([0, *arrays["marks"]])
    axes.set_xlabel("step")
    axes.set_ylabel("confidence", color=BROWN)
    axes.tick_params(axis="y", colors=BROWN)
    other = axes.twinx()
    other.plot(steps, arrays["rcd"][place], color=BLUE, linewidth=1.6, linestyle=(0, (5, 1.5)))
    # the same for both networks, so that the two can be compared
    other.set_ylim(min(0.0, float(arrays["rcd"].min())) - 0.1, float(arrays["rcd"].max()) * 1.05 + 0.1)
    other.set_ylabel("RCD", color=BLUE)
    other.tick_params(axis="y", colors=BLUE)
    other.grid(False)


def _maps(part: SubFigure, arrays: Arrays, low: float, high: float) -> None:
    for mark, axes in enumerate(np.atleast_1d(part.subplots(1, len(arrays["marks"])))):
        axes.imshow(arrays["maps"][mark], cmap="cividis", vmin=low, vmax=max(high, low + 1e-9))
        bare(axes)
        axes.set_title(f"M, step {arrays['marks'][mark]}", fontsize=8)


def figure4(path: Path) -> Drawn:
    """Gradients of one image by route, on one scale and each on its own."""
    arrays = load(path)
    routes = ROUTES | (STRICT if "strict" in arrays else {})  # which earlier versions did not store
    check(path, arrays, dict.fromkeys(("red", *routes), ("H", "W")))
    match = re.fullmatch(r"figure4_(.+)-seed(\d+)", path.stem)
    name = network_name(match[1]) if match else path.stem
    channel = str(arrays.get("channel", "red channel"))
    with canvas(3.9) as figure:
        grid = figure.subplots(2, 1 + len(routes))
        grid[0, 0].imshow(arrays["red"], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        grid[0, 0].set_title(f"(a) {channel}", fontsize=8)
        bare(grid[0, 0])
        say_scales(grid[1, 0])
        draw_maps(grid[:, 1:], arrays, routes)
    objective = f", {str(arrays['objective']).replace('_', '-')} objective" if "objective" in arrays else ""
    return Drawn(
        path.stem,
        f"Figure 4. Gradients by route: {name}{_seed(path)}",
        f"{_class(arrays)}Gradient of the loss with respect to the {channel}{objective}; {caption(arrays, routes)}",
        figure,
    )


def _seed(path: Path) -> str:
    match = re.search(r"-seed(\d+)$", path.stem)
    return f", seed {match[1]}" if match else ""


def _class(arrays: Arrays) -> str:
    return f"True class: {arrays['label']}. " if "label" in arrays and str(arrays["label"]) else ""
