"""What the trainings of the mechanism study say: the effect of each level with its interval, the explanations and their
test on configurations that were held out, and whether the worst case moves. The plan stands in docs/mechanism.md."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from shconv.report.output.canvas import Drawn, canvas

Record = dict[str, Any]
Groups = dict[str, list[Record]]
GREY, BLUE, ORANGE, GREEN = "#8a8a8a", "#0072B2", "#D55E00", "#009E73"
LEARNT = 1.5  # times the accuracy of guessing: a network below has learnt nothing, and its gap means nothing


def _layers(key: str) -> Callable[[Record], float]:
    def mean(record: Record) -> float:
        values = [each[key] for each in record["inspection"]["layers"] if each[key] is not None]
        return fmean(values) if values else 0.0

    return mean


def _linearity(route: str) -> Callable[[Record], float]:
    return lambda record: next(e["error"] for e in record["inspection"]["linearity"] if e["route"] == route)


EXPLANATIONS: dict[str, Callable[[Record], float]] = {
    "share": lambda record: record["inspection"]["network"]["share"],
    "cosine": lambda record: record["inspection"]["network"]["cosine"],
    "signs kept": lambda record: record["inspection"]["network"]["agreement"],
    "linearity error, maps": _linearity("strict"),
    "linearity error, both": _linearity("both"),
    "|dM/dX|": _layers("sensitivity"),
    "spread": _layers("spread"),
    "saturation": _layers("saturated"),
    "share x linearity error": lambda record: (
        EXPLANATIONS["share"](record) * EXPLANATIONS["linearity error, maps"](record)
    ),
}


def report(records: Sequence[Record], folder: Path) -> None:
    """Print the tables, and write analysis.md and the figures into the folder."""
    known: Groups = defaultdict(list)
    for record in records:
        known[record["name"]].append(record)
    idle = {name for name, group in known.items() if any(not learnt(each) for each in group)}
    groups = {name: group for name, group in known.items() if name not in idle and "inspection" in group[0]}
    relatives = {name: group for name, group in known.items() if name.startswith("relative: ")}
    held_out = {name: group for name, group in groups.items() if name.startswith("held out")}
    later = {name: group for name, group in groups.items() if name.startswith("afterwards: ")}
    levels = {name: group for name, group in groups.items() if name not in {**held_out, **later}}
    parts = [
        "\n".join(effects(levels)),
        *([f"Left out, since they learnt nothing: {', '.join(sorted(idle))}."] if idle else []),
        power(levels),
        "\n".join(attacks({**levels, **held_out})),
        "\n".join(explained(levels, held_out)),
        "\n".join(worst({**levels, **held_out}, known.get("layers: none", []))),
        *(["\n".join(effects({"centre": levels["centre"], **later}))] if later else []),
        "\n".join(others(relatives)),
    ]
    text = "\n\n".join(parts) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "analysis.md").write_text(text)
    for drawn in (forest(levels), scatter(levels, held_out)):
        for kind in ("svg", "png"):
            (folder / f"{drawn.name}.{kind}").write_bytes(drawn.saved(kind))
    print(text)


def learnt(record: Record) -> bool:
    return bool(record["clean"] > LEARNT / record["config"]["classes"])


def gaps(group: Sequence[Record]) -> list[float]:
    return [each["gap"] for each in group]


def welch(group: Sequence[float], centre: Sequence[float]) -> tuple[float, float, float]:
    """The difference of means, half its 95 % interval, and p; of two samples of at least two."""
    a, b = (np.var(each, ddof=1) / len(each) for each in (group, centre))
    if a + b == 0:
        return fmean(group) - fmean(centre), 0.0, 1.0
    df = (a + b) ** 2 / (a**2 / (len(group) - 1) + b**2 / (len(centre) - 1))
    difference = fmean(group) - fmean(centre)
    half = float(stats.t.ppf(0.975, df)) * sqrt(a + b)
    return difference, half, float(2 * stats.t.sf(abs(difference) / sqrt(a + b), df))


def of_images(record: Record) -> float:
    """Half the 95 % interval of one training's gap by its images: the mean of the budgets', as they share them."""
    rows = [r for r in record["rows"] if r["attack"].startswith("FGSM ") and r["route"] == "convolution"]
    return fmean(50 * (r["difference_interval"][1] - r["difference_interval"][0]) for r in rows)


def effects(levels: Groups) -> Iterator[str]:
    """A line for each level: gap, effect against the centre, Holm's p where there are three seeds."""
    centre = gaps(levels["centre"])
    tested = {n: welch(gaps(g), centre) for n, g in levels.items() if n != "centre" and len(g) > 2 < len(centre) + 1}
    adjusted = holm({name: p for name, (_, _, p) in tested.items()})
    yield "| level | seeds | clean, % | gap, points | against the centre (95 %) | Holm's p | share, % | error, maps |"
    yield "|---" * 8 + "|"
    for name in sorted(levels, key=lambda name: (name != "centre", -fmean(gaps(levels[name])))):
        group = levels[name]
        sd = f" ± {stdev(gaps(group)):.2f}" if len(group) > 1 else ""
        share = 100 * fmean(EXPLANATIONS["share"](each) for each in group)
        error = fmean(EXPLANATIONS["linearity error, maps"](each) for each in group)
        clean = f"{100 * fmean(each['clean'] for each in group):.1f}"
        effect, p = "", ""
        if name in tested:
            difference, half, _ = tested[name]
            effect = f"{difference:+.2f} ({difference - half:+.2f} to {difference + half:+.2f})"
            p = f"{adjusted[name]:.3f}"
        elif name != "centre":
            effect, half = f"{fmean(gaps(group)) - fmean(centre):+.2f}", fmean(map(of_images, group))
            effect += f" (images: ± {half:.2f})"
        yield (
            f"| {name} | {len(group)} | {clean} | {fmean(gaps(group)):+.2f}{sd} | {effect} | {p} | {share:.1f} | "
            f"{error:.2f} |"
        )


def holm(ps: dict[str, float]) -> dict[str, float]:
    """p-values adjusted for their number (Holm 1979)."""
    found: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[name]))
        found[name] = largest
    return found


def power(levels: Groups) -> str:
    """The size of effect that three seeds against three would have shown with a chance of 80 %."""
    several = [gaps(group) for group in levels.values() if len(group) > 2]
    if not several:
        return "No level has three seeds yet."
    df = sum(len(each) - 1 for each in several)
    sd = sqrt(sum((len(each) - 1) * float(np.var(each, ddof=1)) for each in several) / df)
    size = float(stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df)) * sd * sqrt(2 / 3)
    return (
        f"Seeds scatter by {sd:.2f} points (standard deviation, pooled over {len(several)} levels). Three seeds "
        f"against three show an effect of {size:.2f} points with a chance of 80 %."
    )


def attacks(groups: Groups) -> Iterator[str]:
    """As the paper's Table 4 has it, and with more steps: accuracy by route, means over the seeds."""
    columns = ("RAND+FGSM", "RAND+FGSM untargeted", "PGD 2")
    yield "| level | " + " | ".join(f"{name}: both | convolution" for name in columns) + " | hypernetwork alone |"
    yield "|---" * (2 + 2 * len(columns)) + "|"
    for name in sorted(groups, key=lambda name: -fmean(gaps(groups[name]))):
        cells = [accuracy(groups[name], attack, route) for attack in columns for route in ("both", "convolution")] + [
            accuracy(groups[name], "RAND+FGSM", "hypernetwork")
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def accuracy(group: Sequence[Record], attack: str, route: str) -> str:
    rows = [r for each in group for r in each["rows"] if (r["attack"], r["route"]) == (attack, route)]
    return f"{100 * fmean(row['accuracy'] for row in rows):.1f}" if rows else ""


def explained(levels: Groups, held_out: Groups) -> Iterator[str]:
    """Rank correlations of every explanation with the gap; the best, tested on what was held out."""
    names = list(levels)
    y = [fmean(gaps(levels[name])) for name in names]
    yield "| explanation | rank correlation with the gap | p |"
    yield "|---|---|---|"
    found = {}
    for explanation in EXPLANATIONS:
        rho, p = stats.spearmanr(values(levels, explanation), y)
        found[explanation] = 0.0 if np.isnan(rho) else float(rho)
        words = explanation.replace("|", "\\|")
        yield f"| {words} | {found[explanation]:+.2f} | {p:.3g} |"
    best = max(found, key=lambda name: abs(found[name]))
    line = stats.linregress(values(levels, best), y)
    yield f"\nBest: {best}. Gap = {line.intercept:+.2f} {line.slope:+.3g} x {best}, over {len(names)} levels."
    if len(held_out) < 3:
        yield "Too few held-out configurations are there to test it."
        return
    seen = [fmean(gaps(group)) for group in held_out.values()]
    told = [line.intercept + line.slope * value for value in values(held_out, best)]
    usual_told = [y[names.index("centre")]] * len(seen)
    error, usual = (fmean(abs(a - b) for a, b in zip(seen, each, strict=True)) for each in (told, usual_told))
    rho, p = stats.spearmanr(told, seen)
    passed = error < usual and rho > 0.6
    yield (
        f"On {len(seen)} held-out configurations: mean error {error:.2f} points, that of the centre's gap {usual:.2f}; "
        f"rank correlation {rho:+.2f} (p = {p:.3g}). It {'passes' if passed else 'fails'}."
    )
    yield "\n| held out | gap | predicted |\n|---|---|---|"
    for name, a, b in zip(held_out, seen, told, strict=True):
        yield f"| {name} | {a:+.2f} | {b:+.2f} |"


def values(groups: Groups, explanation: str) -> list[float]:
    return [fmean(EXPLANATIONS[explanation](each) for each in group) for group in groups.values()]


def worst(groups: Groups, vanilla: Sequence[Record]) -> Iterator[str]:
    """Does the worst case move with the gap? On the data and size of the centre, where a twin stands beside."""
    centre = groups["centre"][0]["config"]
    alike = {
        name: group
        for name, group in groups.items()
        if all(group[0]["config"][key] == centre[key] for key in ("data", "classes", "size", "model", "images"))
    }
    y = [fmean(gaps(group)) for group in alike.values()]
    w = [100 * fmean(each["worst"] for each in group) for group in alike.values()]
    rho, p = stats.spearmanr(y, w)
    yield f"Worst case within 2 levels and gap, over {len(alike)} levels with the centre's data and depth: rank "
    yield f"correlation {rho:+.2f} (p = {p:.3g})."
    yield "\n| level | gap | one-step and PGD, both routes, % | worst case over all routes, % |\n|---|---|---|---|"
    for name in sorted(alike, key=lambda name: -fmean(gaps(alike[name]))):
        both = 100 * fmean(each["worst_both"] for each in alike[name])
        yield f"| {name} | {fmean(gaps(alike[name])):+.2f} | {both:.1f} | {w[list(alike).index(name)]:.1f} |"
    if vanilla:
        own = 100 * fmean(each["worst"] for each in vanilla)
        yield f"| vanilla twin ({len(vanilla)} seeds) | | {own:.1f} | {own:.1f} |"


def others(relatives: Groups) -> Iterator[str]:
    """Do the attentions of SHC's relatives mask? Held constant, as M is in the convolution route."""
    yield "| layer | seeds | clean, % | gap, points | RAND+FGSM: both | attention held | PGD 2: both | attention held |"
    yield "|---" * 8 + "|"
    for name, group in relatives.items():
        cells = [
            accuracy(group, attack, route) for attack in ("RAND+FGSM", "PGD 2") for route in ("both", "convolution")
        ]
        sd = f" ± {stdev(gaps(group)):.2f}" if len(group) > 1 else ""
        clean = 100 * fmean(each["clean"] for each in group)
        yield f"| {name} | {len(group)} | {clean:.1f} | {fmean(gaps(group)):+.2f}{sd} | {' | '.join(cells)} |"


def forest(levels: Groups) -> Drawn:
    """Each level's gaps, a dot a seed."""
    names = sorted(levels, key=lambda name: fmean(gaps(levels[name])))
    with canvas(1.0 + 0.2 * len(names)) as figure:
        axes = figure.subplots()
        for place, name in enumerate(names):
            colour = ORANGE if name == "centre" else BLUE
            axes.plot(gaps(levels[name]), [place] * len(levels[name]), "o", color=colour, markersize=4, alpha=0.7)
            axes.plot([fmean(gaps(levels[name]))], [place], "|", color=colour, markersize=11)
        axes.axvline(fmean(gaps(levels["centre"])), color=GREY, linewidth=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("gap, points: accuracy through both routes minus the convolution route")
    return Drawn("mechanism-effects", "The gap by level", "", figure)


def scatter(levels: Groups, held_out: Groups) -> Drawn:
    """The gap over the share of the gradient through maps, and over the error of its promise."""
    with canvas(2.9) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name in zip(panels, ("share", "linearity error, maps"), strict=True):
            for groups, colour, words in ((levels, BLUE, "levels"), (held_out, GREEN, "held out")):
                y = [fmean(gaps(group)) for group in groups.values()]
                axes.plot(values(groups, name), y, "o", color=colour, markersize=4, label=words)
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.set_xlabel({"share": "share of the gradient through maps"}.get(name, name))
        panels[0].set_ylabel("gap, points")
        panels[0].legend()
    return Drawn("mechanism-explanations", "The gap and what may explain it", "", figure)
