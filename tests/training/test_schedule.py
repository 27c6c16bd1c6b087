from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shconv.training import RECIPES, Recipe, with_epochs
from shconv.training.schedule import learning_rate, plateaus


def test_the_papers_rate_falls_tenfold_at_30_and_60() -> None:
    rates = [learning_rate(RECIPES["paper"], epoch) for epoch in range(90)]
    assert rates == pytest.approx([0.1] * 30 + [0.01] * 30 + [0.001] * 30, rel=1e-12)


def test_a_shortened_paper_recipe_falls_at_the_same_shares() -> None:
    rates = [learning_rate(with_epochs(RECIPES["paper"], 9), epoch) for epoch in range(9)]
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 3, rel=1e-12)


def test_a_milestone_counts_from_its_own_moment_on() -> None:
    recipe = Recipe(10, 1, 1.0, milestones=(2.5,))
    assert [learning_rate(recipe, moment) for moment in (0, 2.4999, 2.5, 9)] == [1, 1, 0.1, 0.1]


def test_cosine_agrees_with_torchs_own() -> None:
    recipe = Recipe(12, 1, 0.3, schedule="cosine")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for epoch in range(13):
        assert learning_rate(recipe, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        oracle.step()


@given(st.sampled_from(["step", "cosine", "plateau"]), st.floats(0, 1))
def test_the_warm_up_is_linear_from_zero_whatever_follows(schedule: str, share: float) -> None:
    recipe = Recipe(10, 1, 0.4, schedule=schedule, warmup_epochs=2, milestones=(5,))  # type: ignore[arg-type]
    assert learning_rate(recipe, 2 * share) == pytest.approx(0.4 * share, abs=1e-15)


def test_cosine_after_a_warm_up_ends_at_zero_and_is_half_way_in_the_middle() -> None:
    recipe = Recipe(10, 1, 0.4, schedule="cosine", warmup_epochs=2)
    assert [learning_rate(recipe, moment) for moment in (2, 6, 10)] == pytest.approx([0.4, 0.2, 0], abs=1e-15)


@given(st.lists(st.floats(0.01, 10), max_size=30), st.integers(1, 6))
def test_plateaus_are_those_of_torchs_reduce_on_plateau(losses: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience - 1, threshold=0.01)
    oracle.eps = 0
    for loss in losses:
        oracle.step(loss)
    assert optimizer.param_groups[0]["lr"] == 0.5 ** plateaus(losses, patience)


def test_the_plateau_schedule_divides_once_the_loss_stays() -> None:
    recipe = replace(RECIPES["he2016"], patience=2)
    seen = [learning_rate(recipe, n, [3, 2, 1.5, 1.5, 1.49, 1.2, 1.2, 1.2][:n]) for n in range(9)]
    assert seen == pytest.approx([0.1] * 5 + [0.01] * 3 + [0.001])
