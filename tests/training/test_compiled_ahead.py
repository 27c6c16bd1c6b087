"""What is run to collect a network's kernels before its training, where no kernel is launched."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from shconv.commands import reproduce
from shconv.experiments.progress import ExperimentProgress
from shconv.processes import Processes
from shconv.training import RECIPES, ModelConfig, ahead

SMALL = ModelConfig("plain10_shc", 3, stem="small", width=2)


def test_the_passes_are_a_step_and_attacks_through_every_route(monkeypatch) -> None:
    routes: list[str] = []
    real = ahead.gradient_route
    monkeypatch.setattr(ahead, "gradient_route", lambda model, route: routes.append(route) or real(model, route))
    network, layout = SMALL.build(), torch.channels_last
    trained, attacked = ahead._passes(network, torch.bfloat16, layout, (3, 8, 8), torch.device("cpu"))
    trained()
    assert all(each.grad is not None for each in network.parameters())
    attacked()
    assert routes == list(ahead.ROUTES)


def test_nothing_is_begun_on_a_cpu_and_only_networks_with_filter_maps_count(monkeypatch) -> None:
    monkeypatch.setattr(ahead, "begin", lambda *_: pytest.fail("begun"))
    ahead.begin_compiling([SMALL], RECIPES["short"], (3, 8, 8), torch.device("cpu"))
    vanilla, shc = replace(SMALL, name="plain10").build(), SMALL.build()
    assert ahead._with_maps([vanilla, shc]) == [shc]


def test_a_training_waits_for_its_own_kernels_and_only_at_its_end_for_those_of_attacks(monkeypatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    monkeypatch.setattr(ahead, "_passes", lambda *_: ("trained", "attacked"))
    monkeypatch.setattr(ahead, "begin", lambda runs, device: runs)
    monkeypatch.setattr(ahead, "wait", waited.extend)
    learner = SimpleNamespace(network=SMALL.build(), device=torch.device("cuda"), dtype=None, layout=None)
    rest = ahead.compiled_ahead(learner, torch.zeros(3, 8, 8))
    assert waited == ["trained"]
    rest()
    assert waited == ["trained", "attacked"]


def test_a_reproduction_begins_with_the_kernels_of_the_networks_that_are_not_trained_yet(monkeypatch, tmp_path) -> None:
    done: list[tuple[str, object]] = []
    monkeypatch.setattr(reproduce, "can_be_side_by_side", lambda *_: False)
    monkeypatch.setattr(reproduce, "is_finished", lambda folder: folder.name == "plain10_shc-seed0")
    monkeypatch.setattr(
        reproduce,
        "begin_compiling",
        lambda configs, recipe, shape, device: done.append(("compiles", ([each.name for each in configs], shape))),
    )

    def train(config: ModelConfig, **_: object) -> SimpleNamespace:
        done.append(("trains", config.name))
        return SimpleNamespace(model=torch.nn.Identity())

    monkeypatch.setattr(reproduce, "train", train)
    data = SimpleNamespace(classes=["a", "b"], channels=3, image_size=8, train=[(torch.zeros(3, 8, 8), 0)])
    options = reproduce.Reproduce(seeds=(0,), models=("plain10", "resnet18"), width=2)
    options._trained_pairs(SimpleNamespace(path=tmp_path), data, Processes(), 0, ExperimentProgress(False))
    assert done[0] == ("compiles", (["plain10", "resnet18", "resnet18_shc"], (3, 8, 8)))
    assert [name for what, name in done[1:]] == ["plain10", "plain10_shc", "resnet18", "resnet18_shc"]
