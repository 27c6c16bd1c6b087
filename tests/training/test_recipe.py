from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shconv.errors import InputError
from shconv.training import RECIPES, Recipe, with_epochs

recipes = st.sampled_from(sorted(RECIPES))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("hyper_weight_decay", -1.0),
        ("gamma", 0.0),
        ("patience", 0),
        ("label_smoothing", 1.0),
        ("warmup_epochs", 10),
        ("milestones", (5, 5)),
        ("milestones", (5, 10)),
        ("milestones", (0,)),
        ("schedule", "linear"),
        ("augmentation", "mixup"),
        ("precision", "fp8"),
        ("optimizer", "adam"),
        ("ema", 1.0),
        ("ema", -0.1),
        ("mixup", -1.0),
        ("cutmix", float("nan")),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^{field}( is .*wanted: |: got .*; want )"):
        replace(Recipe(10, 16, 0.1), **{field: value})  # type: ignore[arg-type]


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(InputError, match="nesterov"):
        Recipe(10, 16, 0.1, momentum=0, nesterov=True)


def test_milestones_matter_to_the_step_schedule_only() -> None:
    short = replace(RECIPES["paper"], schedule="cosine", epochs=10)
    with pytest.raises(InputError, match="with_epochs"):
        replace(short, schedule="step")


@given(recipes, st.integers(1, 1000))
def test_with_epochs_keeps_every_share(name: str, epochs: int) -> None:
    recipe = RECIPES[name]
    other = with_epochs(recipe, epochs)
    assert other.epochs == epochs
    assert [m / epochs for m in other.milestones] == pytest.approx([m / recipe.epochs for m in recipe.milestones])
    assert other.warmup_epochs / epochs == pytest.approx(recipe.warmup_epochs / recipe.epochs)
    assert other.patience == max(1, round(recipe.patience * epochs / recipe.epochs))
    unscaled = {"epochs": 0, "milestones": 0, "warmup_epochs": 0, "patience": 0}
    assert vars(other) | unscaled == vars(recipe) | unscaled


@given(recipes)
def test_with_the_same_epochs_nothing_changes(name: str) -> None:
    assert with_epochs(RECIPES[name], RECIPES[name].epochs) == RECIPES[name]


@pytest.mark.parametrize("epochs", [0, -3, 2.5])
def test_with_epochs_wants_a_positive_integer(epochs: int) -> None:
    with pytest.raises(InputError, match="epochs is"):
        with_epochs(RECIPES["paper"], epochs)


def test_the_papers_recipes_hold_the_papers_numbers() -> None:
    for name in ("paper", "he2016"):
        recipe = RECIPES[name]
        assert (recipe.batch_size, recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (256, 0.1, 0.9, 1e-4)
        assert recipe.hyper_weight_decay is None
        assert not recipe.nesterov
        assert recipe.gamma == 0.1
    # 60e4 iterations on ImageNet's 1,281,167 images
    assert RECIPES["he2016"].epochs == round(60e4 * 256 / 1_281_167)
    # 32k, 48k and 64k iterations on CIFAR-10's 50,000 images, full batches only
    cifar = RECIPES["cifar"]
    assert (*cifar.milestones, cifar.epochs) == tuple(round(k * 1000 / (50_000 // 128)) for k in (32, 48, 64))
