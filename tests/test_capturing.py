"""What is recorded and replayed gives what a call gives; the work of each call is done once; and what cannot be
recorded runs as it is."""

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from shconv import capturing
from shconv.capturing import Captured, CudaRecorder, Results, graphs
from tape import Tape


def numbers(n: int, seed: int, *shape: int) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


class Summing:
    """A function with a side effect: it adds what it is given to a total that stays where it is."""

    def __init__(self) -> None:
        self.total, self.runs = torch.zeros(3), 0

    def __call__(self, x: Tensor, y: Tensor) -> Results:
        self.runs += 1
        self.total += x.sum(0)
        return (x * y).tanh(), self.total * 2


def test_each_call_works_once_and_gives_what_the_function_gives() -> None:
    tape, plain, function = Tape(), Summing(), Summing()
    captured = Captured(function, tape)
    for seed in range(6):
        x, y = numbers(4, seed, 3), numbers(4, 100 + seed, 3)
        found, wanted = captured(x, y), plain(x, y)
        assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True)), seed
        assert torch.equal(function.total, plain.total), seed
    assert (tape.recorded, tape.replayed, function.runs) == (1, 4, 3)  # in Python: as it is, checked, recorded


def test_each_kind_of_call_is_recorded_for_itself_and_few_are() -> None:
    tape = Tape()
    captured = Captured(lambda x: (x + 1,), tape)
    for _ in range(4):
        for n in range(1, capturing.MOST + 3):
            for x in (numbers(n, n, 2), numbers(n, n, 2).double()):
                assert torch.equal(captured(x)[0], x + 1)
    assert tape.recorded == capturing.MOST


def test_a_layout_of_its_own_is_a_kind_of_its_own() -> None:
    tape = Tape()
    captured = Captured(lambda x: (x.contiguous() * 2,), tape)
    for _ in range(3):
        for x in (numbers(2, 0, 3, 4), numbers(2, 1, 4, 3).transpose(1, 2)):
            assert torch.equal(captured(x)[0], x * 2)
    assert tape.recorded == 2


def test_an_overlapping_argument_is_refused_with_a_reason_and_served() -> None:
    said: list[str] = []
    captured = Captured(lambda x: (x * 2,), Tape(), on_failure=said.append)
    x = numbers(1, 0, 3).expand(4, 3)
    assert all(torch.equal(captured(x)[0], x * 2) for _ in range(5))
    assert said == ["an argument is no dense tensor"]


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda x: float(x.sum()), "waits for the device"),
        (lambda x: int(x.nonzero().shape[0]), "waits for the device"),
        (lambda x: random.random(), "random numbers on the CPU"),
        (lambda x: float(np.random.rand()), "random numbers on the CPU"),
        (lambda x: torch.rand(()), "random numbers on the CPU"),
    ],
)
def test_what_differs_from_call_to_call_is_found_out_and_never_recorded(draw, reason: str) -> None:  # type: ignore[no-untyped-def]
    tape, said, runs = Tape(), [], []

    def function(x: Tensor) -> Results:
        runs.append(1)
        return (x * draw(x),)

    captured = Captured(function, tape, on_failure=said.append)
    for _ in range(5):
        captured(numbers(3, 0, 2))
    assert len(said) == 1
    assert reason in said[0]
    assert (tape.recorded, len(runs)) == (0, 5)


def test_after_a_failed_recording_everything_runs_as_it_is_and_the_reason_is_given_once() -> None:
    tape, said = Tape(fails="out of memory"), []
    captured = Captured(lambda x: (x + 1,), tape, on_failure=said.append)
    for seed in range(5):
        x = numbers(2, seed, 2)
        assert torch.equal(captured(x)[0], x + 1)
    assert said == ["out of memory"]


def test_graphs_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape()
    captured = Captured(lambda x: (x + 1,), tape)
    with graphs(False):
        for _ in range(4):
            captured(numbers(2, 0, 2))
    monkeypatch.setenv("SHCONV_GRAPHS", "0")
    for _ in range(4):
        captured(numbers(2, 0, 2))
    assert tape.recorded == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("operation not permitted\nSearch for it")])
def test_a_capture_that_breaks_off_is_mended_for_all_its_generators(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that torch believes to be recorded refuses to draw. Without a card: graphs that note who draws."""
    graphs: list[list[torch.Generator]] = []

    class Graph:
        def __init__(self) -> None:
            graphs.append(self.generators)

        generators = property(lambda self: self.__dict__.setdefault("_", []))

        def register_generator_state(self, generator: torch.Generator) -> None:
            self.generators.append(generator)

    streams = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "before")
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    monkeypatch.setattr(capturing, "_side_stream", str)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size))
    generator = torch.Generator()

    def breaks() -> Results:
        raise error

    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else capturing.Uncapturable) as raised:
        CudaRecorder([generator]).record(breaks, None)
    assert str(raised.value) in ("", "operation not permitted")
    assert graphs == [[generator], [generator]]
    assert streams == ["before"]


def test_nothing_is_recorded_on_a_cpu() -> None:
    assert CudaRecorder().reason(torch.device("cpu")) == "the device is cpu"
    captured = Captured(lambda x: (x + 1,))
    for _ in range(4):
        assert torch.equal(captured(torch.ones(2))[0], torch.full((2,), 2.0))


def test_a_reason_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "_said", set())
    for _ in range(3):
        capturing.log_once("it draws")
    assert [record.message for record in caplog.records] == ["no CUDA graph: it draws"]
