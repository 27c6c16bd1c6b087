"""SGD, AdamW and the exponential mean of the weights: what moves, what is tested and stored, and how it goes on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_toys import Training
from safetensors.torch import load_file
from stops import before_step, interrupt
from torch import nn

from shconv.errors import InputError
from shconv.training import Engine, Recipe, correct_in, load_checkpoint
from shconv.training.optimisers import WeightMean, create_optimizer

pytestmark = pytest.mark.usefixtures("toy_network")


def test_the_recipe_names_the_optimiser_and_each_group_its_decay(recipe: Recipe) -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))], "weight_decay": 0.3}]
    sgd = create_optimizer(groups, replace(recipe, momentum=0.8))
    adamw = create_optimizer(groups, replace(recipe, optimizer="adamw"))
    assert (type(sgd), type(adamw)) == (torch.optim.SGD, torch.optim.AdamW)
    assert sgd.param_groups[0]["momentum"] == 0.8
    assert sgd.param_groups[0]["weight_decay"] == adamw.param_groups[0]["weight_decay"] == 0.3


def test_the_mean_follows_its_definition_and_a_copy_goes_on_alike() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    mean = WeightMean(network, decay=0.4)
    expected = {name: tensor.clone().double() for name, tensor in network.state_dict().items()}
    for step in range(1, 8):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor += step
        mean.update(network)
        decay = min(0.4, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor
        if step == 4:
            other = WeightMean(network, decay=0.4)
            other.restore(mean.state())
        elif step > 4:
            other.update(network)
    for name, tensor in mean.network.state_dict().items():
        wanted = network.state_dict()[name] if "tracked" in name else expected[name].float()
        torch.testing.assert_close(tensor, wanted)
        assert torch.equal(other.network.state_dict()[name], tensor)
    assert not any(parameter.requires_grad for parameter in mean.network.parameters())


@pytest.mark.parametrize("changes", [{"optimizer": "adamw", "learning_rate": 0.01}, {"ema": 0.9}])
def test_stopped_in_an_epoch_and_continued_nothing_is_different(
    tmp_path: Path, training: Training, changes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training.but(**changes)
    plain = training.but(ema=None, optimizer="sgd").run("plain")
    whole = training.run("whole")
    with monkeypatch.context() as patch:
        before_step(patch, 7, interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.run("stopped", engine=Engine(save_steps=5))
    training.run("stopped")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("stopped", "whole", "plain")]
    assert files[0] == files[1] != files[2]
    assert whole.history != plain.history


def test_what_is_stored_is_the_mean_tested_and_said(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[WeightMean] = []
    original = WeightMean.__init__
    monkeypatch.setattr(WeightMean, "__init__", lambda self, *args: (original(self, *args), kept.append(self))[0])
    result = training.but(ema=0.8).run()
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in kept[0].network.state_dict().items())
    info = json.loads((tmp_path / "config.json").read_text())
    assert info["weights"] == "the exponential mean of the trained ones, decay 0.8"
    assert info["recipe"]["ema"] == 0.8
    right = correct_in(load_checkpoint(tmp_path)[0], training.data.test, training.recipe.batch_size, "cpu")
    assert right == round(result.test_accuracy * len(training.data.test))
    with pytest.raises(InputError, match=r"recipe.ema = 0.8, asked for is null"):
        training.run()


def test_a_checkpoint_of_before_these_options_is_still_the_same_training(tmp_path: Path, training: Training) -> None:
    training.run()
    info = json.loads((tmp_path / "config.json").read_text())
    for name in ("optimizer", "ema", "mixup", "cutmix"):
        del info["recipe"][name]
    (tmp_path / "config.json").write_text(json.dumps(info))
    training.run()
    with pytest.raises(InputError, match=r'recipe.optimizer = "sgd", asked for is "adamw"'):
        training.but(optimizer="adamw").run()
