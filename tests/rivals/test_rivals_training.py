"""The table's trainings: those that others learn from come first, and side by side gives what one by one gives."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shconv.data import ImageData
from shconv.data.splits import MemorySplit
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.processes import Processes
from shconv.rivals import training
from shconv.rivals.plan import Plan
from shconv.rivals.wanted import PRICES, Wanted, place_of
from shconv.rivals.which import Rival, rivals
from shconv.training import ModelConfig, Recipe
from shconv.training.checkpoint import load_info
from toys import processes


def split(n: int) -> MemorySplit:
    images = torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)
    return MemorySplit(images, torch.arange(n) % 3, [str(place) for place in range(n)])


DATA = ImageData("toy", ("red", "green", "blue"), split(48), split(9), 8, "What these images are.", 0)
PLAN = Plan(1, 48, 1.0)


def asked(*words: str, seeds: tuple[int, ...] = (0, 1)) -> Wanted:
    def config(name: str) -> ModelConfig:
        return ModelConfig(name, 3, stem="small", width=2)

    return Wanted(rivals(["plain10"], words), seeds, Recipe(1, 16, 0.05), config, 9, 0.03, "30m")


def trained(folder: Path, of: Wanted, data: ImageData = DATA) -> dict[str, dict[str, torch.Tensor]]:
    networks = training.trained(folder, of, PLAN, data, Processes.found(device="cpu"), ExperimentProgress())
    return {network.key: network.model.state_dict() for network in networks}


def test_sources_come_before_what_learns_from_them_and_once() -> None:
    first, then = asked("ensemble", "shc").in_turn
    vanilla, matched = Rival("plain10"), Rival("plain10", "matched")
    assert {each for each, _ in first} == {vanilla, matched, Rival("plain10", "shc")}
    assert len(first) == len(set(first)) == 6
    assert then == [(Rival("plain10", "", "ensemble"), 0), (Rival("plain10", "", "ensemble"), 1)]


def test_side_by_side_gives_the_bits_of_one_by_one_and_says_a_thing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "can_be_side_by_side", lambda *of: False)
    alone = trained(tmp_path / "alone", asked("ensemble"))
    said = capsys.readouterr().err
    assert said.count("6 of 6 networks are trained") == said.count(DATA.note) == 1
    monkeypatch.undo()
    context = processes()  # a helper that starts from nothing, as usual, takes seconds
    monkeypatch.setattr("multiprocessing.get_context", lambda method: context)
    torch.set_num_threads(2)
    try:
        together = trained(tmp_path / "together", asked("ensemble"))
    finally:
        torch.set_num_threads(1)
    assert "2 networks are trained at a time" in (said := capsys.readouterr().err)
    assert said.count("6 of 6 networks are trained") == 1
    assert (
        alone.keys() == together.keys() == {f"plain10{end}/seed{seed}" for end in ("", "-ensemble") for seed in (0, 1)}
    )
    for key, weights in alone.items():
        assert all(torch.equal(values, together[key][name]) for name, values in weights.items()), key


def test_what_is_left_is_priced_by_the_steps_of_what_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step of 1 s is trained after 60 s, two of 2 s and one of 1 s are left."""
    of = asked("goodfellow")
    (tmp_path / PRICES).write_text('{"plain10": {"step": 1.0}, "plain10-goodfellow": {"step": 2.0}}')
    clock = iter(60.0 * step for step in range(9))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    done: list[Path] = []
    monkeypatch.setattr(training, "is_finished", done.__contains__)
    progress = ExperimentProgress()
    report = training._reporting(tmp_path, of, training.kept_prices(tmp_path), progress)
    done.append(place_of(tmp_path, "models", Rival("plain10"), 0))
    report()
    assert "1 of 4 networks are trained, about 5:00 left" in capsys.readouterr().err


def test_an_error_of_a_training_is_not_lost_and_what_was_trained_stays(tmp_path: Path) -> None:
    of = asked("shc", seeds=(0,))
    bad = place_of(tmp_path, "models", Rival("plain10", "shc"), 0)
    bad.parent.mkdir(parents=True)
    bad.write_text("a file")
    with pytest.raises(InputError, match="is a file"):
        trained(tmp_path, of)
    bad.unlink()
    trained(tmp_path, of, replace(DATA))
    assert load_info(bad) is not None
