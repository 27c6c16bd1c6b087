"""The processes that share a run, started by torchrun, accelerate or SLURM: which one this is, and meeting the others.
The first holds the folder's lock, speaks, and writes rows; each stores the outcomes of its own images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from shconv.errors import InputError

PATIENCE = timedelta(hours=12)  # with a process that is alive and at work; one that ends is noticed at once


@dataclass(frozen=True, eq=False)
class Team:
    """By default this process is alone."""

    rank: int = 0
    size: int = 1
    group: Any = None  # on the CPU, so that waiting neither takes a GPU nor runs into the GPU group's short timeout

    @classmethod
    def found(cls) -> "Team":
        """The processes that accelerate finds, all with as many threads as the one that has the fewest."""
        from accelerate import PartialState

        # Without an accelerator it joins processes only where it is told that the CPU is meant.
        state = PartialState(cpu=not torch.accelerator.is_available())
        if state.num_processes == 1:
            return cls()
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        team = cls(state.process_index, state.num_processes, group)
        torch.set_num_threads(min(team._told(torch.get_num_threads())))
        return team

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """A section that ends well for all, or in an error for all.

        Raises InputError with the message of the first that failed, or that one has ended without a word.
        """
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        messages = self._told(None if failure is None else str(failure)) if self.size > 1 else []
        if failure is not None:
            raise failure
        for rank, message in enumerate(messages):
            if message is not None:
                raise InputError(f"process {rank} of {self.size} failed: {message}")

    def wait(self) -> None:
        """Until every process is here. Raises InputError where one has ended."""
        with self.agreed():
            pass

    def _told(self, mine: Any) -> list[Any]:
        """What each process says, by rank."""
        said: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(said, mine, group=self.group)
        except RuntimeError as error:
            raise InputError(
                f"another of the {self.size} processes has ended, its own message says why; "
                "what was computed is stored, and the same command goes on"
            ) from error
        return said
