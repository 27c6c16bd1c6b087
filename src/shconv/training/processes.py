"""The processes that train one network together, as accelerate finds them (torchrun, accelerate launch) or one alone:
who takes which images, sums over all, and what only the main one does."""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn

from shconv.files import locked

T = TypeVar("T")

# What gloo says of a peer that is not there any more; NCCL has an error type for it.
LOST = ("closed by peer", "reset by peer", "broken pipe", "connection refused", "timed out")


@dataclass(frozen=True)
class Processes:
    """Every method that sums, gathers or says `on_main` has to be called by all of them, in the same order."""

    accelerator: Accelerator
    count: int = 1
    rank: int = 0

    @classmethod
    def found(cls) -> Self:
        """Those that the environment tells of."""
        # Without an accelerator, accelerate joins processes only where it is told that the CPU is meant.
        cpu = not torch.accelerator.is_available()
        wrapping = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        accelerator = Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=[wrapping])  # precision: the learner's
        return cls(accelerator, accelerator.num_processes, accelerator.process_index)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    @property
    def main(self) -> bool:
        """Is this the one that writes and speaks?"""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each number summed over the processes, in float64."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: T) -> list[T]:
        """The value of each, by rank."""
        gathered: list[Any] = [value]
        if self.count > 1:
            gathered = [None] * self.count
            dist.all_gather_object(gathered, value)
        return gathered

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` gives the main process, for all of them; what it raises there is raised in all of them."""
        if self.count == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.main:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, device=self.device)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    def share_buffers(self, network: nn.Module) -> None:
        """The main process's running statistics in all of them: each has those of its own images."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    @contextmanager
    def alone_in(self, folder: Path) -> Iterator[None]:
        """The folder locked for these processes. Raises InputError where others have it."""
        with ExitStack() as held:
            self.on_main(lambda: held.enter_context(locked(folder)))
            yield


@contextmanager
def naming_the_lost(processes: Processes) -> Iterator[None]:
    """Raises ConnectionAbortedError where another process is gone, in place of whatever error its absence causes."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or any(word in str(error).lower() for word in LOST)
        if processes.count == 1 or not lost:
            raise
        reason = str(error).splitlines()[-1][:160]
        message = (
            f"another process of this training is gone, its own message says why ({reason}); the same command goes on"
        )
        raise ConnectionAbortedError(errno.ECONNABORTED, message) from error
