"""How long every row may train and be attacked, so that all of them end within the budget. Made once from measured
prices and kept, so that a stopped run goes on with the same numbers, and rows added later are treated alike."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from shconv.audit.clock import minutes
from shconv.audit.setting import budget_seconds
from shconv.errors import InputError
from shconv.files import replace_json
from shconv.training import Recipe

TRAINING, SEARCHES, AUDITS = 0.45, 0.1, 0.25  # of the budget; the rest is for prices, other attacks and reports
TESTS = 1.3  # an epoch takes longer than its steps: its test, and PGD beside the defences that train on attacks
SHORTEST_AUDIT = 5.0  # seconds
QUERIES = 3_000  # forward passes of a search by LocSearchAdv on a small image, about
SLOWER = 2.0  # than inference a query is


@dataclass(frozen=True)
class Plan:
    """epochs of each training, seconds of each audit (None: no limit), images for LocSearchAdv, and about how many
    seconds all trainings take."""

    epochs: int
    audit_seconds: float | None
    searched: int
    training_seconds: float

    @classmethod
    def made(
        cls, budget: str, recipe: Recipe, images: int, train_images: int, steps: Sequence[float], inference: float
    ) -> Self:
        """steps: seconds of a training step of every training to come; inference: of an image."""
        seconds, count = budget_seconds(budget), len(steps)
        per_epoch = sum(steps) * max(1, math.ceil(train_images / recipe.batch_size)) * TESTS
        if math.isinf(seconds):
            return cls(recipe.epochs, None, images, recipe.epochs * per_epoch)
        epochs = min(recipe.epochs, max(1, int(TRAINING * seconds / per_epoch)))
        each = 2 * QUERIES * SLOWER * inference * count
        searched = min(images, max(2, int(SEARCHES * seconds / each)))
        return cls(epochs, max(SHORTEST_AUDIT, AUDITS * seconds / count), searched, epochs * per_epoch)

    @property
    def audit_budget(self) -> str:
        return "full" if self.audit_seconds is None else f"{self.audit_seconds:.1f}s"

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What was kept there; None where nothing was. Raises InputError where it is damaged."""
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}); take another --out") from error

    def save(self, path: Path) -> None:
        replace_json(path, asdict(self))

    def said(self, budget: str, rows: int, recipe: Recipe) -> str:
        few = f", of the recipe's {recipe.epochs}" if self.epochs < recipe.epochs else ""
        audit = "no limit" if self.audit_seconds is None else f"{self.audit_seconds:.0f} s"
        each = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        said = (
            f"{rows} trainings within {budget}: {each} each{few}, about {minutes(self.training_seconds)} in all; "
            f"an audit of {audit} each; LocSearchAdv on {self.searched} images"
        )
        if self.training_seconds > TRAINING * budget_seconds(budget):
            return f"{said}. This takes longer than the budget: leave some --defences out, or give a larger --budget"
        return said
