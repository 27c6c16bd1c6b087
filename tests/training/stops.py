"""Work in the middle of a training on the toy data, such as what stops it."""

from collections.abc import Callable
from typing import Any

import pytest

from shconv.data import Batch
from shconv.training import job

STEPS = 4  # an epoch of the toy data


def interrupt() -> None:
    raise KeyboardInterrupt


def before_step(patch: pytest.MonkeyPatch, number: int, work: Callable[[], object]) -> list[int]:
    """Does `work` before the step of that number, from 0 over all epochs; the list grows with the steps."""
    original = job.Epoch.step
    taken: list[int] = []

    def step(self: job.Epoch, batch: Batch, sums: Any) -> Any:
        taken.append(self.number * STEPS + sums.steps)
        if taken[-1] == number:
            work()
        return original(self, batch, sums)

    patch.setattr(job.Epoch, "step", step)
    return taken
