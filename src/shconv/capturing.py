"""CUDA graphs: what is called again and again with tensors of one kind is recorded once and replayed, so that the host
sends one launch where it sent hundreds. Here is when that may be, how it is done, and what becomes of a failure.

A function is recorded at its third call. What has Python in it that differs from call to call, waits for the device or
draws random numbers on the CPU cannot be recorded: it is found out at the second call, where that runs as it is.
Random numbers of the device go on as they would: a graph reads seed and offset of its generators when it is replayed.
"""

import functools
import logging
import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from shconv.ops.modes import direct
from shconv.switches import switch

Results = tuple[Tensor, ...]
Kind = tuple[Any, ...]

MOST = 4  # kinds of call that one function is recorded for
_log = logging.getLogger(__name__)
_said = set[str]()
_asked: ContextVar[bool] = ContextVar("graphs", default=True)


class Uncapturable(Exception):  # noqa: N818 (a reason, in words)
    """Why something cannot be recorded."""


class Recording(NamedTuple):
    """What a function was recorded as: `replay` computes `results` anew, in the tensors where they are."""

    results: Results
    replay: Callable[[], object]
    size: int = 0  # bytes that it holds


class Recorder(Protocol):
    """How work is recorded: by CUDA, or on a CPU by a test."""

    def reason(self, device: torch.device) -> str:
        """Why nothing can be recorded now; "" where it can."""

    def aside(self, run: Callable[[], Results]) -> Results:
        """What `run` gives, computed where things are recorded."""

    def checked(self, run: Callable[[], Results]) -> tuple[Results, str]:
        """The same, and why it could not be recorded, or ""."""

    def record(self, run: Callable[[], Results], pool: Any) -> Recording:
        """`run`, called and not computed. pool: from `pool`, of recordings that are replayed one after the other.
        Raises Uncapturable."""

    def pool(self) -> Any:
        """Memory for recordings."""


@contextmanager
def graphs(wanted: bool = True) -> Iterator[None]:
    """Inside, networks run from CUDA graphs, or do not. They do by default; SHCONV_GRAPHS=0 in the environment turns
    that off everywhere."""
    token = _asked.set(wanted)
    try:
        yield
    finally:
        _asked.reset(token)


def off() -> str:
    """Why graphs are turned off; "" where they are not."""
    if switch("SHCONV_GRAPHS") is False:
        return "SHCONV_GRAPHS is 0"
    return "" if _asked.get() else "it was turned off"


class Captured:
    """A function of tensors on one device, recorded for each kind of call (shapes, dtypes, layouts) from the third on.

    Each call runs the function's work once, whichever way. Its results may be tensors that the next call writes anew:
    copy what is kept longer. What it reads beside its arguments has to stay where it is (parameters that are updated
    in place), and Python that it runs has to do the same each time. After a failure it is never tried again;
    `on_failure` is called with the reason, once.
    """

    def __init__(
        self,
        function: Callable[..., Results],
        recorder: Recorder | None = None,
        generators: Sequence[torch.Generator] = (),
        on_failure: Callable[[str], object] | None = None,
    ) -> None:
        self.function, self.recorder = function, recorder or CudaRecorder(generators)
        self.on_failure = on_failure or log_once
        self.reason = ""  # why it is not tried any more
        self._calls: dict[Kind, int] = {}
        self._kept: dict[Kind, tuple[Results, Recording]] = {}

    def __call__(self, *inputs: Tensor) -> Results:
        if self.reason or off() or self.recorder.reason(inputs[0].device):
            return self.function(*inputs)
        kind = kind_of(inputs)
        if (kept := self._kept.get(kind)) is not None:
            return replayed(*kept, inputs)
        calls = self._calls[kind] = self._calls.get(kind, 0) + 1
        if len(self._kept) >= MOST:
            return self.function(*inputs)
        if calls == 1:
            return self.recorder.aside(lambda: self.function(*inputs))
        if calls == 2:
            results, self.reason = self.recorder.checked(lambda: self.function(*inputs))
            if self.reason:
                self._fail()
            return results
        return self._recorded(kind, inputs)

    def _recorded(self, kind: Kind, inputs: Sequence[Tensor]) -> Results:
        try:
            held = still(inputs)
            recording = self.recorder.record(lambda: self.function(*held), self.recorder.pool())
        except Uncapturable as error:
            self.reason = str(error)
            self._fail()
            return self.function(*inputs)
        self._kept[kind] = held, recording
        return replayed(held, recording, inputs)

    def _fail(self) -> None:
        self._kept.clear()
        self.on_failure(self.reason)


def kind_of(inputs: Sequence[Tensor]) -> Kind:
    """What two calls have in common that one recording serves."""
    return tuple((each.shape, each.stride(), each.dtype, each.device) for each in inputs)


def still(inputs: Sequence[Tensor]) -> Results:
    """Tensors of the same kind, for a recording to read. Raises Uncapturable where a tensor's elements overlap."""
    held = tuple(torch.empty_like(each).copy_(each.detach()) for each in inputs)
    if any(one.stride() != other.stride() for one, other in zip(held, inputs, strict=True)):
        raise Uncapturable("an argument is no dense tensor")
    return held


def replayed(held: Results, recording: Recording, inputs: Sequence[Tensor]) -> Results:
    """The recording's results for these inputs."""
    for place, each in zip(held, inputs, strict=True):
        place.copy_(each.detach())
    recording.replay()
    return recording.results


def log_once(reason: str, level: int = logging.WARNING) -> None:
    if reason not in _said:
        _said.add(reason)
        _log.log(level, "no CUDA graph: %s", reason)


class CudaRecorder:
    """torch.cuda.graph. generators: those that a function draws from beside the device's own."""

    def __init__(self, generators: Sequence[torch.Generator] = ()) -> None:
        self.generators = generators

    def reason(self, device: torch.device) -> str:
        if device.type != "cuda":
            return f"the device is {device.type}"
        if device.index != torch.cuda.current_device():
            return f"{device} is not the current device"
        if not direct() or torch.cuda.is_current_stream_capturing():
            return "another program looks at every operation"
        if torch.is_anomaly_enabled() or torch.cuda.get_sync_debug_mode():
            return "torch looks for errors"
        if os.environ.get("CUDA_LAUNCH_BLOCKING") == "1" or os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING") == "1":
            return "the environment asks for no asynchronous work"
        return ""

    def aside(self, run: Callable[[], Results]) -> Results:
        before = torch.cuda.current_stream()
        side = _side_stream(torch.cuda.current_device())
        side.wait_stream(before)
        try:
            with torch.cuda.stream(side):
                results = run()
        finally:
            before.wait_stream(side)
        for each in results:
            each.record_stream(before)
        return results

    def checked(self, run: Callable[[], Results]) -> tuple[Results, str]:
        drawn = _drawn()
        with _waits() as waits:
            results = self.aside(run)
        if waits:
            return results, "the host waits for the device in the midst of it"
        return results, "" if _drawn() == drawn else "it draws random numbers on the CPU"

    def record(self, run: Callable[[], Results], pool: Any) -> Recording:
        device = torch.cuda.current_device()
        graph = torch.cuda.CUDAGraph()
        for each in self.generators:
            graph.register_generator_state(each)
        before = torch.cuda.current_stream()
        torch.cuda.empty_cache()
        free = torch.cuda.memory_reserved()
        try:
            # Other threads, such as those that pin memory, may go on with what a capture does not allow.
            with torch.cuda.graph(graph, pool, _side_stream(device), capture_error_mode="thread_local"):
                results = run()
        except BaseException as error:
            torch.cuda.set_stream(before)
            _mended(device, pool, self.generators)
            if not isinstance(error, Exception):  # Ctrl-C, say
                raise
            first = error.__context__ or error  # the capture's end says only that it broke off
            said = str(first).partition(" Search for ")[0].strip() or type(first).__name__
            raise Uncapturable(said.splitlines()[0]) from error
        return Recording(results, graph.replay, torch.cuda.memory_reserved() - free)

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """Where things are recorded, and run before that: what torch keeps for each stream is there by then. A parameter's
    end of an autograd graph belongs to a stream too; one that somebody keeps alive must not be of another."""
    return torch.cuda.Stream(device)


@contextmanager
def _waits() -> Iterator[list[object]]:
    """Inside, the places where torch waits for the device; all of them are there after the block."""
    found: list[object] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for each in caught:
        if "synchronizing CUDA operation" in str(each.message):
            found.append(each)
        elif "Synchronization debug mode" not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _drawn() -> tuple[object, ...]:
    """The states of the CPU's generators."""
    kind, keys, *rest = np.random.get_state()
    state = torch.default_generator.get_state().numpy().tobytes()
    return state, random.getstate(), kind, np.asarray(keys).tobytes(), *rest


def _mended(device: int, pool: Any, generators: Sequence[torch.Generator]) -> None:
    """After a capture that broke off, torch's allocator and generators may think that it is still under way."""
    with suppress(Exception):
        torch._C._cuda_endAllocateToPool(device, pool)
    with suppress(Exception):
        graph = torch.cuda.CUDAGraph()
        for each in generators:
            graph.register_generator_state(each)
        one = torch.zeros(1, device=f"cuda:{device}")
        with torch.cuda.graph(graph, stream=_side_stream(device), capture_error_mode="thread_local"):
            one.add_(1)
