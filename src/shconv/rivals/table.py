"""The table itself, read from the folder: what became of each row's network under the same attacks, and its price."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from shconv.attacks.budget import Budget
from shconv.errors import InputError
from shconv.experiments.run_folder import RunFolder
from shconv.intervals import wilson
from shconv.numbers import counted
from shconv.paired import hull
from shconv.results import Results, shown
from shconv.rivals import run, wanted
from shconv.rivals.which import Rival

Share = tuple[float, float, float]  # accuracy and its 95 % interval, shares of 1
SHARES = ("clean", run.NOISE, *(name for name in run.ATTACKS if name not in (run.NOISE, run.DEEPFOOL)))
SEARCHES = ("locsearch", "locsearch_cyclic")
WORST, WORST_L2 = "worst case L∞", "worst case L2"
AFTER = 1 + len(SHARES) + 2  # in a row, of the worst cases
TITLES = {
    "clean": "clean",
    run.NOISE: "noise",
    "fgsm": "FGSM",
    "fgsm_heavy": "FGSM-Heavy",
    "ifgsm": "I-FGSM",
    "rand_fgsm": "RAND+FGSM",
    run.DEEPFOOL: "DeepFool",
    "undetected_pgd": "PGD at classifier and detector",
}
PRICES = {"training": "step_over", "memory": "memory_over", "inference": "inference_over"}


@dataclass(frozen=True)
class Line:
    """A row: means over its seeds. distance: the median DeepFool distance, L2; infinite where most images stand."""

    rival: Rival
    seeds: tuple[int, ...]
    shares: Mapping[str, Share]  # by the columns' names; one that is not there is not known
    distance: float | None
    alarms: tuple[str, ...] | None  # of all seeds; None: no audit
    parameters: int | None
    prices: Mapping[str, float | None]  # by PRICES' names, over the vanilla network's

    @property
    def worst(self) -> Share | None:
        return self.shares.get(WORST)


@dataclass(frozen=True)
class RivalTable:
    """Lines from the highest worst case to the lowest; images of each column; notes in sentences."""

    lines: tuple[Line, ...]
    data: str
    images: Mapping[str, int]
    notes: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> "RivalTable":
        """From the folder of `shconv compare --defences`. Raises InputError where there is no table."""
        if not (folder / wanted.ROWS).is_file():
            raise InputError(f"{folder} holds no table of defences; `shconv compare --defences all` makes one")
        rivals = [Rival(**each) for each in wanted.read(folder, wanted.ROWS).values()]
        results = Results.load(folder)
        seeds = sorted({seed for _, seed in results.measures.networks})
        audits = {
            (r.name, seed): _verdict(wanted.place_of(folder, "audits", r, seed)) for r in rivals for seed in seeds
        }
        lines = [_line(rival, seeds, results, audits, wanted.read(folder, wanted.PRICES)) for rival in rivals]
        lines = [line for line in lines if line.seeds]
        lines.sort(
            key=lambda line: (-(line.worst or (-1.0,))[0], -line.shares.get("clean", (-1.0,))[0], line.rival.name)
        )
        name = str(results.facts.get("data.json", {}).get("name", ""))
        images = {row["attack"]: row["n"] for row in results.records}
        notes = [*_notes(folder, lines, images), *_of_detectors(results)]
        return cls(tuple(lines), name, images, tuple(notes))

    @property
    def header(self) -> list[str]:
        titles = [*(TITLES[name] for name in SHARES), WORST, WORST_L2, "DeepFool, median L2"]
        titles += ["LocSearchAdv", "its cyclic probe", "alarms", "parameters"]
        return ["network", *titles, *(f"{name} time ×" if name != "memory" else "memory ×" for name in PRICES)]

    @property
    def parts(self) -> tuple[Sequence[int], Sequence[int]]:
        """Columns that stand side by side where all are too wide: accuracies, the worst cases beside the clean one;
        other measures and prices."""
        return (1, AFTER - 2, AFTER - 1, *range(2, AFTER - 2)), range(AFTER, len(self.header))

    def text(self) -> list[list[str]]:
        """Rows as they are printed: accuracy in per cent, worst cases with their intervals."""
        return [self._shown(line) for line in self.lines]

    def _shown(self, line: Line) -> list[str]:
        cells = [line.rival.name, *(shown.percent(line.shares.get(name)) for name in SHARES)]
        cells += [_whole(line.shares.get(name)) for name in (WORST, WORST_L2)]
        cells.append("–" if line.distance is None else "none" if line.distance == np.inf else f"{line.distance:.2f}")
        cells += [shown.percent(line.shares.get(name)) for name in SEARCHES]
        cells.append("–" if line.alarms is None else str(len(line.alarms)))
        cells.append("–" if line.parameters is None else f"{line.parameters:,}")
        return cells + ["–" if (price := line.prices[name]) is None else f"{price:.2f}" for name in PRICES]

    def print(self, console: Console) -> None:
        """The parts one below the other."""
        for places in self.parts:
            header, *rows = [[row[place] for place in (0, *places)] for row in (self.header, *self.text())]
            console.print(shown.terminal(header, rows, console.width))
            console.print()
        for note in self.notes:
            console.print(Text(note))

    def markdown(self) -> str:
        return shown.markdown(self.header, self.text(), self.notes)

    def csv(self) -> str:
        """A line for each row, with numbers in full: shares of 1 with _low and _high."""
        names = [*SHARES, WORST, WORST_L2, *SEARCHES]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
        about = ["network", "layer", "defence", "seeds"]
        writer.writerow(
            [*about, *ends, "deepfool_l2", "alarms", "parameters", *(f"{name}_over_vanilla" for name in PRICES)]
        )
        for line in self.lines:
            shares = [each for name in names for each in line.shares.get(name, ("", "", ""))]
            own = [line.rival.name, line.rival.layer, line.rival.defence, " ".join(map(str, line.seeds))]
            alarms = "" if line.alarms is None else "; ".join(line.alarms)
            writer.writerow([*own, *shares, line.distance, alarms, line.parameters, *line.prices.values()])
        return text.getvalue()


def over_seeds(shares: Sequence[Share]) -> Share:
    """The mean accuracy, and an interval that holds those of all seeds."""
    return mean(each[0] for each in shares), *hull([each[1:] for each in shares])


def _line(
    rival: Rival,
    seeds: Sequence[int],
    results: Results,
    audits: Mapping[tuple[str, int], Mapping[str, Any] | None],
    prices: Mapping[str, Mapping[str, float]],
) -> Line:
    mine = [row for row in results.records if row["model"] == rival.name]
    met = {seed: {row["attack"]: row for row in mine if row["seed"] == seed} for seed in seeds}
    met = {seed: rows for seed, rows in met.items() if "clean" in rows}
    verdicts = [verdict for seed in met if (verdict := audits[rival.name, seed]) is not None]
    shares = [_shares(rows, results) | _worst_shares(audits[rival.name, seed]) for seed, rows in met.items()]
    known = [name for name in shares[0] if all(name in each for each in shares)] if shares else []
    distances = [rows[run.DEEPFOOL].get("median_l2") for rows in met.values() if run.DEEPFOOL in rows]
    sizes = results.facts.get("sizes.json", {})
    own = prices.get(rival.name, {})
    return Line(
        rival,
        tuple(met),
        {name: over_seeds([each[name] for each in shares]) for name in known},
        mean(np.inf if each is None else each for each in distances) if len(distances) == len(met) > 0 else None,
        tuple(dict.fromkeys(alarm for verdict in verdicts for alarm in verdict["alarms"])) if verdicts else None,
        next((sizes[f"{rival.name}/seed{seed}"]["parameters"] for seed in met), None),
        {name: own.get(key) for name, key in PRICES.items()},
    )


def _shares(rows: Mapping[str, Mapping[str, Any]], results: Results) -> dict[str, Share]:
    """Of one seed's rows by attack."""
    right = {name: results.outcomes[rows[name]["id"]]["correct"] for name in (*SHARES, *SEARCHES) if name in rows}
    return {name: (float(each.mean()), *wilson(int(each.sum()), len(each))) for name, each in right.items()}


def _worst_shares(verdict: Mapping[str, Any] | None) -> dict[str, Share]:
    """Of an audit, where there is one that came to every image."""
    cases = {} if verdict is None else verdict["worst_case"]
    named = {title: cases.get(threat) for title, threat in ((WORST, "linf"), (WORST_L2, "l2"))}
    return {
        title: (case["accuracy"], *case["interval"])
        for title, case in named.items()
        if case is not None and case["accuracy"] is not None
    }


def _notes(folder: Path, lines: Sequence[Line], images: Mapping[str, int]) -> list[str]:
    plan, facts = wanted.read(folder, wanted.PLAN), wanted.read(folder, "environment.json")
    setting = next((wanted.read(place, "audit.json") for place in sorted((folder / "audits").glob("*"))), None)
    epochs = counted(plan["epochs"], "epoch")
    notes = [
        f"Every network was trained for {epochs} of {plan['train_images']} images, and judged on the same "
        f"{images.get('clean', 0)} images, by LocSearchAdv on {images.get('locsearch') or 'none'} of them."
    ]
    if setting is not None:
        linf, l2 = Budget("linf", setting["eps"]).title, Budget("l2", setting["eps_l2"]).title
        notes.append(
            f"Worst case: images that no attack of an audit fools, within {linf} and within {l2}, with 95 % intervals. "
            f"An audit had {setting['budget']} and chooses its attacks by network and time; with more it finds less."
        )
    seeds = sorted({seed for line in lines for seed in line.seeds})
    if len(seeds) > 1:
        notes.append(f"Means over the seeds {', '.join(map(str, seeds))}; an interval holds those of all seeds.")
    elif seeds:
        notes.append(f"One training each (seed {seeds[0]}): what another seed would change is not known.")
    notes.append(
        "Times and memory are those of one training step and of inference over the vanilla network's, networks that "
        f"are trained before included, measured in one run on {_machine(facts)}."
    )
    return notes


def _machine(facts: Mapping[str, Any]) -> str:
    return str(facts.get("gpu") or facts.get("processor") or "this machine")


def _of_detectors(results: Results) -> Iterator[str]:
    """A sentence for each network with a detector: what it holds once images that it rejects count."""
    for model, seed in results.measures.networks:
        held = {row["attack"]: row for row in results.measures.rows[model, seed] if "accuracy_rejecting" in row}
        if held:
            said = ", ".join(
                f"{TITLES.get(name, name)} {100 * row['accuracy_rejecting']:.1f} %"
                + (f" (AUC {row['detection_auc']:.2f})" if "detection_auc" in row else "")
                for name, row in held.items()
            )
            yield (
                f"{model}, seed {seed}, has a detector that rejects 5 % of its clean images. Clean and right and not "
                f"rejected, or under attack and right or rejected: {said}. The table judges its classifier alone."
            )


def _verdict(place: Path) -> Mapping[str, Any] | None:
    rows = RunFolder(place, writes=False).rows.values() if (place / "rows.jsonl").is_file() else ()
    return next((row for row in rows if row.get("kind") == "verdict"), None)


def _whole(share: Share | None) -> str:
    return "–" if share is None else f"{100 * share[0]:.1f} ({100 * share[1]:.0f} to {100 * share[2]:.0f})"
