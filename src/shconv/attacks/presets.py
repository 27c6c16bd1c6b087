"""The attacks by name with their published settings, and LocSearchAdv's settings for smaller images."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, TypeVar

from shconv.arguments import checked
from shconv.attacks.base import Attack
from shconv.attacks.blur import GaussianBlur
from shconv.attacks.checks import check_count
from shconv.attacks.deepfool import DeepFool
from shconv.attacks.gradient import FGSM, IFGSM, RandFGSM
from shconv.attacks.hard_label import HardLabel
from shconv.attacks.jsma import JSMA
from shconv.attacks.lbfgs import LBFGS
from shconv.attacks.locsearch import LocSearchAdv
from shconv.attacks.noise import GaussianNoise
from shconv.attacks.pgd import PGD
from shconv.attacks.salt_and_pepper import SaltAndPepper
from shconv.attacks.semi_random import SemiRandom
from shconv.attacks.signs import RandomSigns
from shconv.attacks.spelling import our_names
from shconv.attacks.square import Square
from shconv.attacks.standard import Standard
from shconv.attacks.substitute import Substitute
from shconv.attacks.undetected import UndetectedPGD
from shconv.errors import InputError, near

A = TypeVar("A", bound=Attack)

PAPER: Mapping[str, Attack] = MappingProxyType(
    {
        "gaussian": GaussianNoise(sigma=0.1),  # Table 1 also has sigma 0.2 and 0.4
        "fgsm": FGSM(epsilon=0.02),
        "fgsm_heavy": FGSM(epsilon=0.1),
        "ifgsm": IFGSM(epsilon=0.02, step_size=0.001, steps=5),
        "rand_fgsm": RandFGSM(epsilon=0.03125, alpha=0.03125),
        "locsearch": LocSearchAdv(pixels_per_step=10, steps=150),
    }
)
"""The paper's attacks, Tables 1 to 3, under the names that result rows use."""

VARIANTS: Mapping[str, Attack] = MappingProxyType(
    {
        "ifgsm_kurakin": IFGSM.kurakin(epsilon=0.02),
        "ifgsm_eps_over_k": IFGSM.epsilon_over_steps(epsilon=0.02, steps=5),
        "rand_fgsm_8": RandFGSM.total(8 / 256),
        "locsearch_cyclic": LocSearchAdv(probe="cyclic"),
        "locsearch_random": LocSearchAdv(order="random"),
        "narodytska2016": LocSearchAdv(pixels_per_step=5, stop_on_success=True),
        "foolbox-2.0": LocSearchAdv(
            pixels_per_step=5, stop_on_success=True, p=10.0, adapt_p=False, max_probes=128, exclude_rounds=0
        ),
    }
)
"""Other readings, controls and other people's settings."""

RIVALS: Mapping[str, Attack] = MappingProxyType(
    {
        "deepfool": DeepFool(),
        "deepfool_linf": DeepFool("linf"),
        "lbfgs": LBFGS(),
        "lbfgs_likeliest": LBFGS(aim="likeliest"),
        "jsma": JSMA(),
        "jsma_untargeted": JSMA("untargeted", "likeliest", targets=3),
        "salt_and_pepper": SaltAndPepper(),
        "blur": GaussianBlur(),
        "semi_random": SemiRandom(share=0.1),
        "substitute_fgsm": Substitute(by="fgsm"),
        "substitute_pgd": Substitute(by="pgd"),
    }
)
"""The attacks of other papers that the paper names beside its own."""

EPSILON = 8 / 255  # L-infinity, as is usual for small images
EPSILON_L2 = 0.5

STRONG: Mapping[str, Attack] = MappingProxyType(
    {
        "fgsm_untargeted": FGSM(epsilon=EPSILON, objective="untargeted"),
        "pgd": PGD(epsilon=EPSILON),
        "pgd_l2": PGD(epsilon=EPSILON_L2, norm="l2"),
        "pgd_dlr": PGD(epsilon=EPSILON, loss="dlr"),
        "pgd_targets": PGD(epsilon=EPSILON, loss="margin", targets=9),
        "pgd_madry": PGD(epsilon=EPSILON, steps=20, step_size=2 / 255),
        "undetected_pgd": UndetectedPGD(epsilon=EPSILON, loss="margin", steps=100),
        "square": Square(epsilon=EPSILON),
        "square_l2": Square(epsilon=EPSILON_L2, norm="l2"),
        "random_signs": RandomSigns(epsilon=EPSILON, draws=1000),
        "boundary": HardLabel("boundary", epsilon=EPSILON_L2, norm="l2"),
        "hop_skip_jump": HardLabel("hop_skip_jump", epsilon=EPSILON),
        "autoattack": Standard(epsilon=EPSILON),
        "autoattack_l2": Standard(epsilon=EPSILON_L2, norm="l2"),
    }
)
"""Stronger attacks, at epsilon 8/255 (L-infinity) or 0.5 (L2): change it with eps=."""

PAPER_SIDE = 256  # pixels a side of the paper's test images
PIXEL_SHARE = 0.023  # of an image's pixels, perturbed by the paper's 150 rounds of 10


@checked
def list_attacks(pattern: str = "*") -> list[str]:
    """The names that `create_attack` knows and that fit the pattern ("pgd*"): the paper's first, then the others."""
    return [name for name in (*PAPER, *VARIANTS, *RIVALS, *STRONG) if fnmatchcase(name, pattern)]


@checked
def create_attack(name: str, **changes: Any) -> Attack:
    """The attack of that name, with hyper-parameters changed: create_attack("pgd", eps="8/255", steps=50).

    eps and alpha are other names of epsilon and step_size.

    Raises InputError for a name or hyper-parameter that does not exist, and for a value that the attack refuses.
    """
    known = {**PAPER, **VARIANTS, **RIVALS, **STRONG}
    if name not in known:
        raise InputError(f"attack: got {name!r}; {near(name, list(known))}")
    return _changed(known[name], changes)


def locsearch_for(height: int, width: int, **changes: Any) -> LocSearchAdv:
    """LocSearchAdv at the paper's share of the pixels, 2.3 %, for images of height x width pixels.

    Below 256 pixels a side (for other shapes s is the geometric mean) t = max(1, round(10 (s/256)^2)) pixels in each of
    ceil(0.023 s^2 / t) rounds: 24 rounds of 1 at 32 x 32. From 256 on, the paper's 150 rounds of 10. The scaling is
    ours. `changes` are hyper-parameters to set otherwise; the number of rounds follows a changed pixels_per_step.
    """
    check_count("height", height, 1)
    check_count("width", width, 1)
    area = height * width  # s^2
    if area < PAPER_SIDE**2:
        t = changes.get("pixels_per_step", max(1, round(10 * area / PAPER_SIDE**2)))
        check_count("pixels_per_step", t, 1)
        changes = {"pixels_per_step": t, "steps": math.ceil(PIXEL_SHARE * area / t), **changes}
    return _changed(LocSearchAdv(), changes)


def locsearch_columns(steps: int) -> tuple[int, ...]:
    """The steps that a table of LocSearchAdv reports, the fifths of `steps`: 30, 60, 90, 120, 150 for the paper's 150.

    Rounded to whole steps; fewer than five where steps < 5.
    """
    check_count("steps", steps, 1)
    return tuple(sorted({max(1, round(steps * fifth / 5)) for fifth in range(1, 6)}))


def _changed(attack: A, changes: dict[str, Any]) -> A:
    known = [field.name for field in fields(attack)]
    changes = our_names(type(attack), changes)
    for name in changes:
        if name not in known:
            raise InputError(f"{type(attack).__name__}: got hyper-parameter {name!r}; {near(name, known)}")
    return replace(attack, **changes)
