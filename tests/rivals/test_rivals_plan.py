"""How long rows may train and be attacked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shconv.errors import InputError
from shconv.rivals.plan import FEWEST_SEARCHED, FEWEST_STEPS, SHORTEST_AUDIT, TESTS, TRAINING, Clock, Plan
from shconv.training import RECIPES

RECIPE = replace(RECIPES["short"], epochs=50)
IMAGES = 6400


def made(budget: str = "30m", steps: tuple[float, ...] = (0.1,) * 10, left: float = 1800) -> Plan:
    return Plan.made(budget, RECIPE, IMAGES, steps, left)


def test_trainings_keep_to_their_share_of_the_budget() -> None:
    plan, epoch = made(), IMAGES / RECIPE.batch_size * 10 * 0.1 * TESTS
    assert plan.training_seconds == pytest.approx(plan.epochs * epoch)
    assert plan.training_seconds <= TRAINING * 1800 < plan.training_seconds + epoch
    assert plan.train_images == IMAGES


def test_dearer_steps_and_more_rows_mean_fewer_epochs_and_then_fewer_images() -> None:
    plans = [made(steps=steps) for steps in ((0.1,) * 10, (0.2,) * 8, (0.1,) * 25, (1.0,) * 10, (9.0,) * 30)]
    assert [plan.epochs for plan in plans[2:]] == [2, 1, 1]
    assert plans[0].epochs > plans[1].epochs > plans[2].epochs
    assert IMAGES > plans[3].train_images > plans[4].train_images == FEWEST_STEPS * RECIPE.batch_size
    assert plans[3].training_seconds <= TRAINING * 1800


def test_trainings_take_no_more_than_what_prices_left() -> None:
    assert made(left=300).training_seconds <= 300
    assert made(left=-5).train_images == FEWEST_STEPS * RECIPE.batch_size


def test_two_at_a_time_train_for_twice_as_many_epochs() -> None:
    one, two = (Plan.made("30m", RECIPE, IMAGES, (0.1,) * 10, 1800, count) for count in (1, 2))
    assert two.epochs in (2 * one.epochs, 2 * one.epochs + 1)
    assert two.training_seconds <= TRAINING * 1800


def test_searches_and_audits_share_the_time_that_is_left() -> None:
    plan = made().with_searches("30m", 200, 6000, 2e-4, left=600)
    assert FEWEST_SEARCHED < plan.searched < 200  # type: ignore[operator]
    assert plan.with_searches("30m", 200, 6000, 1.0, left=600).searched == 0
    assert plan.with_searches("30m", 200, 6000, 2e-4, left=-1).searched == 0
    assert plan.with_audits("30m", 10, left=500).audit_budget == "50.0s"
    assert plan.with_audits("30m", 10, left=-20).audit_budget == f"{SHORTEST_AUDIT:.1f}s"


def test_more_time_than_the_recipe_wants_and_no_limit_train_the_recipe() -> None:
    assert made("99h", left=99 * 3600).epochs == made("full", left=float("inf")).epochs == 50
    plan = made("full", left=float("inf")).with_searches("full", 200, 6000, 1.0, float("inf"))
    assert plan.with_audits("full", 10, float("inf")) == Plan(50, IMAGES, plan.training_seconds, 200, "full")


def test_what_few_time_means_is_said() -> None:
    few = made("30s", left=20)
    said = few.said("30s", 10, RECIPE, IMAGES)
    assert said.startswith("10 trainings within 30s: 1 epoch each, of the recipe's 50, on ")
    assert f" {few.train_images} of 6400 images" in said
    assert "takes longer than the budget" not in said
    assert "takes longer than the budget" in made("1s", left=1).said("1s", 10, RECIPE, IMAGES)
    assert "images" not in made().said("30m", 10, RECIPE, IMAGES)


def test_the_clock_goes_on_where_a_stopped_run_left_it(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    first = Clock(path, "30m").left()
    assert 0 < first <= 1800
    path.write_text('{"seconds": 600.5}')
    assert 0 < Clock(path, "30m").left() <= 1199.5
    assert json.loads(path.read_text())["seconds"] >= 600.5


def test_the_plan_is_kept_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert Plan.read(path) is None
    assert made().save(path) == Plan.read(path) == made()
    path.write_text('{"epochs": 3}')
    with pytest.raises(InputError, match="is damaged"):
        Plan.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": "soon"}'])
def test_a_damaged_clock_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"clock\.json is damaged"):
        Clock(path, "30m")
