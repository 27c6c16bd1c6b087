"""Defences by their settings: sources, random numbers, and what is refused."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from defence_toys import CLASSES, EPS, images, linear, slim, source, step, taught

from shconv.errors import InputError
from shconv.training import DEFENCES, Defence, ModelConfig, create_defence, save_checkpoint
from shconv.training.defences import (
    FGSMRS,
    PGD,
    TRADES,
    Detector,
    Distillation,
    Ensemble,
    Goodfellow,
    NoiseModel,
    Plain,
    Stability,
)
from shconv.training.defences.base import step_word


def test_sources_come_from_checkpoints_and_say_which(tmp_path: Path) -> None:
    for seed, folder in ((1, "a"), (2, "b"), (1, "moved")):
        config = {"name": "plain10", "num_classes": 3, "stem": "small", "width": 4}
        about = {"model": config, "data": {"classes": CLASSES}, "seed": seed}
        save_checkpoint(tmp_path / folder, slim("plain10", seed), about)
    a, b, moved = (create_defence("ensemble", sources=[tmp_path / folder]).record() for folder in ("a", "b", "moved"))
    assert a == moved != b
    assert a is not None
    assert (a["name"], a["eps"]) == ("ensemble", 8 / 255)
    assert {key: a["sources"][0][key] for key in ("model", "seed")} == {"model": "plain10", "seed": 1}
    defence = create_defence("ensemble", sources=[tmp_path / "a"], eps=EPS)
    defence.check(ModelConfig("plain10", 3), CLASSES)
    before = torch.cat([t.flatten().float() for t in defence.sources[0].network.state_dict().values()])  # type: ignore[attr-defined]
    for number in range(6):
        defence.loss(slim("plain10_shc"), images(4), torch.arange(4) % 3, step(number)).loss.backward()
    network = defence.sources[0].network  # type: ignore[attr-defined]
    assert torch.equal(before, torch.cat([t.flatten().float() for t in network.state_dict().values()]))
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("name", DEFENCES)
def test_a_step_is_a_function_of_its_generator(name: str) -> None:
    y = torch.tensor([0, 1, 2, 0])
    losses = []
    for k in (4, 4, 5, 6, 7, 8):
        network, defence = taught(name, "plain10")
        losses.append(defence.loss(network, images(4), y, step(k)).loss.item())
    assert losses[0] == losses[1]
    assert (len(set(losses)) == 1) == (
        name in ("none", "goodfellow", "distillation", "noise-model")
    )  # they draw nothing


def test_every_step_of_every_epoch_and_seed_draws_numbers_of_its_own() -> None:
    places = [(seed, epoch, number) for seed in range(3) for epoch in range(3) for number in range(3)]
    assert len({step_word(*place) for place in places}) == len(places)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (
            lambda: create_defence("fgsm"),
            "unknown defence 'fgsm'; choose from none, goodfellow, fgsm-rs, pgd, ensemble, stability, trades, ",
        ),
        (lambda: create_defence("none", eps=0.1), "defence none has no eps$"),
        (lambda: create_defence("fgsm-rs", steps=3), "defence fgsm-rs has no steps; it has eps, step_size"),
        (lambda: create_defence("pgd", sources=["a"]), "defence pgd has no sources"),
        (lambda: create_defence("stability", eps=0.1), "defence stability has no eps; it has alpha, sigma"),
        (lambda: create_defence("ensemble"), "give at least one as its source"),
        (lambda: create_defence("ensemble", sources=["nowhere"]), "no checkpoint in nowhere"),
        (lambda: PGD(eps=0.0), "eps: got 0.0; want a number > 0"),
        (lambda: FGSMRS(step_size=0), "step_size: got 0; want a number > 0"),
        (lambda: PGD(step_size=math.inf), "step_size: got inf"),
        (lambda: PGD(steps=0), "steps: got 0; want an integer of at least 1"),
        (lambda: Goodfellow(alpha=1.5), "alpha: got 1.5; want a number from 0 to 1"),
        (lambda: Goodfellow(eps=0), "eps: got 0"),
        (lambda: TRADES(beta=0), "beta: got 0; want a number > 0"),
        (lambda: TRADES(steps=0), "steps: got 0; want an integer of at least 1"),
        (lambda: Distillation(0), "temperature: got 0; want a number > 0"),
        (lambda: Distillation(sources=(source(linear()),) * 2), "one teacher: got 2 sources"),
        (lambda: create_defence("distillation", sources=["nowhere"]), "no checkpoint in nowhere"),
        (lambda: Detector(adversary="both"), "adversary: got 'both'; want 'static' or 'dynamic'"),  # type: ignore[arg-type]
        (lambda: Detector(sources=(source(linear()),) * 2), "guards one classifier: got 2 sources"),
        (lambda: Detector(steps=2.5), r"steps: got 2\.5; want an integer"),
        (lambda: NoiseModel(0), "sigma: got 0; want a number > 0"),
        (lambda: Stability(alpha=-1), "alpha: got -1"),
        (lambda: Stability(sigma=0), "sigma: got 0"),
    ],
)
def test_settings_out_of_range_are_refused(create: Callable[[], Defence], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create()


@pytest.mark.parametrize(
    ("classes", "in_channels", "message"),
    [
        (("red", "green"), 3, r"was trained on 2 classes \(red, green\); wanted: 3 classes \(red, green, blue\)"),
        (("red", "green", "lime"), 3, r"was trained on 3 classes \(red, green, lime\)"),
        ((), 3, "was trained on 0 classes"),
        (CLASSES, 1, "takes images of 1 channels, not 3"),
    ],
)
def test_sources_of_something_else_are_refused(classes: tuple[str, ...], in_channels: int, message: str) -> None:
    defence = Ensemble((source(linear(3)), source(linear(3), classes, in_channels)), EPS)
    with pytest.raises(InputError, match=f"source 2 of the defence, a plain10 of seed 0, {message}"):
        defence.check(ModelConfig("plain10", 3), CLASSES)


def test_one_class_leaves_nothing_to_attack() -> None:
    with pytest.raises(InputError, match="defence pgd needs at least 2 classes to attack, these are 1"):
        PGD().check(ModelConfig("plain10", 1), ("only",))
    for defence in (Plain(), Stability()):
        defence.check(ModelConfig("plain10", 1), ("only",))
