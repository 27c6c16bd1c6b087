"""The look that all figures share, and how one becomes a file. Drawn without pyplot: no window, no global figure.
Colours stay apart for colour-blind readers; line styles and words repeat what a colour says."""

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from shconv.forked import Forked, processors
from shconv.report.published import NETWORKS, is_shc, twin

BROWN, BLUE = "#8c510a", "#1f6fb4"  # confidence and RCD, as in the paper's Figure 3
GREEN, RED = "#1a7f37", "#c62828"
GREY = "#8a8a8a"
Look = tuple[str, str]  # colour and hatch
ROUTE_LOOKS: dict[str, Look] = {
    "both": ("#0072B2", ""),
    "convolution": ("#D55E00", "//"),
    "hypernetwork": ("#009E73", ".."),
    "strict": ("#CC79A7", "xx"),
}
# Okabe and Ito's colours, one a pair of networks
PAIR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
NARROW, UPRIGHT = 8, 40  # letters of a line of a name: below it they overlap; of a name that stands upright
WIDTH = 6.4  # inches; narrow, so that the words are readable on a telephone

_STYLE: Any = {
    "figure.dpi": 160,
    "figure.facecolor": "white",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.8,
    "text.parse_math": False,  # a class may be called "$5"
    "svg.hashsalt": "shconv",  # the same run gives the same bytes
    "svg.fonttype": "path",  # letters are part of the file: no reader needs our fonts
    "pdf.fonttype": 42,
}
WHISKERS: Any = {"fmt": "none", "ecolor": "#222222", "elinewidth": 0.8, "capsize": 2}
_NO_DATE: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
FORMATS = ("pdf", "svg", "png")
_SECONDS = 60.0  # that other processes have to paint; then this one does


@dataclass(frozen=True)
class Drawn:
    """A figure of the page: ``figure`` is None where the run has nothing to draw it from."""

    name: str
    title: str
    caption: str
    figure: Figure | None = None
    _files: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def saved(self, kind: str) -> bytes:
        """The figure as a file of one of ``FORMATS``, painted once; vectors hold their fonts."""
        assert self.figure is not None
        if kind not in self._files:
            buffer = io.BytesIO()
            with rc_context(_STYLE):
                if self.figure.get_layout_engine() is not None:  # laid out once: each further time moves parts a little
                    self.figure.draw_without_rendering()
                    self.figure.set_layout_engine(None)
                self.figure.savefig(buffer, format=kind, metadata=_NO_DATE.get(kind))
            self._files[kind] = _numbered(buffer.getvalue()) if kind == "svg" else buffer.getvalue()
        return self._files[kind]


def painting(figures: Sequence[Drawn], kinds: Sequence[str]) -> Callable[[], None]:
    """Begin to paint figures, side by side where there are processors for it. What is returned waits for them."""
    drawn = [each for each in figures if each.figure is not None]
    count = processors()
    if count < 2 or len(drawn) < 2:
        return lambda: None  # each is painted where it is wanted
    forked = Forked(lambda place: {kind: drawn[place].saved(kind) for kind in kinds}, len(drawn), count)

    def finish() -> None:
        for place, files in forked.results(range(len(drawn)), _SECONDS).items():
            drawn[place]._files.update(files)

    return finish


def _numbered(svg: bytes) -> bytes:
    """Names of parts by their place: matplotlib makes some of addresses in memory, which differ from run to run."""
    names: dict[bytes, bytes] = {}
    return re.sub(
        rb'((?: id="|#)[a-z])([0-9a-f]{10})\b',
        lambda found: found[1] + names.setdefault(found[2], b"%d" % len(names)),
        svg,
    )


@contextmanager
def canvas(height: float) -> Iterator[Figure]:
    """A figure to draw on, as wide as all others; inches."""
    with rc_context(_STYLE):
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def picture(axes: Axes, image: NDArray[Any]) -> None:
    """Show an image (C, H, W): uint8, or floats in [0, 1]; its first channel as grey where there are not three."""
    shown = np.moveaxis(image if len(image) == 3 else image[:1].repeat(3, 0), 0, -1)
    axes.imshow(shown if shown.dtype == np.uint8 else np.clip(shown, 0, 1), interpolation="nearest")
    bare(axes)


def bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def wrapped(name: str, letters: int) -> str:
    """A name on an axis: a line has so many letters, and there are three at most."""
    return "\n".join(textwrap.wrap(name, max(letters, NARROW), max_lines=3, placeholder=" …"))


Shares = dict[int, tuple[float, tuple[float, float]]]  # accuracy and interval by place on the axis


def on_axis(names: Sequence[str], letters: int) -> tuple[list[str], float]:
    """Names as they stand on an axis with room for so many letters, and the inches that they need more below it where
    they do not fit side by side and are upright; else 0."""
    room = letters // len(names)
    words = [wrapped(name, UPRIGHT if room < NARROW else room) for name in names]
    longest = max(len(line) for each in words for line in each.split("\n"))
    return words, 0.065 * longest if room < NARROW else 0.0


def bars(axes: Axes, names: Sequence[str], series: Mapping[str, tuple[Look, Shares]], letters: int) -> None:
    """Accuracies with their intervals: names stand on the axis, which has room for so many letters, and over each a bar
    of every series that has one."""
    width = 0.8 / len(series)
    for place, (words, ((colour, hatch), shares)) in enumerate(series.items()):
        at = np.array(list(shares)) + (place - (len(series) - 1) / 2) * width
        heights = 100 * np.array([share for share, _ in shares.values()])
        ends = 100 * np.array([ends for _, ends in shares.values()]).reshape(-1, 2)
        axes.bar(at, heights, 0.9 * width, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=words)
        axes.errorbar(at, heights, np.abs(ends.T - heights), **WHISKERS)
    below, upright = on_axis(names, letters)
    axes.set_xticks(range(len(names)), below, rotation=90 if upright else 0)
    axes.set_ylim(0, 103)
    axes.grid(False, axis="x")


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Below everything; lines of one name once. Long names are wrapped, and the figure grows by what they need."""
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    words = [wrapped(name, 96 // columns - 10) for name in once]
    lines = sum(1 + each.count("\n") for each in words) / columns
    if lines > 3:
        figure.set_figheight(figure.get_figheight() + 0.15 * (lines - 3))
    figure.legend(once.values(), words, loc="outside lower center", ncols=columns)


def line_style(model: str, models: tuple[str, ...]) -> dict[str, Any]:
    """One colour a pair; the SHC network solid, its twin dashed."""
    pairs = list(dict.fromkeys([*(twin(name) for name in NETWORKS), *(twin(name) for name in models)]))
    colour = PAIR_COLOURS[pairs.index(twin(model)) % len(PAIR_COLOURS)]
    return {"color": colour, "linestyle": "-" if is_shc(model) else (0, (4, 2)), "linewidth": 1.5}
