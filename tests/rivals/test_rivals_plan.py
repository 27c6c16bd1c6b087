"""How long rows may train and be attacked."""

from dataclasses import replace
from pathlib import Path

import pytest

from shconv.errors import InputError
from shconv.rivals.plan import AUDITS, TESTS, TRAINING, Plan
from shconv.training import RECIPES

RECIPE = replace(RECIPES["short"], epochs=50)


def made(budget: str = "30m", steps: tuple[float, ...] = (0.1,) * 10, images: int = 200) -> Plan:
    return Plan.made(budget, RECIPE, images, 6400, steps, 1e-4)


def test_trainings_and_audits_keep_to_their_shares_of_the_budget() -> None:
    plan = made()
    assert plan.audit_seconds == pytest.approx(AUDITS * 1800 / 10)
    steps = plan.epochs * (6400 / RECIPE.batch_size)
    assert steps * 10 * 0.1 * TESTS <= TRAINING * 1800 < (steps + 6400 / RECIPE.batch_size) * 10 * 0.1 * TESTS


def test_dearer_steps_and_more_rows_mean_fewer_epochs_and_never_none() -> None:
    epochs = [made(steps=steps).epochs for steps in ((0.1,) * 10, (0.2,) * 10, (0.1,) * 30, (9.0,) * 30)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] == 1


def test_more_time_than_the_recipe_wants_and_no_limit_train_the_recipe() -> None:
    assert made("99h").epochs == made("full").epochs == 50
    assert made("full") == Plan(50, None, 200, pytest.approx(50 * 100 * 10 * 0.1 * TESTS))
    assert made("full").audit_budget == "full"
    assert made("99h").searched == 200


def test_a_budget_that_does_not_pay_one_epoch_of_each_is_said_to_be_too_small() -> None:
    assert "takes longer than the budget" in made("30s").said("30s", 10, RECIPE)
    assert "takes longer" not in made("30m").said("30m", 10, RECIPE)
    assert "1 epoch each, of the recipe's 50, about 2:10 in all" in made("30s").said("30s", 10, RECIPE)


def test_the_plan_is_kept_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert Plan.read(path) is None
    made().save(path)
    assert Plan.read(path) == made()
    path.write_text('{"epochs": 3}')
    with pytest.raises(InputError, match="is damaged"):
        Plan.read(path)
