"""Random signs: corners of the ball, every one of them if there are few, counted."""

import pytest
import torch
from attack_toys import Linear, inner_images
from torch import Tensor

from shconv.attacks import RandomSigns
from shconv.attacks.losses import margin

SHAPE = (1, 2, 4)  # 256 corners


def test_enough_draws_find_the_best_corner() -> None:
    model, x = Linear(2, SHAPE, lead=100.0), inner_images(3, SHAPE)
    y = torch.zeros(3, dtype=torch.int64)
    wanted = margin(model(x), y) + 0.1 * (model.weight[1] - model.weight[0]).abs().sum()
    torch.testing.assert_close(margin(model(RandomSigns(0.1, 3000)(model, x, y)), y), wanted, rtol=0, atol=1e-9)


def test_every_draw_is_a_corner_with_even_odds_and_no_two_images_share_it() -> None:
    x, seen = inner_images(4, (3, 5, 5)), []

    def watching(z: Tensor) -> Tensor:
        seen.append((z - x) / 0.1)
        return torch.stack([z.sum((1, 2, 3)) + 1000, z.sum((1, 2, 3))], 1)

    result = RandomSigns(0.1, draws=200).run(watching, x, torch.zeros(4, dtype=torch.int64))
    draws = torch.stack(seen[1:])  # after the clean images
    assert len(draws) == 200
    assert result.queries.tolist() == [201] * 4
    torch.testing.assert_close(draws.abs(), torch.ones_like(draws))
    assert float(draws.mean()) == pytest.approx(0, abs=0.02)
    assert len({tuple(z.sign().flatten().tolist()) for z in draws.flatten(0, 1)}) == 800


def test_the_search_ends_when_all_images_are_broken() -> None:
    calls = 0

    def fragile(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        moved = ((z - x).abs().amax((1, 2, 3)) > 0.01).to(z)
        return torch.stack([1 - moved, moved], 1)

    x = inner_images(3)
    result = RandomSigns(0.1).run(fragile, x, torch.zeros(3, dtype=torch.int64))
    assert calls == 2
    assert result.queries.tolist() == [2, 2, 2]
