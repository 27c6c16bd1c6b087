"""Attacks that look for the nearest image, held to a budget: what lies beyond it does not count."""

import pytest
import torch
from attack_toys import Linear, inner_images

from shconv.attacks import ANY_CHANGE, RIVALS, Budget, DeepFool, MinimalAttack, create_attack
from shconv.errors import InputError

LESS = {"lbfgs": {"searches": 3}, "lbfgs_likeliest": {"searches": 3}}  # seconds otherwise
MINIMAL = {name: attack for name, attack in RIVALS.items() if isinstance(attack, MinimalAttack)}


@pytest.mark.parametrize("name", MINIMAL)
def test_of_what_it_finds_without_a_budget_it_keeps_what_lies_within_one(name: str) -> None:
    model, x = Linear(4), inner_images(3)
    y = model(x).argmax(1)
    less = LESS.get(name, {})
    free = create_attack(name, **less).run(model, x, y)
    norm = getattr(MINIMAL[name], "norm", "l2")
    reached = free.distances[norm]
    found = reached[reached > 0]
    epsilon = float(found.median()) if len(found) else 0.1
    held = create_attack(name, eps=epsilon, **less).run(model, x, y)
    near = reached <= epsilon * (1 + 1e-6)
    assert torch.equal(held.images, torch.where(near[:, None, None, None], free.images, x))
    for key, distance in held.distances.items():
        assert torch.equal(distance, torch.where(near, free.distances[key], 0))
    assert torch.equal(held.queries, free.queries)
    assert create_attack(name, eps=epsilon).budget == Budget(norm, epsilon)
    assert create_attack(name).budget == ANY_CHANGE


def test_the_budget_is_read_as_everywhere() -> None:
    assert DeepFool("linf", eps="8/255").epsilon == 8 / 255  # type: ignore[call-arg]
    with pytest.raises(InputError, match="got eps and epsilon, which are the same"):
        DeepFool(eps=0.1, epsilon=0.1)  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"epsilon: got 8; want at most 1"):
        DeepFool("linf", epsilon=8)
    assert DeepFool(epsilon=8).epsilon == 8  # a length adds up pixels
