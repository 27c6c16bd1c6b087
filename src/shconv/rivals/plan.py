"""How long every row may train and be attacked, so that all of them end within the budget. The trainings are planned
from measured prices, the searches and audits from the time that is then left. What is planned is kept, so that a
stopped run goes on with the same numbers, and rows added later are treated alike."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from shconv.audit.clock import minutes
from shconv.audit.setting import budget_seconds
from shconv.experiments.run_folder import whole
from shconv.files import replace_json
from shconv.numbers import counted
from shconv.training import Recipe

PRICING = 0.05  # of the budget, about
TRAINING = 0.4  # of the budget; the rest is for prices, attacks and audits
SEARCHES = 0.3  # of the time left after the trainings
TESTS = 1.3  # an epoch takes longer than its steps: its test, and PGD beside the defences that train on attacks
FEWEST_STEPS = 4  # of a training
FEWEST_SEARCHED = 5  # images for LocSearchAdv; where there is no time for them, none: fewer say nothing
SHORTEST_AUDIT = 5.0  # seconds
SLOWER = 1.25  # than inference a query is, about


@dataclass(frozen=True)
class Plan:
    """epochs of each training, on so many images; about how many seconds all trainings take. Then, None as long as
    they are not known: images for LocSearchAdv, and the budget of each audit, as `shconv audit` takes it."""

    epochs: int
    train_images: int
    training_seconds: float
    searched: int | None = None
    audit_budget: str | None = None

    @classmethod
    def made(
        cls, budget: str, recipe: Recipe, train_images: int, steps: Sequence[float], left: float, at_a_time: int = 1
    ) -> Self:
        """steps: seconds of a training step of every training to come. left: seconds of the budget. at_a_time: how many
        networks train side by side.

        Where not even one epoch of each fits, they train on fewer images, all on the same.
        """
        per_step = sum(steps) * TESTS / at_a_time
        per_epoch = per_step * max(1, math.ceil(train_images / recipe.batch_size))
        if math.isinf(budget_seconds(budget)):
            return cls(recipe.epochs, train_images, recipe.epochs * per_epoch)
        seconds = max(0.0, min(left, TRAINING * budget_seconds(budget)))
        if seconds >= per_epoch:
            epochs = min(recipe.epochs, int(seconds / per_epoch))
            return cls(epochs, train_images, epochs * per_epoch)
        few = max(FEWEST_STEPS, int(seconds / per_step))
        return cls(1, min(train_images, few * recipe.batch_size), few * per_step)

    def with_searches(self, budget: str, images: int, queries: float, inference: float, left: float) -> Self:
        """queries: forward passes of all searches of an image; inference: seconds of an image, by all networks."""
        if math.isinf(budget_seconds(budget)):
            return replace(self, searched=images)
        fit = int(max(0.0, SEARCHES * left) / (queries * SLOWER * inference))
        return replace(self, searched=min(images, fit) if fit >= FEWEST_SEARCHED else 0)

    def with_audits(self, budget: str, count: int, left: float) -> Self:
        if math.isinf(budget_seconds(budget)):
            return replace(self, audit_budget="full")
        return replace(self, audit_budget=f"{max(SHORTEST_AUDIT, left / count):.1f}s")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What was kept there; None where nothing was. Raises InputError where it is damaged."""
        with whole(path):
            return cls(**json.loads(path.read_bytes())) if path.exists() else None

    def save(self, path: Path) -> Self:
        replace_json(path, asdict(self))
        return self

    def said(self, budget: str, rows: int, recipe: Recipe, train_images: int) -> str:
        few = f", of the recipe's {recipe.epochs}" if self.epochs < recipe.epochs else ""
        each = counted(self.epochs, "epoch")
        on = "" if self.train_images >= train_images else f", on {self.train_images} of {train_images} images"
        said = f"{rows} trainings within {budget}: {each} each{few}{on}, about {minutes(self.training_seconds)} in all"
        if self.training_seconds > TRAINING * budget_seconds(budget) * 1.01:
            return f"{said}. This takes longer than the budget: leave some --defences out, or give a larger --budget"
        return said


class Clock:
    """The time that a table has taken, those of stopped runs included; it is kept whenever it is read. Raises
    InputError where the file is damaged."""

    def __init__(self, path: Path, budget: str) -> None:
        self._path, self._budget, self._began = path, budget_seconds(budget), time.monotonic()
        with whole(path):
            self._before = float(json.loads(path.read_bytes())["seconds"]) if path.exists() else 0.0

    def left(self) -> float:
        """Seconds of the budget; below 0 where it is spent."""
        spent = self._before + time.monotonic() - self._began
        replace_json(self._path, {"seconds": spent})
        return self._budget - spent
