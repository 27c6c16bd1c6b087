"""Gradients of one image by route as pictures: a row on one common scale, and a row each on its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from shconv.report.folder.arrays import Arrays
from shconv.report.output.canvas import bare

ROUTES = {"both": "both routes", "convolution": "convolution route", "hypernetwork": "hypernetwork route"}
STRICT = {"strict": "strict"}
NOTHING = 1e-6  # of the convolution route's norm: nothing gets through
PERCENTILE = 99.5


def draw_maps(grid: NDArray[Any], arrays: Arrays, routes: Mapping[str, str]) -> None:
    """Fill axes (2, R), or (1, R), with arrays[route] (H, W): above on the first one's scale, below each on its own."""
    common = limit(arrays[next(iter(routes))])
    for place, (key, words) in enumerate(routes.items()):
        for axes, end in zip(grid[:, place], (common, limit(arrays[key])), strict=False):
            axes.imshow(arrays[key], cmap="RdBu_r", vmin=-end, vmax=end, interpolation="nearest")
            bare(axes)
            axes.set_xlabel(f"±{end:.2g}", fontsize=8)
        grid[0, place].set_title(f"({'bcde'[place]}) {words.replace(' ', chr(10))}", fontsize=8)


def caption(arrays: Arrays, routes: Mapping[str, str]) -> str:
    """What the colours and the scales are, and, where both parts are there, how their norms compare."""
    text = (
        f"red positive, blue negative, white zero. Scales end at the {PERCENTILE} % quantile of the absolute values "
        "and are written under each."
    )
    if len(routes) > 1:
        text += " The upper row shares one scale, the lower row does not."
    if {"convolution", "hypernetwork"} <= routes.keys():
        ratio = _norm_ratio(arrays["hypernetwork"], arrays["convolution"])
        text += f" Norm of the hypernetwork route over that of the convolution route: {ratio:.2g}."
        if ratio < NOTHING:
            text += (
                " Almost no gradient passes through the hypernetwork route alone. This network has no path around its "
                "hypernetworks, so a gradient has to pass all of them, and each makes it smaller."
            )
    if "strict" in routes:
        text += (
            " Strict: all paths through at least one filter map, the gradient of both routes minus the convolution's."
        )
    return text


def say_scales(axes: Axes) -> None:
    axes.axis("off")
    axes.text(0, 0.5, "above: one scale,\nthat of (b)\n\nbelow: each on\nits own scale", va="center", fontsize=8)


def limit(gradient: NDArray[Any]) -> float:
    """Where a symmetric colour scale ends: a high quantile, so that one pixel does not whiten the rest."""
    end = float(np.percentile(np.abs(gradient), PERCENTILE))
    return end or float(np.abs(gradient).max()) or 1.0


def _norm_ratio(above: NDArray[Any], below: NDArray[Any]) -> float:
    norm = float(np.linalg.norm(below))
    return float(np.linalg.norm(above)) / norm if norm else float("inf")
