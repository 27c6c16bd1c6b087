"""Batches read in this process or by workers: what they hand over, what becomes of one that fails, hangs or dies, and
how they end. Nothing waits for a worker without looking at whether it should."""

import atexit
import errno
import multiprocessing
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shconv.data.order import share_of
from shconv.data.splits import Batch
from shconv.data.workers import AHEAD, shared_memory_said
from shconv.errors import InputError

LOOK_EVERY = 0.5  # seconds between two looks at whether to go on waiting
STOPS = (signal.SIGTERM, signal.SIGINT)  # a scheduler or Ctrl-C sends them to the whole group


def never() -> bool:
    """No reason to stop."""
    return False


class StoppedWaiting(Exception):  # noqa: N818 (says what happened)
    """There was a reason to stop, and the next batch was not there yet."""


class Batches(Iterable[Batch]):
    """Batches of the given index lists, in their order; can be iterated again and then gives the same.

    images: index list -> uint8 (B, 3, H, W). Without workers the lists may be int64 tensors, where the labels are.
    parts: into how many each batch is cut, where there are workers: as many then read it, each always the same part.
    stop: asked while there is no batch; StoppedWaiting where it says so.
    """

    def __init__(
        self,
        labels: Tensor,
        images: Callable[[Any], Tensor],
        batches: Sequence[list[int]] | Sequence[Tensor],
        workers: int,
        pinned: bool,
        parts: int = 1,
        stop: Callable[[], bool] = never,
    ) -> None:
        self._reader = _BatchReader(labels, images)
        self._batches, self._workers, self._pinned, self._parts = batches, workers, pinned, parts
        self._stop = stop

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Generator[Batch]:
        batches = self._read()
        _UNDER_WAY.add(batches)
        return batches

    def _read(self) -> Generator[Batch]:
        if self._workers == 0 or len(self._batches) == 0:
            yield from map(self._reader.read, self._batches)
            return
        parts = self._parts
        with naming_dead_workers():
            workers = _Workers(
                self._reader,
                self._stop,
                batch_sampler=[index[share_of(len(index), k, parts)] for index in self._batches for k in range(parts)],
                num_workers=min(self._workers, len(self._batches)) if parts == 1 else parts,  # they get parts in turn
                prefetch_factor=AHEAD if parts == 1 else 2 * AHEAD,
                pin_memory=self._pinned and parts == 1,
            )
            try:
                for _ in self._batches:
                    yield _joined([workers.receive() for _ in range(parts)], self._pinned)
            finally:
                workers.end()


class _BatchReader(Dataset[Batch]):
    """What a DataLoader worker runs: a list of indices -> what it hands over."""

    def __init__(self, labels: Tensor, images: Callable[[Any], Tensor]) -> None:
        self.labels, self.images = labels, images

    def read(self, index: list[int] | Tensor) -> Batch:
        if isinstance(index, Tensor):
            return Batch(self.images(index), self.labels.index_select(0, index), index)
        return Batch(self.images(index), self.labels[index], torch.tensor(index))

    def __getitems__(self, index: list[int]) -> "_Packed | Exception":
        # Packed here, since what fails in the loader's own thread is lost, and the main process would wait for ever.
        # Raised here, an error would arrive wrapped in a traceback; so it travels as a value and is raised outside.
        try:
            return _Packed(bytes(ForkingPickler.dumps(self.read(index))))
        except InputError as error:
            return error
        except Exception as error:
            if (lack := _lack(error)) is None:
                raise
            return _failed("a worker could not hand over the images that it read", lack)


@dataclass(frozen=True)
class _Packed:
    """A batch on its way: the tensors lie in shared memory, this says where."""

    data: bytes

    def unpacked(self, pinned: bool = False) -> Batch | Exception:
        try:
            batch: Batch = pickle.loads(self.data)
            return Batch(*(each.pin_memory() for each in batch)) if pinned else batch
        except Exception as error:
            lack = _lack(error)
            return error if lack is None else _failed("images from a worker could not be received", lack)

    def taken(self) -> Callable[[], Batch | Exception]:
        """What gives it, or raises Empty after a moment. Its worker is asked for the memory, and may not answer."""
        taken: SimpleQueue[Batch | Exception] = SimpleQueue()
        threading.Thread(target=lambda: taken.put(self.unpacked()), daemon=True).start()
        return lambda: taken.get(timeout=LOOK_EVERY)

    def pin_memory(self) -> Batch | Exception:
        """The loader calls it in a thread of its own, where it pins."""
        return self.unpacked(pinned=True)


class _Workers:
    """Those of a DataLoader, and the batches they hand over."""

    def __init__(self, reader: _BatchReader, stop: Callable[[], bool], **settings: Any) -> None:
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
                lack = _lack(error) or str(error)
                raise _failed("workers to read images could not be started", lack) from error
        self._processes = [each for each in multiprocessing.active_children() if each not in before]

    def receive(self) -> Batch:
        """The next batch. Raises StoppedWaiting where it is not there and there is a reason to stop."""
        self._waiting = True
        result = self._awaited(self._next)
        if isinstance(result, _Packed):
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
        return _failed(f"worker {ended[0] if ended else ''}is gone: it read images", "")

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


_UNDER_WAY: WeakSet[Generator[Batch]] = WeakSet()


@atexit.register
def _end_workers() -> None:
    """Python waits for them when it ends, after a SIGTERM that they do not hear."""
    for batches in list(_UNDER_WAY):
        batches.close()


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Raises ChildProcessError where torch says that a worker is gone: it may at any moment, not only in `next`."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).splitlines()[0].removeprefix("DataLoader ").rstrip(". ")
        raise _failed(f"{reason}: it read images", _lack(error) or "") from error


def _failed(what: str, lack: str) -> ChildProcessError:
    """One line, and the exit code of what goes on with the same command."""
    lack = lack or f"most often memory or {shared_memory_said()} is too small"
    return ChildProcessError(
        errno.ECHILD, f"{what}: {lack}; take --workers 0, fewer workers or smaller batches; the same command continues"
    )


def _lack(error: Exception) -> str | None:
    """What there was too little of, and how it is made more; None where the error tells of no such thing."""
    number, text = getattr(error, "errno", None), str(error).lower()
    if number in (errno.EMFILE, errno.ENFILE) or "too many open files" in text:
        return "too many files are open (ulimit -n says how many may be)"
    if number in (errno.ENOSPC, errno.EDQUOT) or any(word in text for word in ("no space", "shared mem", "bus error")):
        return f"{shared_memory_said()} is too small (docker run --shm-size=2g makes it larger)"
    if isinstance(error, MemoryError) or number in (errno.ENOMEM, errno.EAGAIN) or "allocate memory" in text:
        return "memory is too small"
    return None


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


def _joined(parts: Sequence[Batch], pinned: bool) -> Batch:
    if len(parts) == 1:
        return parts[0]
    pinned = pinned and torch.cuda.is_available()
    n = sum(len(part.labels) for part in parts)
    whole = Batch(*(each.new_empty(n, *each.shape[1:], pin_memory=pinned) for each in parts[0]))
    for each, place in zip(zip(*parts, strict=True), whole, strict=True):
        torch.cat(each, out=place)
    return whole


def _unchanged(batch: Any) -> Any:
    return batch
