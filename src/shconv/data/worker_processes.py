"""The processes that read batches: how they start, what is received from them, and how they end. Nothing waits for one
without looking at whether it should."""

import multiprocessing
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any

import torch
from torch.utils.data import DataLoader

from shconv.data.handover import LOOK_EVERY, BatchReader, Packed
from shconv.data.splits import Batch
from shconv.data.worker_failures import failure, lack_of

# A scheduler, Ctrl-C or a terminal that closes sends them to the whole group. Windows has no SIGHUP.
STOPS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))


class StoppedWaiting(Exception):  # noqa: N818 (says what happened)
    """There was a reason to stop, and the next batch was not there yet."""


class Workers:
    """Those of a DataLoader, and the batches they hand over."""

    def __init__(self, reader: BatchReader, stop: Callable[[], bool], **settings: Any) -> None:
        self._stop, self._waiting = stop, False
        before = set(multiprocessing.active_children())
        with _signals_held(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of more workers than cores
            loader = DataLoader(
                reader,
                collate_fn=_unchanged,
                timeout=LOOK_EVERY,
                worker_init_fn=_deaf,
                generator=torch.Generator(),  # otherwise the loader takes its seed from the caller's global generator
                **settings,
            )
            try:
                multiprocessing.Event()  # fails here, where it leaves nothing that is half made
                self._results: Iterator[Any] | None = iter(loader)
            except OSError as error:
                lack = lack_of(error) or str(error)
                raise failure("workers to read images could not be started", lack) from error
        self._processes = [each for each in multiprocessing.active_children() if each not in before]

    def receive(self) -> Batch:
        """The next batch. Raises StoppedWaiting where it is not there and there is a reason to stop."""
        self._waiting = True
        result = self._awaited(self._next)
        if isinstance(result, Packed):
            result = self._awaited(result.taken())
        if isinstance(result, ConnectionError | EOFError | FileNotFoundError):
            raise self._gone() from result
        if isinstance(result, Exception):
            raise result
        self._waiting = False
        batch: Batch = result
        return batch

    def end(self) -> None:
        """None of them is left. One that is waited for may never answer, and torch is patient for ten seconds."""
        with _unnoticed_ends():
            if self._waiting:
                self._kill()
            self._results = None
            self._kill()

    def _gone(self) -> ChildProcessError:
        """A batch came, and its worker ended before the memory in which it lies was taken over."""
        for process in self._processes:
            process.join(LOOK_EVERY)
        ended = [f"(pid {process.pid}) " for process in self._processes if not process.is_alive()]
        return failure(f"worker {ended[0] if ended else ''}is gone: it read images", "")

    def _kill(self) -> None:
        for process in self._processes:  # they hear no SIGTERM
            process.kill()
            process.join()

    def _next(self) -> Any:
        """Raises Empty where there is none after a moment."""
        assert self._results is not None
        try:
            return next(self._results)
        except RuntimeError as error:
            if str(error).startswith("DataLoader timed out"):
                raise Empty from None
            raise

    def _awaited(self, get: Callable[[], Any]) -> Any:
        """What `get` gives, once it does not raise Empty."""
        while True:
            with suppress(Empty):
                return get()
            if self._stop():
                raise StoppedWaiting


def _deaf(worker: int) -> None:
    """What to do about them is the main process's business."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_held() -> Iterator[None]:
    """None arrives in here, and none ever in a worker forked in here: not even before it gets to be deaf."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _unnoticed_ends() -> Iterator[None]:
    """A worker that ends in here is no error: torch has a handler that would say so at any moment."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _unchanged(batch: Any) -> Any:
    return batch
