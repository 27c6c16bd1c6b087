"""Presets: the paper's numbers, the scaled search, names that do not exist."""

from collections.abc import Callable

import pytest

from shconv.attacks import (
    FGSM,
    IFGSM,
    PAPER,
    PGD,
    RIVALS,
    STRONG,
    VARIANTS,
    Foreign,
    GaussianNoise,
    HardLabel,
    LocSearchAdv,
    RandFGSM,
    RandomSigns,
    Square,
    Standard,
    create_attack,
    list_attacks,
    locsearch_columns,
    locsearch_for,
)
from shconv.errors import InputError


def test_the_papers_attacks_have_the_papers_numbers() -> None:
    assert dict(PAPER) == {
        "gaussian": GaussianNoise(0.1, 0.1),
        "fgsm": FGSM(0.02),
        "fgsm_heavy": FGSM(0.1),
        "ifgsm": IFGSM(0.02, 0.001, 5),
        "rand_fgsm": RandFGSM(8 / 256, 8 / 256),
        "locsearch": LocSearchAdv(
            pixels_per_step=10, steps=150, half_width=5, r=1.5, max_probes=128, exclude_rounds=30, stop_on_success=False
        ),
    }
    assert all(getattr(attack, "objective", "least_likely") == "least_likely" for attack in PAPER.values())


def test_variants_differ_from_the_papers_attack_as_named() -> None:
    assert VARIANTS["rand_fgsm_8"] == RandFGSM(4 / 256, 4 / 256)
    assert VARIANTS["locsearch_cyclic"] == LocSearchAdv(probe="cyclic")
    assert VARIANTS["locsearch_random"] == LocSearchAdv(order="random")
    assert VARIANTS["narodytska2016"] == LocSearchAdv(pixels_per_step=5, stop_on_success=True)
    assert VARIANTS["foolbox-2.0"] == LocSearchAdv(
        pixels_per_step=5, stop_on_success=True, p=10.0, adapt_p=False, exclude_rounds=0
    )
    assert VARIANTS["ifgsm_kurakin"] == IFGSM(0.02, 1 / 255, 6)
    assert VARIANTS["ifgsm_eps_over_k"] == IFGSM(0.02, 0.004, 5)


def test_every_listed_attack_can_be_created_and_changed() -> None:
    names = list_attacks()
    known = {**PAPER, **VARIANTS, **RIVALS, **STRONG}
    assert names == list_attacks("*") == list(known)
    assert len(known) == len(PAPER) + len(VARIANTS) + len(RIVALS) + len(STRONG)
    assert all(create_attack(name) == known[name] for name in names)
    assert {type(attack) for attack in known.values()} >= {PGD, Square, Standard, HardLabel, RandomSigns}
    assert list_attacks("pgd_l*") == ["pgd_l2"]
    assert list_attacks("nothing*") == []
    assert create_attack("gaussian", sigma=0.4) == GaussianNoise(0.4)
    assert create_attack("fgsm", epsilon=0.1, objective="untargeted") == FGSM(0.1, objective="untargeted")


@pytest.mark.parametrize(("name", "near"), [("fsgm", "fgsm"), ("locsearch_cycle", "locsearch_cyclic")])
def test_unknown_attack_offers_near_names(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"{name}.*did you mean.*{near}"):
        create_attack(name)
    with pytest.raises(InputError, match=r"choose from gaussian, fgsm,"):
        create_attack("zzzz")


def test_unknown_hyper_parameter_offers_near_names() -> None:
    with pytest.raises(InputError, match="FGSM: got hyper-parameter 'epsilom'; did you mean epsilon"):
        create_attack("fgsm", epsilom=0.1)
    with pytest.raises(InputError, match="max_probes"):
        locsearch_for(32, 32, max_probe=10)


@pytest.mark.parametrize(
    ("height", "width", "t", "steps"),
    [
        (256, 256, 10, 150),
        (299, 299, 10, 150),
        (128, 512, 10, 150),
        (32, 32, 1, 24),
        (64, 64, 1, 95),
        (224, 224, 8, 145),
        (16, 64, 1, 24),
        (1, 1, 1, 1),
    ],
)
def test_search_perturbs_the_papers_share_of_the_pixels(height: int, width: int, t: int, steps: int) -> None:
    attack = locsearch_for(height, width)
    assert (attack.pixels_per_step, attack.steps) == (t, steps)


def test_scaled_search_takes_changes_and_its_rounds_follow_t() -> None:
    assert locsearch_for(32, 32, probe="cyclic") == LocSearchAdv(1, 24, probe="cyclic")
    assert locsearch_for(32, 32, pixels_per_step=5).steps == 5
    assert locsearch_for(32, 32, pixels_per_step=5, steps=30) == LocSearchAdv(5, 30)
    with pytest.raises(InputError, match="width"):
        locsearch_for(32, 0)


def test_columns_are_fifths_of_the_rounds() -> None:
    assert locsearch_columns(150) == (30, 60, 90, 120, 150)
    assert locsearch_columns(24) == (5, 10, 14, 19, 24)
    assert locsearch_columns(2) == (1, 2)


def test_eps_and_alpha_are_epsilon_and_step_size() -> None:
    assert create_attack("pgd", eps="8/255", alpha="2/255", steps=50) == PGD(8 / 255, step_size=2 / 255, steps=50)
    assert PGD(eps="8/255", alpha=0.01) == PGD(epsilon=8 / 255, step_size=0.01)
    for attack in (FGSM, IFGSM, RandFGSM, Square, RandomSigns, Standard):
        assert attack(eps=0.02) == attack(epsilon=0.02)
    assert HardLabel("boundary", eps=0.1) == HardLabel("boundary", 0.1)
    assert GaussianNoise(0.1, eps=0.2).epsilon == 0.2
    assert Foreign(lambda model, images, labels: images, eps=0.1).epsilon == 0.1
    assert RandFGSM(alpha=0.01).alpha == 0.01


@pytest.mark.parametrize(
    "made",
    [
        lambda: PGD(0.1, eps=0.1),
        lambda: PGD(epsilon=0.1, eps=0.1),
        lambda: create_attack("fgsm", eps=0.1, epsilon=0.1),
        lambda: PGD(0.1, alpha=0.1, step_size=0.1),
    ],
)
def test_one_hyper_parameter_under_two_names_is_refused(made: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="which are the same; want one of them"):
        made()
