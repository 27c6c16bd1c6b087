"""Attacks of others: functions and objects of libraries, held to the box and to their budget, on whatever network."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from attack_toys import RowWise
from torch import Tensor, nn

from shconv.attacks import FGSM, Budget, Foreign, Standard, as_attack
from shconv.errors import InputError


class Rows(nn.Module):
    """The row-wise model as a module, with a parameter and a mode that somebody might change."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * RowWise()(x)


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    return x, RowWise()(x).argmax(1)


def step(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), labels), x)
    return (images + 0.1 * gradient.sign()).clamp(0, 1)


def test_a_function_is_an_attack() -> None:
    x, y = batch()
    result = as_attack(step).run(Rows(), x, y)
    assert torch.equal(result.images, step(Rows().eval(), x, y))
    assert result.queries.tolist() == [1] * 6
    assert as_attack(step).budget.title == "any change"


@pytest.mark.parametrize("spoilt", [3.0, -2.0, float("nan"), float("inf")])
def test_an_image_outside_the_box_does_not_count_and_the_others_do(spoilt: float) -> None:
    def wild(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        found = (images + 0.05).clamp(0, 1)
        found[1, 0, 2, 2] = spoilt
        return found

    x, y = batch()
    result: Any = as_attack(wild).run(Rows(), x, y)
    assert result.outside.tolist() == [False, True, False, False, False, False]
    assert torch.equal(result.images[1], x[1])
    assert torch.equal(result.images[2], (x[2] + 0.05).clamp(0, 1))


@pytest.mark.parametrize(("norm", "reached"), [("linf", 0.1), ("l2", 0.1 * 72**0.5)])
def test_a_stated_budget_is_held_to(norm: Any, reached: float) -> None:
    def shift(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        return images + 0.1

    x, y = 0.5 * batch()[0], batch()[1]
    inside: Any = Foreign(shift, epsilon=reached + 1e-5, norm=norm).run(Rows(), x, y)
    beyond: Any = Foreign(shift, epsilon=reached - 1e-3, norm=norm).run(Rows(), x, y)
    assert not inside.outside.any()
    assert beyond.outside.all()
    assert torch.equal(beyond.images, x)


def test_random_numbers_follow_the_seed_and_global_generators_are_left_alone() -> None:
    def noise(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        both = torch.rand_like(images) + torch.from_numpy(np.random.rand(*images.shape)).to(images)
        return 0.5 * both * random.random()

    x, y = batch()
    before, there, pythons = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    first, again, other = (as_attack(noise)(Rows(), x, y, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == there  # type: ignore[index]
    assert random.getstate() == pythons


def test_the_model_is_left_as_found() -> None:
    def rude(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        model.train()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return images

    network = Rows().train()
    as_attack(rude)(network, *batch())
    assert network.training
    assert network.scale.requires_grad


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "attack: got int; want an attack of shconv, foolbox"),
        (FGSM, "attack: got the class FGSM; want an attack object"),
        (lambda model, images, labels: images[:2], "returned shape (2, 2, 6, 6); want images of shape (6, 2, 6, 6)"),
        (lambda model, images, labels: None, "returned NoneType; want images of shape"),
    ],
)
def test_what_is_no_attack_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        as_attack(given)(Rows(), *batch())
    assert said in str(refused.value)


@pytest.mark.parametrize(("epsilon", "said"), [(8, "8/255, not 8"), ("-1", "want a number >= 0")])
def test_budgets_are_read_as_everywhere(epsilon: Any, said: str) -> None:
    assert Foreign(step, epsilon="8/255").budget == Budget("linf", 8 / 255)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=said):
        Foreign(step, epsilon=epsilon)


def test_torchattacks_states_its_budget_and_attacks_the_network_it_is_given() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    x, y = batch()
    made_for = Rows()
    attack = torchattacks.PGD(made_for, eps=0.1, alpha=0.05, steps=2, random_start=False)
    wrapped = as_attack(attack)
    assert wrapped.budget == Budget("linf", 0.1)
    assert as_attack(torchattacks.PGDL2(made_for, eps=1.5)).budget == Budget("l2", 1.5)
    other = Rows()
    other.scale.data.fill_(-1.0)  # gradients the other way round
    there = wrapped(other, x, y)
    attack.set_model(other)
    assert torch.equal(there, attack(x, y))
    attack.set_model(made_for)
    assert not torch.equal(there, wrapped(made_for, x, y))
    assert attack.model is made_for


def test_foolbox_gets_its_budget_at_the_call() -> None:
    foolbox = pytest.importorskip("foolbox")
    x, y = batch()
    pgd = foolbox.attacks.LinfPGD(steps=2, random_start=False)
    found = Foreign(pgd, epsilon=0.05)(Rows(), x, y)
    _, wanted, _ = pgd(foolbox.PyTorchModel(Rows().eval(), bounds=(0, 1), device="cpu"), x, y, epsilons=0.05)
    assert torch.equal(found, wanted)
    with pytest.raises(InputError, match="LinfProjectedGradientDescentAttack needs a budget"):
        as_attack(pgd)
    nearest = as_attack(foolbox.attacks.L2DeepFoolAttack(steps=5)).run(Rows(), x, y)  # without a budget: the nearest
    assert bool((nearest.distances["l2"] > 0).any())


def test_autoattack_is_ours() -> None:
    pyautoattack = pytest.importorskip("pyautoattack")
    given = pyautoattack.AutoAttack(Rows(), version="custom", attacks=["apgd-ce"], eps=0.03, norm="L2", seed=0)
    assert as_attack(given) == Standard(0.03, "l2", ("apgd-ce",))
    whole = pyautoattack.AutoAttack(Rows(), eps=0.03)
    assert as_attack(whole) == Standard(0.03, "linf", ("apgd-ce", "apgd-t", "fab-t", "square"))


def test_art_attacks_the_network_it_is_given() -> None:
    evasion = pytest.importorskip("art.attacks.evasion", reason="ART is not installed")
    classifier = pytest.importorskip("art.estimators.classification").PyTorchClassifier
    x, y = batch()
    first = classifier(Rows(), nn.CrossEntropyLoss(), (2, 6, 6), nb_classes=RowWise()(x).shape[1], clip_values=(0, 1))
    attack = evasion.FastGradientMethod(first, eps=0.1)
    assert as_attack(attack).budget == Budget("linf", 0.1)
    found = as_attack(attack)(Rows(), x, y)
    assert torch.allclose(found, torch.from_numpy(attack.generate(x.numpy(), y.numpy())))
    assert attack.estimator is first


BUDGET = 0.1


def by_global(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    return images + BUDGET


def moved(model: Any, images: Tensor, labels: Tensor, by: Any = 0.1) -> Tensor:
    return images + by


class Mover:
    def __init__(self, by: Any) -> None:
        self.by = (by, "up")

    def __call__(self, model: Any, images: Tensor, labels: Tensor) -> Tensor:
        return images + self.by[0]

    def method(self, model: Any, images: Tensor, labels: Tensor) -> Tensor:
        return images + self.by[0]


def enclosing(by: Any) -> Callable[..., Tensor]:
    return lambda model, images, labels: images + by


def with_default(by: Any) -> Callable[..., Tensor]:
    def attack(model: Any, images: Tensor, labels: Tensor, by: Any = by) -> Tensor:
        return images + by

    return attack


@pytest.mark.parametrize(
    "make",
    [
        lambda by: partial(moved, by=by),
        lambda by: partial(moved, by=torch.full((3, 1, 1), by)),
        lambda by: enclosing(np.float32(by)),
        enclosing,
        with_default,
        Mover,
        lambda by: Mover(by).method,
    ],
    ids=["partial", "array", "numpy", "enclosing", "default", "object", "method"],
)
def test_one_function_with_other_numbers_is_another_attack(make: Any) -> None:
    """A run folder would return the rows of the first for the second."""
    assert repr(as_attack(make(0.1))) == repr(as_attack(make(0.1)))
    assert repr(as_attack(make(0.1))) != repr(as_attack(make(0.2)))


def test_a_global_number_is_a_part_of_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    before = repr(as_attack(by_global))
    monkeypatch.setitem(by_global.__globals__, "BUDGET", 0.2)
    assert repr(as_attack(by_global)) != before


def test_what_a_function_counts_makes_no_other_attack_of_it() -> None:
    calls, seen = 0, list[int]()

    def counting(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        seen.append(len(images))
        return images

    before = repr(as_attack(counting))
    as_attack(counting)(Rows(), *batch())
    assert calls == len(seen) == 1
    assert repr(as_attack(counting)) == before
