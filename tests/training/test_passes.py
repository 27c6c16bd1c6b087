"""A training whose passes are recorded and replayed is the training that it is without; and why one is not recorded."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stops import STEPS, before_step, interrupt
from torch import Tensor, nn

from shconv.data import ImageData
from shconv.training import Engine, ModelConfig, Recipe, TrainingResult, train
from shconv.training import job as job_module
from shconv.training.defences import Defence, Plain, Step, Trained, create_defence
from shconv.training.passes import Passes, reason_against_capture
from tape import Tape

CONFIG = ModelConfig("plain10_shc", 3, stem="small", width=2)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Trainings from now on record on the CPU; the tapes that they use."""
    used: list[Tape] = []

    class Taped(Passes):
        def __init__(self, learner: Any, defence: Defence, smoothing: float, reason: str, say: Any) -> None:
            used.append(Tape())
            super().__init__(learner, defence, smoothing, "", say, used[-1])

    monkeypatch.setattr(job_module, "Passes", Taped)
    return used


def outcome(result: TrainingResult) -> tuple[bytes, list[float]]:
    return (result.folder / "model.safetensors").read_bytes(), [row["loss"] for row in result.history]


@pytest.mark.parametrize("name", ["none", "fgsm-rs", "stability", "trades"])
def test_a_recorded_training_is_the_same_bit_by_bit(
    name: str, data: ImageData, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    recipe, few = replace(recipe, epochs=2, label_smoothing=0.1), {"steps": 2} if name == "trades" else {}
    defence = create_defence(name, **few)
    plain = train(CONFIG, data, recipe, tmp_path / "plain", defence=defence, progress=False)
    tapes = request.getfixturevalue("tapes")
    taped = train(CONFIG, data, recipe, tmp_path / "taped", defence=defence, progress=False)
    assert outcome(taped) == outcome(plain)
    (tape,) = tapes
    assert (tape.recorded, tape.replayed) == (1, 2 * (70 // 16) - 2)


def test_so_is_one_with_all_that_a_recipe_may_have_outside_of_the_passes(
    data: ImageData, recipe: Recipe, tmp_path: Path, request: Any
) -> None:
    """Mixed images, AdamW, a rate that changes at every step, the mean of the weights: none of it is recorded."""
    more: dict[str, Any] = {"mixup": 0.2, "cutmix": 1.0, "ema": 0.9, "label_smoothing": 0.1}
    recipe = replace(recipe, epochs=3, optimizer="adamw", learning_rate=1e-3, hyper_weight_decay=0.0, **more)
    plain = train(CONFIG, data, recipe, tmp_path / "plain", progress=False)
    tapes = request.getfixturevalue("tapes")
    assert outcome(train(CONFIG, data, recipe, tmp_path / "taped", progress=False)) == outcome(plain)
    assert [(tape.recorded, tape.replayed) for tape in tapes] == [(1, 3 * STEPS - 2)]


def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    data: ImageData, recipe: Recipe, tmp_path: Path, tapes: list[Tape]
) -> None:
    recipe = replace(recipe, epochs=3)

    def stop(row: Any) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, data, recipe, tmp_path / "stopped", progress=False, on_epoch=stop)
    stopped = train(CONFIG, data, recipe, tmp_path / "stopped", progress=False)
    assert outcome(stopped) == outcome(train(CONFIG, data, recipe, tmp_path / "whole", progress=False))
    assert [tape.recorded for tape in tapes] == [1, 1, 1]


@pytest.mark.parametrize("name", ["none", "fgsm-rs"])
def test_one_that_is_stopped_in_the_middle_of_an_epoch_and_goes_on_gives_the_bits_of_one_that_records_nothing(
    name: str, data: ImageData, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    recipe, engine = replace(recipe, epochs=3, ema=0.9), Engine(save_steps=1)
    asked: dict[str, Any] = {"defence": create_defence(name), "engine": engine, "progress": False}
    plain = train(CONFIG, data, recipe, tmp_path / "plain", **asked)
    tapes = request.getfixturevalue("tapes")
    with monkeypatch.context() as patch:
        before_step(patch, STEPS + 2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, data, recipe, tmp_path / "stopped", **asked)
    assert outcome(train(CONFIG, data, recipe, tmp_path / "stopped", **asked)) == outcome(plain)
    assert [(tape.recorded, tape.replayed) for tape in tapes] == [(1, STEPS), (1, STEPS)]  # from the third of six each


@dataclass(frozen=True)
class Waiting(Defence):
    """Looks at its loss in the midst of a step."""

    name = "waiting"

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        logits = step.logits(model, x)
        loss = step.cross_entropy(logits, y)
        return Trained(loss if float(loss.detach()) > 0 else -loss, logits, None)


def test_a_step_that_waits_for_the_device_is_found_out_said_once_and_trained_all_the_same(
    data: ImageData, recipe: Recipe, tmp_path: Path, tapes: list[Tape], capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = train(CONFIG, data, replace(recipe, epochs=2), tmp_path / "waiting", defence=Waiting())
    said = capsys.readouterr().err
    plain = train(CONFIG, data, replace(recipe, epochs=2), tmp_path / "plain", progress=False)
    assert [row["loss"] for row in waiting.history] == [row["loss"] for row in plain.history]
    assert said.count("no CUDA graph for the steps from here on: the host waits for the device") == 1
    assert tapes[0].recorded == 0


@pytest.mark.parametrize(
    ("device", "engine", "processes", "scaled", "defence", "reason"),
    [
        ("cuda", Engine(), 1, False, Plain(), ""),
        ("cuda", Engine(), 1, False, create_defence("pgd"), ""),
        ("cpu", Engine(), 1, False, Plain(), "the device is cpu"),
        ("cuda", Engine(graphs=False), 1, False, Plain(), "turned off"),
        ("cuda", Engine(compile=True), 1, False, Plain(), "torch.compile"),
        ("cuda", Engine(accumulation=2), 1, False, Plain(), "micro-batches"),
        ("cuda", Engine(), 2, False, Plain(), "over processes"),
        ("cuda", Engine(), 1, True, Plain(), "fp16"),
        ("cuda", Engine(), 1, False, Waiting(), "the code of the defence waiting"),
    ],
)
def test_passes_are_recorded_where_every_step_is_the_same_and_else_one_reason_is_given(
    device: str, engine: Engine, processes: int, scaled: bool, defence: Defence, reason: str
) -> None:
    scaler = SimpleNamespace(is_enabled=lambda: scaled)
    learner: Any = SimpleNamespace(device=torch.device(device), scaler=scaler)
    found = reason_against_capture(learner, defence, engine, processes)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["none", "fgsm-rs"])
def test_on_a_gpu_a_training_from_graphs_is_the_same_within_rounding(
    name: str, data: ImageData, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    defence = create_defence(name)
    recorded: list[Passes] = []
    original = Passes.__init__

    def noted(self: Passes, *args: Any) -> None:
        original(self, *args)
        recorded.append(self)

    monkeypatch.setattr(Passes, "__init__", noted)
    losses = []
    for graphs in (True, False):
        engine, folder = Engine(graphs=graphs), tmp_path / str(graphs)
        result = train(CONFIG, data, recipe, folder, defence=defence, engine=engine, progress=False, device="cuda")
        losses.append([row["loss"] for row in result.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    captured = recorded[0]._captured
    assert captured is not None
    assert captured._kept, captured.reason
    assert recorded[1]._captured is None
