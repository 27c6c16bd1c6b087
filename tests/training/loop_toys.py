"""What the tests of the loop share: what two equal trainings agree in, and the batches that the loop gets."""

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from shconv.data import Batch, ImageData
from shconv.training import ModelConfig, Recipe, TrainingResult, job, train

Build = Callable[..., nn.Module]
TIMES = {"seconds": 0, "images_per_second": 0}


@dataclass(frozen=True)
class Training:
    """What to train, on what and how, in folders below ``place``."""

    config: ModelConfig
    data: ImageData
    recipe: Recipe
    place: Path

    def run(self, folder: str | Path = "", **how: Any) -> TrainingResult:
        """`train`, in the folder of that name, silently unless asked otherwise."""
        return train(self.config, self.data, self.recipe, self.place / folder, **{"progress": False, **how})

    def but(self, **changes: Any) -> "Training":
        """By another recipe."""
        return replace(self, recipe=replace(self.recipe, **changes))


def outcome(of: TrainingResult | Path) -> tuple[bytes, list[dict[str, Any]]]:
    """All that two equal trainings, or their folders, agree in: the weights' file and the log without its times."""
    folder = of if isinstance(of, Path) else of.folder
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return (folder / "model.safetensors").read_bytes(), [row | TIMES for row in rows]


def batches_of(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[Batch]:
    """The batches that the loop gets from now on; KeyboardInterrupt instead of number `stop_at`."""
    seen: list[Batch] = []
    original = job.training_batches

    class Recorded:
        def __init__(self, *args: Any, **settings: Any) -> None:
            self.batches = original(*args, **settings)

        def __len__(self) -> int:
            return len(self.batches)

        def __iter__(self) -> Generator[Batch]:
            for batch in self.batches:
                if len(seen) == stop_at:
                    raise KeyboardInterrupt
                seen.append(batch)
                yield batch

    monkeypatch.setattr(job, "training_batches", Recorded)
    return seen
