"""How a training is carried out: what it keeps on the way, micro-batches, compiled; and that a change is said."""

import os
import signal
from collections.abc import Callable

import pytest
import torch
from loop_toys import Training
from stops import before_step
from torch import Tensor

from shconv.training import Engine, Preempted, load_checkpoint

pytestmark = pytest.mark.usefixtures("toy_network")


def test_the_best_checkpoint_and_every_nth_are_kept_and_load(training: Training) -> None:
    settings = {"engine": Engine(keep_every=2), "progress": False}
    result = training.but(epochs=5).run("kept", **settings)  # type: ignore[arg-type]
    accuracies = [row["test_accuracy"] for row in result.history]
    _, _, best = load_checkpoint(result.folder / "best")
    assert best["epochs_done"] == 1 + accuracies.index(max(accuracies))
    assert best["test_accuracy"] == max(accuracies)
    assert sorted(path.name for path in result.folder.glob("epoch*")) == ["epoch2", "epoch4"]
    for epoch in (2, 4):
        _, loaded, info = load_checkpoint(result.folder / f"epoch{epoch}")
        assert loaded == training.config
        assert (info["finished"], info["epochs_done"], info["test_accuracy"]) == (False, epoch, accuracies[epoch - 1])


def test_micro_batches_change_only_the_rounding(training: Training, toy_network: Callable[..., None]) -> None:
    toy_network(lambda classes, width: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, classes)))
    training = training.but(batch_size=13, precision="float32")
    rows = [training.run(str(n), engine=Engine(accumulation=n)).history for n in (1, 4)]
    for one, four in zip(*rows, strict=True):
        assert one["loss"] == pytest.approx(four["loss"], rel=1e-5)
        assert one["train_accuracy"] == four["train_accuracy"]


def test_a_batch_has_no_more_images_than_there_are(training: Training) -> None:
    result = training.but(epochs=1, batch_size=100).run()
    assert load_checkpoint(result.folder)[2]["engine"]["batch_norm_images"] == len(training.data.train or ()) == 70


def test_going_on_in_another_way_is_said(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        before_step(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            training.run(progress=True)
    assert "the state is stored: the same command continues" in capsys.readouterr().err
    training.run(engine=Engine(accumulation=2), progress=True)
    said = "continued with other settings than before: accumulation 1 -> 2, batch_norm_images 16 -> 8"
    assert said in capsys.readouterr().err


def test_compiled_it_learns_the_same(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    original: Callable[..., Tensor] = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m: [compiled.append(m), original(m, backend="eager")][1])
    results = [training.run("plain")]
    results += [training.run("compiled", engine=Engine(compile=True))]
    assert len(compiled) == 1
    names = [result.model.state_dict().keys() for result in results]
    assert names[0] == names[1]
    for a, b in zip(results[0].history, results[1].history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
