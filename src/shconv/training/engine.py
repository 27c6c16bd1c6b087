"""How a training is carried out: what decides its speed, what it needs and what it survives. Not what is learnt."""

import math
from dataclasses import dataclass
from typing import Any

from shconv.arguments import checked_fields
from shconv.errors import InputError
from shconv.numbers import counted
from shconv.processes import Processes
from shconv.training.recipe import Recipe
from shconv.training.tracking import check_trackers


@checked_fields
@dataclass(frozen=True)
class Engine:
    """How a training is carried out. The recipe's batch stays the same, however it is divided.

    What does differ is over how many images a batch norm takes its statistics: those of one process's micro-batch, or,
    with sync_batch_norm, of every process's. Raises InputError for values out of range.
    """

    accumulation: int = 1  # micro-batches whose gradients are summed to one step, where a batch does not fit in memory
    sync_batch_norm: bool = False
    compile: bool = False  # torch.compile
    graphs: bool = True  # a step's passes from a CUDA graph, where that serves
    save_minutes: float | None = 5.0  # between two stored states; one is stored at each epoch's end all the same
    save_steps: int | None = None  # the same in steps
    keep_every: int | None = None  # epochs between two checkpoints that are kept for good
    log: tuple[str, ...] = ()  # wandb, mlflow, tensorboard

    def __post_init__(self) -> None:
        for name in ("accumulation", "save_steps", "keep_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; wanted: an integer >= 1")
        if self.save_minutes is not None and not 0 <= self.save_minutes < math.inf:
            raise InputError(f"save_minutes is {self.save_minutes}; wanted: a number >= 0")
        check_trackers(self.log)

    def check(self, recipe: Recipe, images: int, processes: Processes) -> None:
        """Raises InputError where a batch has fewer images than there are shares of it."""
        batch, shares = min(recipe.batch_size, images), processes.count * self.accumulation
        if batch < shares:
            raise InputError(f"a batch of {counted(batch, 'image')} cannot be divided among {self.divided(processes)}")

    def divided(self, processes: Processes) -> str:
        """Among what a batch is divided; "" where it is not."""
        parts = [f"{processes.count} processes"] if processes.count > 1 else []
        parts += [f"{self.accumulation} micro-batches"] if self.accumulation > 1 else []
        return " and ".join(parts)

    def record(self, batch: int, processes: Processes) -> dict[str, Any]:
        """How batches of so many images are carried out, as plain values: kept with the result, and compared where a
        training is continued."""
        count = processes.count
        together = batch // self.accumulation // (1 if self.sync_batch_norm else count)
        return {"processes": count, "accumulation": self.accumulation, "batch_norm_images": together}
