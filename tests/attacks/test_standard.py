"""AutoAttack's standard set: right for few classes, as strong as the original, silent, and independent of the batch."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from attack_toys import EPSILON, Linear, RowWise, Toy, accuracy, inner_images
from torch import Tensor

from shconv.attacks import PGD, Standard
from shconv.attacks.budget import Norm
from shconv.attacks.standard import QUERIES, STEPS

pytest.importorskip("pyautoattack")
GRADIENTS = ("apgd-ce", "apgd-t", "fab-t")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not hang on AutoAttack's own counts."""
    monkeypatch.setattr("shconv.attacks.standard.STEPS", 25)
    monkeypatch.setattr("shconv.attacks.standard.QUERIES", 200)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_any_number_of_classes_from_two_runs_and_finds_what_pgd_finds(
    classes: int, toy_of: Callable[[int], Toy]
) -> None:
    network, x, y = toy_of(classes)[0], *(each[:20] for each in toy_of(classes)[1:])
    attack = Standard(0.1, attacks=("apgd-ce", "apgd-dlr", "apgd-t", "fab-t"))
    found = accuracy(network, attack(network, x, y), y)
    ours = accuracy(network, PGD(0.1, steps=25, targets=classes - 1, loss="margin")(network, x, y), y)
    assert found < accuracy(network, x, y)
    assert abs(found - ours) <= 1 / len(x)


def test_what_few_classes_leave_out_is_said() -> None:
    attack = Standard(EPSILON)
    assert attack.runs(10) == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert attack.notes(10) == ()
    assert attack.runs(3) == ("apgd-ce", "fab-t", "square")
    assert attack.notes(3) == (
        "AutoAttack's apgd-t is left out: its loss needs 4 classes, there are 3.",
        "AutoAttack's fab-t aims at all 2 wrong classes instead of 9.",
    )
    assert [note.split(" wrong")[0] for note in attack.notes(6)] == [
        "AutoAttack's apgd-t aims at all 5",
        "AutoAttack's fab-t aims at all 5",
    ]


@pytest.mark.parametrize(
    ("norm", "epsilon", "attacks", "steps"),
    [
        ("linf", EPSILON, ("apgd-ce", "fab-t"), 20),
        ("l2", 0.5, ("apgd-ce", "apgd-t"), 20),
        pytest.param("linf", EPSILON, GRADIENTS, STEPS, marks=pytest.mark.slow),
        pytest.param("l2", 0.5, GRADIENTS, STEPS, marks=pytest.mark.slow),
    ],
)
def test_it_leaves_as_many_images_as_the_original(
    robust_toy: Toy, norm: Norm, epsilon: float, attacks: tuple[str, ...], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyautoattack import AutoAttack

    assert (STEPS, QUERIES) == (100, 5000)  # AutoAttack's standard version

    network, x, y = robust_toy[0], *(each[:8] for each in robust_toy[1:])
    with torch.random.fork_rng():
        original = AutoAttack(
            network,
            norm={"linf": "Linf", "l2": "L2"}[norm],
            eps=epsilon,
            seed=0,
            version="custom",
            attacks=[*attacks],
        )
        original.apgd.n_restarts = original.fab.n_restarts = 1
        original.apgd.n_iter = original.apgd_targeted.n_iter = original.fab.n_iter = steps
        theirs, _ = original.run_standard_evaluation(x, y)
    monkeypatch.setattr("shconv.attacks.standard.STEPS", steps)
    ours = Standard(epsilon, norm, attacks=attacks)(network, x, y)
    assert abs(accuracy(network, ours, y) - accuracy(network, theirs, y)) <= 1 / len(x)


@pytest.mark.parametrize(
    "attack",
    [Standard(0.008), pytest.param(Standard(0.05, "l2", attacks=("apgd-ce", "square")), marks=pytest.mark.slow)],
    ids=["linf", "l2"],
)
def test_an_image_gets_the_same_result_in_any_batch_from_all_attacks(attack: Standard) -> None:
    model = RowWise(classes=4)
    x = inner_images(4, (2, 6, 6)).float()
    y = model(x).argmax(1)
    whole = attack.run(model, x, y)
    for part in ([1], [3, 0]):
        other = attack.run(model, x[part], y[part])
        assert torch.equal(other.images, whole.images[part])
        assert torch.equal(other.queries, whole.queries[part])
    broken = model(whole.images).argmax(1) != y
    assert bool(broken.any())
    assert not bool(broken.all())  # so that every attack has run


def test_random_numbers_of_the_network_stay_its_own() -> None:
    seen: list[Tensor] = []
    model = Linear(4)

    def noisy(z: Tensor) -> Tensor:
        noise = torch.rand(z.shape)
        seen.append(noise)
        return model(z + 0 * noise.to(z))

    x = inner_images(3)
    Standard(0.01, attacks=("apgd-ce",))(noisy, x, model(x).argmax(1))
    assert all(not torch.equal(noise[0], noise[1]) for noise in seen if len(noise) > 1)


def test_it_says_nothing_and_leaves_torchs_generator_and_the_logger_alone(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model, x = Linear(4), inner_images(3)
    y = model(x).argmax(1)
    state, logger = torch.get_rng_state(), logging.getLogger("auto-attack")
    disabled = logger.disabled
    with caplog.at_level(logging.DEBUG):
        Standard(0.01, attacks=("apgd-ce", "apgd-t", "fab-t"))(
            lambda z: model(z).round(), x, y
        )  # zero gradients: a warning
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert torch.equal(torch.get_rng_state(), state)
    assert logger.disabled == disabled


@pytest.mark.parametrize("flat", [lambda z: z.detach(), lambda z: (10 * z).round() / 10])
def test_without_a_gradient_nothing_but_finite_images_comes_back(flat: Callable[[Tensor], Tensor]) -> None:
    model, x = Linear(4), inner_images(3)
    y = model(flat(x)).argmax(1)
    found = Standard(0.05, attacks=GRADIENTS)(lambda z: model(flat(z)), x, y)
    assert bool(found.isfinite().all())


def test_only_images_still_standing_are_attacked_further() -> None:
    model, x = Linear(4), inner_images(6)
    y = model(x).argmax(1)
    first = Standard(0.3, attacks=("apgd-ce",))
    result = replace(first, attacks=("apgd-ce", "apgd-t")).run(model, x, y)
    broken = model(first(model, x, y)).argmax(1) != y
    assert bool(broken.all())
    assert bool((result.queries == first.run(model, x, y).queries).all())
