"""Every budget and step in the tree: "8/255" is read, 8 is refused with what was meant; what moves no pixel is free."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch

from shconv import attacks
from shconv.attacks import (
    FGSM,
    IFGSM,
    JSMA,
    LBFGS,
    PGD,
    DeepFool,
    Foreign,
    GaussianBlur,
    GaussianNoise,
    HardLabel,
    LocSearchAdv,
    RandFGSM,
    RandomSigns,
    SaltAndPepper,
    SemiRandom,
    Square,
    Standard,
    Substitute,
    UndetectedPGD,
    create_attack,
)
from shconv.attacks.budget import Budget
from shconv.audit.setting import Setting
from shconv.errors import InputError
from shconv.numbers import budget, in_points, number, radius_text
from shconv.training import defences
from shconv.training.defences import (
    FGSMRS,
    TRADES,
    Detector,
    Ensemble,
    Goodfellow,
    NoiseModel,
    Source,
    Stability,
    create_defence,
)
from shconv.training.defences import PGD as PGD_TRAINING

SOURCE = (Source(torch.nn.Identity(), None, (), 0, ""),)  # type: ignore[arg-type]

BUDGETS: dict[str, Callable[[Any], Any]] = {
    "FGSM.epsilon": lambda value: FGSM(epsilon=value).epsilon,
    "IFGSM.epsilon": lambda value: IFGSM(epsilon=value).epsilon,
    "IFGSM.step_size": lambda value: IFGSM(step_size=value).step_size,
    "IFGSM.kurakin": lambda value: IFGSM.kurakin(value).epsilon,
    "IFGSM.epsilon_over_steps": lambda value: IFGSM.epsilon_over_steps(value).epsilon,
    "RandFGSM.epsilon": lambda value: RandFGSM(epsilon=value).epsilon,
    "RandFGSM.alpha": lambda value: RandFGSM(alpha=value).alpha,
    "RandFGSM.total": lambda value: 2 * RandFGSM.total(value).epsilon,
    "GaussianNoise.sigma": lambda value: GaussianNoise(value).sigma,
    "GaussianNoise.epsilon": lambda value: GaussianNoise(0.1, epsilon=value).epsilon,
    "GaussianNoise.two_sigma": lambda value: GaussianNoise.two_sigma(value).sigma,
    "by name": lambda value: create_attack("fgsm", epsilon=value).epsilon,  # type: ignore[attr-defined]
    "audit PGD.epsilon": lambda value: PGD(value).epsilon,
    "audit PGD.step_size": lambda value: PGD(0.1, step_size=value).step_size,
    "audit Square": lambda value: Square(value).epsilon,
    "audit Standard": lambda value: Standard(value).epsilon,
    "audit HardLabel": lambda value: HardLabel("boundary", value).epsilon,
    "audit RandomSigns": lambda value: RandomSigns(value).epsilon,
    "Foreign": lambda value: Foreign(print, epsilon=value).epsilon,
    "Substitute": lambda value: Substitute(value).epsilon,
    "DeepFool in L-inf": lambda value: DeepFool("linf", epsilon=value).epsilon,
    "UndetectedPGD": lambda value: UndetectedPGD(value).epsilon,
    "audit": lambda value: Setting(value, 0.5).eps,
    "training FGSMRS": lambda value: FGSMRS(eps=value).eps,
    "training PGD": lambda value: PGD_TRAINING(eps=value).eps,
    "training Ensemble": lambda value: Ensemble(SOURCE, eps=value).eps,
    "training Goodfellow": lambda value: Goodfellow(eps=value).eps,
    "training TRADES": lambda value: TRADES(eps=value).eps,
    "training Detector": lambda value: Detector(eps=value).eps,
    "training NoiseModel": lambda value: NoiseModel(value).sigma,
    "training Stability": lambda value: Stability(sigma=value).sigma,
    "training by name": lambda value: create_defence("pgd", eps=value).eps,
}


@pytest.mark.parametrize("made", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize(("given", "read"), [("8/255", 8 / 255), ("0.03", 0.03), (0.25, 0.25), (" 4 / 255 ", 4 / 255)])
def test_a_fraction_in_text_is_read_as_the_number(made: Callable[[Any], Any], given: Any, read: float) -> None:
    assert made(given) == read


@pytest.mark.parametrize("made", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize(
    ("given", "meant"), [(8, "8/255, not 8"), ("8", "8/255, not 8"), (1.01, "8/255, not 8"), (16.0, "16/255, not 16")]
)
def test_a_budget_in_grey_levels_is_refused_with_what_was_meant(
    made: Callable[[Any], Any], given: Any, meant: str
) -> None:
    with pytest.raises(InputError, match="want at most 1, as images lie in .*" + meant):
        made(given)


@pytest.mark.parametrize("made", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("given", ["much", "8/0", "8/255/2", "", "nan", float("inf"), -0.1, True])
def test_no_number_is_refused_with_what_is_wanted(made: Callable[[Any], Any], given: Any) -> None:
    with pytest.raises(InputError, match="want a number"):
        made(given)


FREE: dict[str, Callable[[], Any]] = {
    "L2 radius of PGD": lambda: PGD(2.5, "l2").epsilon == 2.5,
    "L2 step of PGD": lambda: PGD(2.5, "l2", step_size="3/2").step_size == 1.5,
    "L2 radius of Square": lambda: Square(3.0, "l2").epsilon == 3.0,
    "L2 radius of AutoAttack": lambda: Standard(3.0, "l2").epsilon == 3.0,
    "L2 radius of HardLabel": lambda: HardLabel("boundary", 3.0, "l2").epsilon == 3.0,
    "L2 radius of LBFGS": lambda: LBFGS(epsilon=3.0).epsilon == 3.0,
    "L2 radius of JSMA": lambda: JSMA(epsilon=3.0).epsilon == 3.0,
    "L2 radius of SemiRandom": lambda: SemiRandom(epsilon=3.0).epsilon == 3.0,
    "L2 radius of SaltAndPepper": lambda: SaltAndPepper(epsilon="5/2").epsilon == 2.5,  # type: ignore[arg-type]
    "L2 radius of GaussianBlur": lambda: GaussianBlur(epsilon=3.0).epsilon == 3.0,
    "L2 radius of an audit": lambda: Setting(0.03, "5/2").eps_l2 == 2.5,  # type: ignore[arg-type]
    "p of LocSearchAdv": lambda: LocSearchAdv(p=10.0).p == 10.0,
    "r of LocSearchAdv": lambda: LocSearchAdv(r="3/2").r == 1.5,  # type: ignore[arg-type]
    "a step in units of eps": lambda: FGSMRS(step_size=1.25).step_size == 1.25,
    "a weight": lambda: Stability(alpha="5/2").alpha == 2.5,  # type: ignore[arg-type]
}


@pytest.mark.parametrize("allowed", FREE.values(), ids=FREE)
def test_what_moves_no_single_pixel_may_exceed_1(allowed: Callable[[], Any]) -> None:
    assert allowed()


def test_what_was_a_number_stays_what_it_was() -> None:
    for value in (0, 1, 0.5):
        assert FGSM(epsilon=value).epsilon is value


def test_messages_say_the_bounds() -> None:
    with pytest.raises(InputError, match=r"^r: got 3; want a number from 0 to 2, such as 0.03 or 8/255$"):
        number("r", 3, high=2)
    with pytest.raises(InputError, match=r"^eps: got 0; want a number > 0, such as 0.03 or 8/255$"):
        budget("eps", 0, above=True)


def test_every_attack_and_defence_with_a_budget_is_in_the_table_above() -> None:
    tried = " ".join([*BUDGETS, *FREE])
    made = [each for room in (attacks, defences) for each in vars(room).values() if is_dataclass(each)]
    kinds = {each for each in made if not inspect.isabstract(each)}
    bounded = {kind.__name__ for kind in kinds if {"epsilon", "eps", "sigma"} & {field.name for field in fields(kind)}}
    assert bounded >= {"FGSM", "Square", "Ensemble"}
    assert [name for name in bounded if name not in tried] == []


@pytest.mark.parametrize(
    ("radius", "text"),
    [
        *((8 / 255, "8/255"), (1 / 255, "1/255"), (128 / 255, "128/255"), (0.03, "0.03"), (0.5, "0.5"), (1.0, "1")),
        *((0.2, "0.2"), (0.0625, "0.0625"), (2.5 / 255, "0.009804"), (float(torch.tensor(8 / 255)), "8/255")),
    ],
)
def test_a_radius_is_read_as_a_short_decimal_or_as_levels_of_255(radius: float, text: str) -> None:
    assert radius_text(radius) == text
    assert Budget("linf", radius).title == f"L∞ {text}"


def test_a_difference_that_rounds_to_none_has_no_minus() -> None:
    assert [in_points(each) for each in (-0.0, -1e-9, 0.0, -0.0006, 0.25)] == [
        "+0.0",
        "+0.0",
        "+0.0",
        "-0.1",
        "+25.0",
    ]
