"""Results.curve: accuracy over distance, from the nearest images that fool; every attack by name through evaluate."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import shconv
from shconv.attacks import LBFGS, RIVALS, DeepFool, Substitute
from shconv.errors import InputError
from shconv.intervals import wilson
from toys import colour_networks, colours

LABELS = torch.tensor([i % 3 for i in range(12)])
IMAGES = colours(LABELS.tolist()).float() / 255
QUICK: dict[str, Any] = {"batch_size": 12, "progress": False}


def test_the_curve_counts_at_each_distance_the_images_that_stand() -> None:
    vanilla, shc = colour_networks()
    wrong = LABELS.clone()
    wrong[:2] = (wrong[:2] + 1) % 3
    attacks = {"l2": DeepFool(), "linf": DeepFool("linf")}
    results = shconv.evaluate({"plain": vanilla, "shc": shc}, (IMAGES, wrong), attacks, **QUICK)
    for model, attack, norm in (("plain", "l2", "l2"), ("shc", "linf", "linf")):
        images, curve = results.images(model, attack), results.curve(model, attack)
        assert curve.distance.is_monotonic_increasing
        assert curve.distance[0] == 0
        assert curve.accuracy[0] == images.clean_correct.mean() <= 10 / 12
        assert curve.accuracy.iloc[-1] == images.correct.mean()
        for line in curve.itertuples():
            standing = images.correct | (images[norm] > line.distance)
            assert line.accuracy == standing.mean()
            assert (line.low, line.high) == wilson(int(standing.sum()), 12)
    other = results.curve("plain", "l2", norm="linf")
    assert other.distance.tolist() != results.curve("plain", "l2").distance.tolist()


def test_what_was_not_measured_has_no_curve() -> None:
    vanilla, _ = colour_networks()
    results = shconv.evaluate({"plain": vanilla}, (IMAGES, LABELS), {"near": DeepFool(steps=2)}, **QUICK)
    with pytest.raises(InputError, match="curve: got 'shc'; want one of plain"):
        results.curve("shc", "near")
    with pytest.raises(InputError, match=r"curve: got attack 'far', plain did not meet it.*; want one of near"):
        results.curve("plain", "far")
    with pytest.raises(InputError, match="norm: got 'l1'; want 'linf' or 'l2'"):
        results.curve("plain", "near", norm="l1")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RIVALS)
def test_every_attack_of_others_runs_through_evaluate(name: str) -> None:
    vanilla, _ = colour_networks()
    changes = {LBFGS: {"searches": 3}, Substitute: {"seeds": 9, "rounds": 1}}.get(type(RIVALS[name]), {})
    attack = replace(RIVALS[name], **changes)
    results = shconv.evaluate({"plain": vanilla}, (IMAGES[:3], LABELS[:3]), {name: attack}, **QUICK)
    line = results.rows().set_index("attack").loc[name]
    assert line.accuracy <= results.rows().set_index("attack").loc["clean"].accuracy
    images = results.images(attack=name)
    assert (images.queries > 0).all()
    assert ((images.l2 > 0) | images.correct | ~images.clean_correct).all()
    assert len(results.curve("plain", name))
