"""What a table of rivals is made of, and where its folder keeps what is made."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shconv.experiments.run_folder import RunFolder
from shconv.rivals.prices import Prices
from shconv.rivals.which import Rival
from shconv.training import ModelConfig, Recipe

PLAN, PRICES, ROWS, CLOCK = "rivals-plan.json", "rivals-prices.json", "rivals.json", "rivals-clock.json"
Training = tuple[Rival, int]  # and its seed


@dataclass(frozen=True)
class Wanted:
    """What a table is made of. `config` builds a network of this data by its name; the budget is of all rows."""

    rivals: tuple[Rival, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    config: Callable[[str], ModelConfig]
    images: int
    eps: float | str
    budget: str
    how: Mapping[str, Any] = field(default_factory=dict)  # train's engine, workers and device

    @property
    def trainings(self) -> list[Training]:
        return [(rival, seed) for seed in self.seeds for rival in self.rivals]

    @property
    def in_turn(self) -> tuple[list[Training], list[Training]]:
        """All networks to train, first those that need no others, then those that learn from them."""
        sources = [(source, seed) for rival, seed in self.trainings for source in rival.sources]
        both = dict.fromkeys([*self.trainings, *sources])
        return [each for each in both if not each[0].sources], [each for each in both if each[0].sources]


def place_of(folder: Path, room: str, rival: Rival, seed: int) -> Path:
    return folder / room / f"{rival.name}-seed{seed}"


def settle_rows(folder: RunFolder, asked: Wanted) -> None:
    """Add the rows to those that the folder's table has."""
    stored = read(folder.path, ROWS)
    folder.save_json(ROWS, {**stored, **{rival.name: asdict(rival) for rival in asked.rivals}})


def kept_prices(folder: Path) -> Prices:
    return dict(read(folder, PRICES))


def read(folder: Path, name: str) -> Any:
    """What a JSON file of the folder holds; {} where there is none."""
    return json.loads((folder / name).read_bytes()) if (folder / name).is_file() else {}
