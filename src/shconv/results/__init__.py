"""What a run measured, as tables that people use: rows, images, worst cases and paired comparisons as DataFrames.
`shconv.evaluate` returns it, and `shconv.results.load` reads it from any run folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from shconv import terminal
from shconv.arguments import checked
from shconv.attacks.budget import Norm
from shconv.attacks.checks import check_choice
from shconv.errors import InputError
from shconv.experiments.outcomes import Outcomes
from shconv.experiments.run_folder import Row, RunFolder, read_facts
from shconv.files import replace_file
from shconv.folders import what_is_at
from shconv.intervals import wilson
from shconv.paired import Paired
from shconv.report.folder.rows import AUDIT, completed, parsed, read_json_lines
from shconv.report.output.render import html_table
from shconv.results import shown
from shconv.results.curves import Point, curve
from shconv.results.measures import Measures, Network, Right
from shconv.results.per_image import per_image, threat_title
from shconv.results.stored import Stored, save_pngs, stored_images

if TYPE_CHECKING:
    from pandas import DataFrame

FACTS = ("data.json", "networks.json", "sizes.json", "attacks.json", "environment.json")


@checked
def load(folder: str | Path) -> "Results":
    """The results in a run folder of `reproduce`, `evaluate` or `shconv.evaluate`.

    Raises InputError where there are none, or where a file is damaged.
    """
    return Results.load(folder)


@dataclass(frozen=True, eq=False)
class Results:
    """The rows of a run and the outcome of every image.

    `records`: the rows as in rows.jsonl, without an audit's. `outcomes`: the arrays of each row by its id. `labels` and
    `files` (n,): class and file of every test image; empty if the run did not store them.

    Example:
        ```python
        results = shconv.results.load("runs/demo")
        results.print()
        table = results.rows()  # a pandas DataFrame
        ```
    """

    records: Sequence[Row]
    outcomes: Mapping[str, Mapping[str, NDArray[Any]]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[int] = ()
    files: Sequence[str] = ()

    @cached_property
    def measures(self) -> Measures:
        """What `worst_case`, `compare` and `summary` are made of, as arrays."""
        return Measures(self.records, self.outcomes)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """As `shconv.results.load`."""
        path = Path(folder)
        if not (path / "rows.jsonl").is_file():
            raise InputError(
                f"{path} {what_is_at(path)}; want a folder with results of reproduce, evaluate or shconv.evaluate"
            )
        records, _ = read_json_lines(path / "rows.jsonl")
        if not records:
            raise InputError(f"{path} holds no results yet: its rows.jsonl has no whole row")
        rows, _ = parsed(
            path / "rows.jsonl", (each for each in records if each[1].get("experiment") != AUDIT), completed
        )
        facts = {name: read_facts(path / name) for name in FACTS if (path / name).is_file()}
        labels, files = stored_images(path / "images.csv")
        return cls(rows, Stored(path, [row["id"] for row in rows]), facts, labels, files)

    def in_memory(self) -> Self:
        """The same without its folder."""
        outcomes = {row["id"]: dict(self.outcomes[row["id"]]) for row in self.records}
        return type(self)(self.records, outcomes, self.facts, self.labels, self.files)

    def rows(self) -> "DataFrame":
        """A line for each network, attack and step: accuracy with its 95 % interval (shares of 1), RCD, distances.

        `threat`: the budget that the attack was held to. Parameters of the attack stand in `parameters`.
        """
        import pandas as pd

        lines = []
        for row in self.records:
            low, high = row["interval"] if row["n"] else (None, None)
            kept = {key: value for key, value in row.items() if key not in ("interval", "threat", "wanted")}
            lines.append({**kept, "threat": threat_title(row), "low": low, "high": high})
        return pd.DataFrame(lines)

    def images(self, model: str | None = None, attack: str | None = None) -> "DataFrame":
        """A line for each image and row, of one network and attack where they are given.

        Columns: experiment, model, seed, attack, objective, route, threat, step; index, file, label; clean_prediction,
        clean_correct; prediction, correct, p_y, rc, rcd, linf, l2, queries and outside (it broke its budget, so the
        clean image stands for it). A prediction is missing where the logits have NaN or infinity, which counts as
        misclassified, and in results of versions that did not store it.
        """
        import pandas as pd

        parts = [
            per_image(row, Outcomes.of(self.outcomes[row["id"]], 0.0), self._clean(row), self.labels, self.files)
            for row in self.records
            if model in (None, row["model"]) and attack in (None, row["attack"])
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def worst_case(self) -> "DataFrame":
        """One line for each network and budget: the images that are right without an attack and that no attack within
        the budget fools, with 95 % interval.

        The first line counts the attacks that every network had (with the gradient of both routes), so networks can be
        compared. If an SHC network was also attacked through single routes, a second line counts these too.
        """
        import pandas as pd

        lines = []
        for threat in self.measures.threats:
            for network in self.measures.networks:
                right = self.measures.right(network, threat)
                if right is None or not len(right[0]):
                    continue
                index, correct, attacks = right
                n, left = len(index), int(correct.sum())
                low, high = wilson(left, n)
                about = {"model": network[0], "seed": network[1], "threat": threat.budget.title}
                about |= {"own_routes": threat.own_routes}
                lines.append({**about, "attacks": attacks, "n": n, "accuracy": left / n, "low": low, "high": high})
        return pd.DataFrame(lines)

    def compare(self, a: str, b: str, seed: int | None = None) -> "DataFrame":
        """Networks a and b image by image: clean, under each attack, and in the worst case.

        `difference` is b minus a in shares of 1, with Newcombe's 95 % interval (low, high). `p` is McNemar's exact
        test. Only attacks that both networks had count, on the images of both.

        Args:
            seed: both networks' training seed, if there are several. None: the lowest that both have.

        Raises:
            InputError: an unknown network.
        """
        import pandas as pd

        lines = []
        if seed is None:  # one that both have, where there is one
            seeds = [{number for name, number in self.measures.networks if name == each} for each in (a, b)]
            seed = min(set.intersection(*seeds), default=None)
        for title, left, right in self._shared(self._found(a, seed), self._found(b, seed)):
            index, at_a, at_b = np.intersect1d(left[0], right[0], return_indices=True)
            if not len(index):
                continue
            counts = Paired.of(right[1][at_b], left[1][at_a])
            low, high = counts.interval
            line: dict[str, Any] = {"measure": title, "n": counts.n}
            line |= {a: float(left[1][at_a].mean()), b: float(right[1][at_b].mean())}
            lines.append(line | {"difference": counts.difference, "low": low, "high": high, "p": counts.p})
        return pd.DataFrame(lines)

    def curve(
        self, model: str, attack: str, *, norm: Norm | None = None, route: str = "both", seed: int | None = None
    ) -> "DataFrame":
        """Accuracy over distance, for attacks that search for the nearest adversarial image, such as DeepFool.

        One line at distance 0 and one at each distance at which an image is broken: distance, n, accuracy and its 95 %
        interval (low, high) in shares of 1. For an attack with a budget these are the distances of its examples, not
        the smallest ones.

        Args:
            norm: "l2" or "linf"; None uses the attack's own, "l2" if it has none.
            seed: the network's training seed, if there are several.

        Raises:
            InputError: the network was not attacked so, or in several ways under that name.
        """
        import pandas as pd

        if norm is not None:
            check_choice("norm", norm, Norm)
        name, number = self._found(model, seed, "curve")
        rows = {
            (row["objective"], row["parameters"].get("sigma")): row
            for row in self.records
            if (row["model"], row["seed"], row["attack"], row["route"] or "both") == (name, number, attack, route)
            and row["step"] is None
        }
        if len(rows) != 1:
            met = ", ".join(dict.fromkeys(row["attack"] for row in self.records if row["attack"] != "clean"))
            ways = f"{len(rows)} kinds of it" if rows else f"{name} did not meet it through route {route}"
            raise InputError(f"curve: got attack {attack!r}, {ways}; want one of {met}")
        (row,) = rows.values()
        found, clean = Outcomes.of(self.outcomes[row["id"]], 0.0), self._clean(row)
        if clean is not None:  # what is wrong without an attack is so at distance 0, also where an attack repairs it
            right = clean.at(found.index).correct
            found = replace(found, correct=found.correct & right, linf=found.linf * right, l2=found.l2 * right)
        points = curve(found, norm or row["parameters"].get("norm", "l2"))
        return pd.DataFrame(points, columns=Point._fields)

    def summary(self) -> "DataFrame":
        """A line for each network: accuracy clean, under each attack (both routes), and in the worst cases."""
        import pandas as pd

        lines = []
        for network in self.measures.networks:
            line: dict[str, Any] = {"model": network[0], "seed": network[1]}
            line |= {title: float(right[1].mean()) for title, right in self.measures.columns(network) if len(right[0])}
            lines.append(line)
        return pd.DataFrame(lines)

    def print(self, console: Console | None = None) -> None:
        """The summary on standard output, or a console: a line for each measure, accuracy in per cent."""
        out = console or terminal.console()
        out.print(shown.terminal(*self._by_measure(), out.width))

    def _repr_html_(self) -> str:
        return html_table(*self._by_measure())

    def _by_measure(self) -> tuple[list[str], list[list[str]]]:
        """A header of the networks' names, and of each measure its title and each network's accuracy in per cent."""
        networks = self.measures.networks
        seeds = len({seed for _, seed in networks}) > 1
        names = [f"{name}, seed {seed}" if seeds else name for name, seed in networks]
        columns = [dict(self.measures.columns(network)) for network in networks]
        titles = dict.fromkeys(title for each in columns for title in each)
        return ["accuracy, %", *names], [[title, *(_percent(each.get(title)) for each in columns)] for title in titles]

    def save(self, folder: str | Path, *, png: bool = False) -> Path:
        """Write a run folder (rows, outcomes, facts), with rows.csv and outcomes.csv beside; `shconv report` reads it.

        png: also the adversarial images, where they were kept, as adversarial/ROW/INDEX.png.
        """
        path = Path(folder)
        with RunFolder.opened(path) as held:
            ours = {row["id"]: row for row in self.records}
            if any(ours.get(id) != completed(row) for id, row in held.rows.items()):
                raise InputError(f"{path} holds another run; take another folder")
            for row in self.records:
                if row["id"] not in held.rows:
                    held.add(dict(row), self.outcomes[row["id"]])
            for name, fact in self.facts.items():
                held.save_json(name, fact)
            if len(self.labels):
                held.save_images(self.files, np.asarray(self.labels))
        self.write_csv(path, png=png)
        return path

    def write_csv(self, folder: Path, *, png: bool = False) -> None:
        """Write rows.csv, a line for each row, and outcomes.csv, a line for each image and row, into the folder."""
        for name, frame in (("rows.csv", self.rows()), ("outcomes.csv", self.images())):
            replace_file(folder / name, frame.to_csv(index=False).encode("utf-8", "backslashreplace"))
        if png:
            save_pngs(folder / "adversarial", self.records, self.outcomes)

    def _clean(self, row: Row) -> Outcomes | None:
        return self.measures.clean((row["model"], row["seed"]))

    def _shared(self, a: Network, b: Network) -> Iterator[tuple[str, Right, Right]]:
        of_b = dict(self.measures.columns(b))
        return ((title, right, of_b[title]) for title, right in self.measures.columns(a) if title in of_b)

    def _found(self, name: str, seed: int | None, asked: str = "compare") -> Network:
        for network in self.measures.networks:
            if network[0] == name and seed in (None, network[1]):
                return network
        known = ", ".join(f"{model} (seed {number})" for model, number in self.measures.networks)
        raise InputError(f"{asked}: got {name!r}{'' if seed is None else f', seed {seed}'}; want one of {known}")


def _percent(right: Right | None) -> str:
    return "–" if right is None or not len(right[1]) else f"{100 * right[1].mean():.1f}"
