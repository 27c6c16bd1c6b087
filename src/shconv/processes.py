"""The processes that share a run, as accelerate finds them (torchrun, accelerate launch), or one alone: which one this
is, and how they meet. The first holds the folder's lock, speaks, and writes what they have in common."""

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist

from shconv.devices import device_named
from shconv.errors import InputError
from shconv.files import locked

T = TypeVar("T")

PATIENCE = timedelta(hours=12)  # with a process that is alive and at work; one that ends is noticed at once

SHORT = 0.05  # seconds until a signal is heard

# What gloo says of a peer that is not there any more; NCCL has an error type for it.
LOST = ("closed by peer", "reset by peer", "broken pipe", "connection refused", "timed out")


@dataclass(frozen=True, eq=False)
class Processes:
    """This one among `count`; by default alone.

    All of them have to call what makes them meet (`sum`, `gather`, `wait`, `on_first` and the like), in the same order.
    Where one is gone that raises ConnectionAbortedError in the others.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0  # on its node
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    group: Any = None  # over which they meet; None: torch's own, with its timeout of minutes

    @classmethod
    def found(cls, *, patient: bool = False, device: str | None = None) -> Self:
        """Those that the environment tells of, all with as many threads as the one that has the fewest.

        patient: they may be hours apart, and meet on the CPU, where waiting takes no GPU.
        device: as `device_named` takes it; None: the accelerator that there is, or the CPU. Raises InputError for one
        that is not there, and for a numbered one where several processes have to have one each.
        """
        from accelerate import PartialState

        # Without an accelerator it joins processes only where it is told that the CPU is meant.
        asked = device_named(device)
        on_cpu = not torch.accelerator.is_available() if asked is None else asked.type == "cpu"
        state = PartialState(cpu=on_cpu)
        if state.num_processes == 1:
            return cls(device=asked or state.device)
        if asked is not None and asked.index is not None:
            raise InputError(f"device: got {device} for {state.num_processes} processes; want {asked.type}, one each")
        group = dist.new_group(backend="gloo", timeout=PATIENCE) if patient else None
        found = cls(state.process_index, state.num_processes, state.local_process_index, state.device, group)
        torch.set_num_threads(min(found.gather(torch.get_num_threads())))
        return found

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each number summed over the processes, in float64."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with self._meeting():
            self._await(dist.all_reduce(total, group=self.group, async_op=True))
        return total.tolist()

    def gather(self, value: T) -> list[T]:
        """The value of each, by rank."""
        gathered: list[Any] = [value]
        if self.count > 1:
            gathered = [None] * self.count
            with self._meeting():
                self._meet()
                dist.all_gather_object(gathered, value, group=self.group)
        return gathered

    def wait(self) -> None:
        """Until every process is here."""
        self.gather(None)

    def on_first(self, work: Callable[[], T]) -> T:
        """What `work` gives the first process, for all of them; what it raises there is raised in all of them."""
        if self.count == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        with self._meeting():
            self._meet()
            dist.broadcast_object_list(outcome, src=0, group=self.group)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through, then the first of each other node, then the rest: for what has to be fetched
        once, whether each node has a disk of its own or all share one."""
        turn = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(2 - turn):
            self.wait()

    @contextmanager
    def alone_in(self, folder: Path) -> Iterator[None]:
        """The folder locked for these processes. Raises InputError where others have it."""
        with ExitStack() as held:
            self.on_first(lambda: held.enter_context(locked(folder)))
            yield

    @contextmanager
    def naming_the_lost(self) -> Iterator[None]:
        """Around work in which torch makes them meet: the same error where another is gone, whatever torch's is."""
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or any(word in str(error).lower() for word in LOST)
            if self.count == 1 or not lost:
                raise
            raise self._lost(error) from error

    def _meet(self) -> None:
        """Until every process is here: what they do next takes no time."""
        self._await(dist.all_reduce(torch.zeros(1, device=self.device), group=self.group, async_op=True))

    def _await(self, work: Any) -> None:
        """Python hears no signal while torch waits, so it waits in small steps, each a tenth of the time so far."""
        started = time.perf_counter()
        while not work.is_completed():
            time.sleep(min(SHORT, (time.perf_counter() - started) / 10))
        work.wait()

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> ConnectionAbortedError:
        reason = str(error).splitlines()[-1][:160]
        message = (
            f"another of the {self.count} processes is gone, its message says why ({reason}); "
            "what was done is stored, and the same command continues"
        )
        return ConnectionAbortedError(errno.ECONNABORTED, message)
