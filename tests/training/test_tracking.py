"""`log`: what wandb, MLflow and TensorBoard are told of a training, also of one that was stopped in between.

The first two are stand-ins (trackers/) that keep what accelerate gives them."""

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from loop_toys import Training
from stops import STEPS, before_step

from shconv.data import ImageData
from shconv.errors import InputError
from shconv.training import Engine, Preempted, job

pytestmark = pytest.mark.usefixtures("toy_network")
STAND_INS = ("wandb", "mlflow")


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The modules, with nothing told yet."""
    for variable in ("WANDB_PROJECT", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TAGS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.syspath_prepend(Path(__file__).parent / "trackers")
    for name in STAND_INS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    modules = {name: importlib.import_module(name) for name in STAND_INS}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)  # taken out again at the end
    monkeypatch.setattr(job, "EVERY", 3)
    return modules


def steps_told(run: Any) -> list[int]:
    return [step for step, _ in run.rows]


def stop_before(patch: pytest.MonkeyPatch, step: int) -> None:
    before_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))


@pytest.mark.parametrize("stops", [(), (5,), (0, 7, 11)])
def test_each_step_is_told_once_however_often_the_training_is_stopped(
    training: Training, stand_ins: dict[str, Any], stops: tuple[int, ...]
) -> None:
    engine = Engine(log=STAND_INS)
    for stop in stops:
        with pytest.MonkeyPatch.context() as patch:
            stop_before(patch, stop)
            with pytest.raises(Preempted):
                training.run("mine", engine=engine)
    result = training.run("mine", engine=engine)
    for module in stand_ins.values():
        (run,) = module.runs.values()
        assert (run.project, run.name) == ("shconv", "mine")
        assert run.opened == run.closed == len(stops) + 1
        (settings,) = run.settings
        assert (settings["recipe.epochs"], settings["model.width"], settings["data.classes"]) == (3, 6, 3)
        assert steps_told(run) == [3, 4, 7, 8, 11, 12]
        of_epochs = [values for step, values in run.rows if step % STEPS == 0]
        for values, row in zip(of_epochs, result.history, strict=True):
            assert values["epoch/epoch"] == row["epoch"]
            assert values["epoch/test_accuracy"] == row["test_accuracy"]
            assert values["epoch/loss"] == row["loss"]
        assert all(set(values) >= {"step/loss", "step/learning_rate"} for step, values in run.rows if step % STEPS)
    training.run("mine", engine=engine)  # finished and told
    assert all(run.opened == len(stops) + 1 for module in stand_ins.values() for run in module.runs.values())


def test_a_state_before_what_was_told_repeats_nothing(
    tmp_path: Path, training: Training, stand_ins: dict[str, Any]
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 8, kill)
        with pytest.raises(Killed):
            training.run(engine=Engine(log=("mlflow",)))
    (tmp_path / "state.pt").write_bytes(b"cut")  # back to the state before
    training.run(engine=Engine(log=("mlflow",)))
    (run,) = stand_ins["mlflow"].runs.values()
    assert steps_told(run) == [3, 4, 7, 8, 11, 12]


def test_a_tracker_that_fails_costs_no_training_and_gets_the_missing_epochs_later(
    training: Training, stand_ins: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = stand_ins["wandb"]
    engine = Engine(log=STAND_INS)
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 5, lambda: wandb.refuses.append(True))
        training.run(engine=engine, progress=True)
    said = capsys.readouterr().err
    assert said.count("wandb accepts no more data (no connection") == 1
    assert "the same command sends the missing epochs later" in said
    (run,) = wandb.runs.values()
    assert steps_told(run) == [3, 4]
    wandb.refuses.clear()
    training.run(engine=engine, progress=True)
    assert steps_told(run) == [3, 4, 8, 12]
    (other,) = stand_ins["mlflow"].runs.values()
    assert steps_told(other) == [3, 4, 7, 8, 11, 12]
    assert other.opened == 1


def test_without_the_package_it_is_refused_at_once(
    tmp_path: Path, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shconv.training.tracking.find_spec", lambda name: None)
    with pytest.raises(InputError, match="log tensorboard needs the package tensorboard: pip install tensorboard"):
        Engine(log=("tensorboard",))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wandb").mkdir()  # its own runs, where it is not installed
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(InputError, match="pip install wandb"):
        Engine(log=("wandb",))
    with pytest.raises(InputError, match="there is no tracker 'comet'; choose from wandb, mlflow, tensorboard"):
        Engine(log=("comet",))


def test_one_that_does_not_start_is_said_before_the_first_step(
    tmp_path: Path, training: Training, stand_ins: dict[str, Any]
) -> None:
    def refuse(**settings: Any) -> None:
        raise ConnectionError("api key not configured")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand_ins["wandb"], "init", refuse)
        taken = before_step(patch, -1, int)
        with pytest.raises(InputError, match=r"wandb does not start \(api key not configured\)"):
            training.run(engine=Engine(log=("mlflow", "wandb")))
    assert taken == []
    assert stand_ins["mlflow"].current == []  # ended
    (tmp_path / "tracking.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        training.run(engine=Engine(log=("mlflow",)))


def test_tensorboard_has_each_point_once(tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    engine = Engine(log=("tensorboard",))
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(Preempted):
            training.run(engine=engine)
    result = training.run(engine=engine)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = [(point.step, point.value) for point in events.Scalars("epoch/test_accuracy")]
    assert points == [(STEPS * row["epoch"], pytest.approx(row["test_accuracy"])) for row in result.history]
    assert [point.step for point in events.Scalars("step/loss")] == [3, 7, 11]
    assert json.loads((tmp_path / "tracking.json").read_text()) == {"tensorboard": {"run": "tensorboard", "step": 12}}
    assert len(list((tmp_path / "tensorboard").glob("*/hparams.yml"))) == 1
