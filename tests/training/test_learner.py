from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import shconv
from shconv.errors import InputError
from shconv.ops.cpu import library
from shconv.processes import Processes
from shconv.training import RECIPES, Engine, ModelConfig, Recipe
from shconv.training.defences.base import first_word
from shconv.training.epoch import _seed_step
from shconv.training.learner import Learner, autocast_dtype, parameter_groups

RECIPE = RECIPES["paper"]


def slim(name: str) -> torch.nn.Module:
    return shconv.create_model(name, num_classes=3, stem="small", width=2)


@pytest.mark.parametrize("factor", [None, 1e-4])
def test_theta_shares_the_weight_decay_of_everything_else_unless_told_otherwise(factor: float | None) -> None:
    network = slim("plain10_shc")
    (group,) = parameter_groups(network, replace(RECIPE, hyper_weight_decay=factor))
    assert group["weight_decay"] == 1e-4
    assert [id(p) for p in group["params"]] == [id(p) for p in network.parameters()]


def test_a_factor_of_its_own_reaches_theta_and_nothing_else() -> None:
    network = slim("plain10_shc")
    others, theta = parameter_groups(network, replace(RECIPE, hyper_weight_decay=0.5))
    assert (others["weight_decay"], theta["weight_decay"]) == (1e-4, 0.5)
    hypernetworks = [m.hyper for m in network.modules() if isinstance(m, shconv.SHConv2d)]
    assert {id(p) for p in theta["params"]} == {id(p) for h in hypernetworks for p in h.parameters()}
    everything = [id(p) for p in others["params"] + theta["params"]]
    assert sorted(everything) == sorted(id(p) for p in network.parameters())


def test_a_layer_by_itself_has_theta_too() -> None:
    _, theta = parameter_groups(shconv.SHConv2d(4, 4, 3), replace(RECIPE, hyper_weight_decay=0))
    assert len(theta["params"]) == 4


def test_a_vanilla_network_has_one_group_whatever_the_factor() -> None:
    (group,) = parameter_groups(slim("plain10"), replace(RECIPE, hyper_weight_decay=0.5))
    assert group["weight_decay"] == 1e-4


def test_without_gradient_a_step_shrinks_each_group_by_its_own_decay() -> None:
    network = slim("plain10_shc")
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(parameter_groups(network, replace(RECIPE, hyper_weight_decay=0.5)), lr=0.1)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        left = 1 - 0.1 * (0.5 if ".hyper." in name else 1e-4)
        torch.testing.assert_close(parameter.detach(), left * before[name])


@pytest.mark.parametrize("tiles", [False, True])
def test_precision_follows_the_device_unless_asked_for(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "has_bfloat16", lambda: tiles)
    auto = torch.bfloat16 if tiles else None
    cpu, cuda, net = torch.device("cpu"), torch.device("cuda"), nn.Conv2d(4, 4, 3)
    asked: dict[str, Recipe] = {p: replace(RECIPE, precision=p) for p in ("auto", "float32", "bf16", "fp16")}  # type: ignore[arg-type]
    assert [autocast_dtype(asked[p], cpu, net) for p in ("auto", "float32", "bf16")] == [auto, None, torch.bfloat16]
    assert [autocast_dtype(r, cuda, net) for r in asked.values()] == [
        torch.bfloat16,
        None,
        torch.bfloat16,
        torch.float16,
    ]
    with pytest.raises(InputError, match="fp16 needs a CUDA device, this is cpu"):
        autocast_dtype(asked["fp16"], cpu, net)


@pytest.mark.parametrize(
    ("groups", "precision", "device", "wanted"),
    [
        (1, "auto", "cpu", torch.bfloat16),
        (2, "auto", "cpu", torch.bfloat16),
        (4, "auto", "cpu", None),
        (4, "auto", "cuda", torch.bfloat16),
        (4, "bf16", "cpu", torch.bfloat16),
    ],
)
def test_a_depthwise_network_is_trained_in_float32_on_a_cpu_unless_told_otherwise(
    groups: int, precision: str, device: str, wanted: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "has_bfloat16", lambda: True)  # a CPU on which bfloat16 is fast
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=groups), nn.Conv2d(4, 2, 1))
    recipe = replace(RECIPE, precision=precision)  # type: ignore[arg-type]
    assert autocast_dtype(recipe, torch.device(device), network) is wanted


@pytest.mark.parametrize("entropy", [(0, 18, 1, 2, 0), (2**32 - 1, 16, 0), (2**32, 16, 5), (2**70 + 3, 16, 1, 4)])
def test_the_words_of_a_step_are_those_of_numpys_seed_sequence(entropy: tuple[int, ...]) -> None:
    assert first_word(*entropy) == int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def test_a_step_seeds_torch_as_manual_seed_does() -> None:
    with torch.random.fork_rng([]):
        _seed_step(3, 1, 2, 0, torch.device("cpu"))
        drawn = torch.rand(3)
        torch.manual_seed(first_word(3, 18, 1, 2, 0) >> 1)
        assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize("stored", [True, None])
def test_a_restored_optimiser_steps_in_the_way_of_its_own_device(stored: bool | None) -> None:
    """A state of a GPU, whose optimiser is fused, continued on a CPU."""
    learner = Learner.build(ModelConfig("plain10", 3, stem="small", width=2), RECIPE, Engine(), Processes())
    state = learner.state()
    for group in state["optimizer"]["param_groups"]:
        group["fused"], group["lr"] = stored, 0.5
    learner.restore(state)
    assert [(group["fused"], group["lr"]) for group in learner.optimizer.param_groups] == [(None, 0.5)]


def test_images_are_255ths_of_their_levels_whatever_the_layout() -> None:
    learner = Learner.build(ModelConfig("plain10", 3, stem="small", width=2), RECIPE, Engine(), Processes())
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    images = learner.images(levels.expand(2, 3, -1, -1))
    assert torch.equal(images, levels.float().div(255).expand_as(images))
    assert images.is_contiguous(memory_format=torch.channels_last)
