"""Stopped in the middle of an epoch, by a signal or by what is broken: stored, said, and gone on from there."""

import os
import pty
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_toys import Training, outcome
from stops import STEPS, before_step
from torch import Tensor

from shconv.data import Batch, loading
from shconv.data.batches import Batches
from shconv.errors import InputError
from shconv.files import locked
from shconv.training import Engine, Preempted, TrainingResult, job
from shconv.training.signals import ended_by_sigterm, stop_requests
from shconv.training.state import load_state

pytestmark = pytest.mark.usefixtures("toy_network")


def position(folder: Path) -> tuple[int, int]:
    state, problem = load_state(folder)
    assert state is not None
    assert problem is None
    return state["position"]["epoch"], state["position"]["steps"]


@pytest.fixture
def whole(training: Training) -> TrainingResult:
    return training.run("whole")


SIGNALS = {signal.SIGTERM: Preempted, signal.SIGHUP: Preempted, signal.SIGINT: KeyboardInterrupt}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("at", [0, 2, 3, 7, 11])
def test_a_signal_lets_the_step_end_and_the_same_command_goes_on_after_it(
    tmp_path: Path, training: Training, whole: TrainingResult, number: signal.Signals, at: int
) -> None:
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    with pytest.MonkeyPatch.context() as patch:
        taken = before_step(patch, at, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SIGNALS[number]) as stopped:
            training.run("stopped")
    assert taken == list(range(at + 1))
    assert position(tmp_path / "stopped") == (at // STEPS, at % STEPS + 1)
    assert {each: signal.getsignal(each) for each in SIGNALS} == handlers
    if isinstance(stopped.value, Preempted):
        assert stopped.value.code == 75
    with pytest.MonkeyPatch.context() as patch:
        taken = before_step(patch, -1, int)
        continued = training.run("stopped")
    assert taken == list(range(at + 1, 3 * STEPS))
    assert outcome(continued) == outcome(whole)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("reader", "wanted"), [("_TrainingImages", range(3)), ("_TestedImages", (STEPS,))])
def test_a_signal_ends_the_wait_for_a_worker_that_hangs(
    tmp_path: Path,
    training: Training,
    whole: TrainingResult,
    number: signal.Signals,
    reader: str,
    wanted: Sequence[int],
) -> None:
    kind = getattr(loading, reader)
    original = kind.__call__
    read: list[int] = []  # of the worker

    def hanging(self: Any, index: list[int]) -> Tensor:
        if len(read) == 2:
            os.kill(os.getppid(), number)
            os.kill(os.getpid(), signal.SIGSTOP)
        read.append(len(index))
        return original(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "__call__", hanging)
        with pytest.raises(SIGNALS[number]):
            training.run("stopped", workers=1)
    epoch, steps = position(tmp_path / "stopped")
    assert epoch == 0
    assert steps in wanted
    assert outcome(training.run("stopped")) == outcome(whole)


def test_a_signal_while_the_test_images_are_counted_repeats_the_counting_alone(
    tmp_path: Path, training: Training, whole: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = job.correct_in

    def signalled(*arguments: Any, **settings: Any) -> int | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(job, "correct_in", signalled)
        with pytest.raises(Preempted):
            training.run("stopped")
    assert position(tmp_path / "stopped") == (0, STEPS)
    assert outcome(training.run("stopped")) == outcome(whole)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_where_python_drops_what_it_raises_is_not_lost(number: signal.Signals) -> None:
    """As in the __del__ of a DataLoader, which waits for its workers."""

    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(number)
            time.sleep(0)

    def close() -> None:
        Closing()
        for _ in range(1000):
            time.sleep(0.01)

    before = sys.unraisablehook
    with ended_by_sigterm(), pytest.raises(SIGNALS[number]):
        close()
    assert sys.unraisablehook is before


def test_a_second_ctrl_c_acts_at_once_and_a_second_sigterm_changes_nothing() -> None:
    told: list[list[float]] = []

    def twice(number: signal.Signals) -> None:
        with stop_requests() as request:
            for _ in range(2):
                os.kill(os.getpid(), number)
                told.append(request.flags())

    with ended_by_sigterm(), pytest.raises(Preempted):
        twice(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        twice(signal.SIGINT)
    assert told == [[1, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_too_late_for_a_training_stops_what_comes_after_it(
    training: Training, whole: TrainingResult, number: signal.Signals
) -> None:
    def late(row: dict[str, Any]) -> None:
        if row["epoch"] == training.recipe.epochs:
            os.kill(os.getpid(), number)

    with ended_by_sigterm(), pytest.raises(SIGNALS[number]):
        training.run("late", on_epoch=late)
    with pytest.MonkeyPatch.context() as patch:
        taken = before_step(patch, -1, int)
        assert outcome(training.run("late")) == outcome(whole)
    assert taken == []


def test_in_a_thread_a_training_leaves_signals_alone(training: Training, whole: TrainingResult) -> None:
    results: list[TrainingResult] = []
    thread = threading.Thread(target=lambda: results.append(training.run("thread")))
    thread.start()
    thread.join()
    assert outcome(results[0]) == outcome(whole)


@pytest.mark.parametrize(("engine", "times"), [(Engine(save_steps=3), 1), (Engine(save_minutes=0), 4), (Engine(), 0)])
def test_states_are_stored_every_so_many_steps_or_minutes(
    training: Training, monkeypatch: pytest.MonkeyPatch, engine: Engine, times: int
) -> None:
    stored: list[tuple[int, int]] = []
    monkeypatch.setattr(
        job, "save_state", lambda _, state: stored.append((state["position"]["epoch"], state["position"]["steps"]))
    )
    training.but(epochs=1, warmup_epochs=0).run(engine=engine)
    assert len(stored) == times + 1
    assert stored[-1] == (1, 0)  # at the end of the epoch always
    if engine.save_steps:
        assert stored[0] == (0, 3)


@pytest.mark.parametrize("after", range(1, 12, 3))
@pytest.mark.parametrize("workers", [0, 2])
def test_from_any_stored_state_on_nothing_is_different(
    tmp_path: Path, training: Training, whole: TrainingResult, monkeypatch: pytest.MonkeyPatch, after: int, workers: int
) -> None:
    class Killed(BaseException):
        """Nothing is stored any more, as after kill -9."""

    def kill() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        before_step(patch, after, kill)
        with pytest.raises(Killed):
            training.run("killed", engine=Engine(save_steps=1))
    assert position(tmp_path / "killed") in ((after // STEPS, after % STEPS), (after // STEPS - 1, STEPS))
    torch.rand(after)
    continued = training.run("killed", workers=workers)
    assert outcome(continued) == outcome(whole)


def test_a_damaged_state_is_said_and_the_one_before_it_leads_to_the_same_end(
    tmp_path: Path,
    training: Training,
    whole: TrainingResult,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        before_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            training.run("stopped", engine=Engine(save_steps=1), progress=True)
    state = tmp_path / "stopped" / "state.pt"
    state.write_bytes(state.read_bytes()[:-1000])
    capsys.readouterr()
    continued = training.run("stopped", progress=True)
    title, _, warning, *_ = capsys.readouterr().err.splitlines()
    assert title.endswith("continued after epoch 1 and step 2 of 4 of the next")
    wanted = (
        "warning: state.pt is damaged (its checksum differs): continuing from state.previous.pt, the previous state"
    )
    assert warning == wanted
    assert outcome(continued) == outcome(whole)


def test_an_image_that_cannot_be_read_loses_no_step(
    tmp_path: Path, training: Training, whole: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Batches.__iter__

    def broken(self: Batches) -> Generator[Batch]:
        for number, batch in enumerate(original(self)):
            if number == 3:
                raise InputError("image 7 is broken")
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__iter__", broken)
        with pytest.raises(InputError, match="image 7 is broken"):
            training.run("broken")
    assert position(tmp_path / "broken") == (0, 3)
    assert outcome(training.run("broken")) == outcome(whole)


def test_a_folder_in_use_is_refused(tmp_path: Path, training: Training) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="is in use by another process"):
        training.run()
    training.run()
    with locked(tmp_path):  # a finished one is only read
        assert training.run().history


def test_a_training_whose_folder_was_moved_says_so_and_goes_on_in_its_place(
    tmp_path: Path, training: Training, whole: TrainingResult
) -> None:
    def move(row: dict[str, Any]) -> None:
        (tmp_path / "run").rename(tmp_path / "moved")

    with pytest.raises(InputError, match="run was moved or removed meanwhile"):
        training.run("run", on_epoch=move)
    assert not (tmp_path / "run").exists()
    (tmp_path / "moved").rename(tmp_path / "run")
    assert outcome(training.run("run")) == outcome(whole)


def test_a_test_image_that_cannot_be_read_loses_no_step(
    tmp_path: Path, training: Training, whole: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> int:
        raise InputError("image 7 is broken")

    with monkeypatch.context() as patch:
        patch.setattr(job, "correct_in", broken)
        with pytest.raises(InputError, match="image 7 is broken"):
            training.run("broken")
    assert position(tmp_path / "broken") == (0, STEPS)
    assert outcome(training.run("broken")) == outcome(whole)


def test_what_is_said_after_the_terminal_closed_fails_no_more() -> None:
    pid, terminal = pty.fork()  # a process that leads a session of its own, on a terminal
    if pid == 0:
        code = 1
        signal.alarm(30)
        try:
            with ended_by_sigterm(), stop_requests() as request:
                os.write(1, b"ready")
                while request.signal is None:
                    time.sleep(0.01)
                os.write(1, b"stored")
        except Preempted:
            code = 75
        finally:
            os._exit(code)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
