"""What an inspection found: records that JSON can hold, to be printed, drawn, saved and read again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shconv.arguments import checked
from shconv.errors import InputError
from shconv.files import replace_file, replace_text
from shconv.report.inspection.tables import grids
from shconv.report.output.render import print_table, to_csv, to_html, to_markdown
from shconv.terminal import console

FILE = "inspection.json"


@dataclass(frozen=True, eq=False)
class Inspection:
    """What `inspection.run` measured. Medians are over the images; `difference` is always in shares of 1 with a paired
    95 % interval."""

    name: str
    eps: float
    images: int
    network: Mapping[str, Any]
    """share, cosine, agreement of the routes; what holding all maps at their mean does."""
    layers: tuple[Mapping[str, Any], ...]
    """One record an SHC layer: its map and what depends on it."""
    attacks: tuple[Mapping[str, Any], ...]
    """One record an attack and route, over the images that are correct without an attack."""
    linearity: tuple[Mapping[str, Any], ...]
    """One record a route: what one step of eps promises, and what comes of it."""

    def print(self) -> None:
        """The tables, on standard output."""
        for grid in grids(asdict(self), narrow=True):
            print_table(grid, console())

    def save(self, folder: Path | str) -> Path:
        """Write inspection.json, a CSV and a Markdown file for each table, and the figure; returns the folder."""
        from shconv.report.inspection.figure import draw  # matplotlib takes a second to import

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        held = asdict(self)
        for grid in grids(held):
            replace_text(place / f"{grid.name}.csv", to_csv(grid, self.name))
            replace_text(place / f"{grid.name}.md", to_markdown(grid))
        drawn = draw(held)
        for kind in ("svg", "png"):
            replace_file(place / f"{drawn.name}.{kind}", drawn.saved(kind))
        replace_text(place / FILE, json.dumps(held, indent=1) + "\n")
        return place

    def _repr_html_(self) -> str:
        """In a notebook: the tables."""
        return "".join(map(to_html, grids(asdict(self))))


@checked
def load(folder: Path | str) -> Inspection:
    """What `Inspection.save` wrote. Raises InputError, naming the file, where it is missing or damaged."""
    path = Path(folder) / FILE
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: tuple(held[key]) for key in ("layers", "attacks", "linearity")}
        return Inspection(held["name"], held["eps"], held["images"], held["network"], **lists)
    except FileNotFoundError:
        raise InputError(f"there is no {path}; `shconv inspect` writes one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
