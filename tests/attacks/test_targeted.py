"""Attacks told which classes to look for: closed forms on linear networks, what is kept, and what is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from shconv.attacks import (
    FGSM,
    IFGSM,
    PGD,
    Attack,
    GaussianNoise,
    HardLabel,
    LocSearchAdv,
    RandFGSM,
    RandomSigns,
    Square,
    Standard,
)
from shconv.errors import InputError

N, K = 6, 4
EPS = 0.1


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, K)).double()


def inputs(model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Images away from the ends of the box, the classes they are taken for, and other ones."""
    torch.manual_seed(1)
    x = 0.3 + 0.4 * torch.rand(N, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(1)
    return x, y, (y + torch.arange(N) % (K - 1) + 1) % K


def weights(model: nn.Module) -> Tensor:
    layer = next(part for part in model.modules() if isinstance(part, nn.Linear))
    return layer.weight.detach().view(K, 3, 4, 4)


@pytest.mark.parametrize("objective", ["least_likely", "untargeted"])
def test_fgsm_steps_up_the_log_odds_of_its_target(objective: str) -> None:
    model = linear()
    x, y, t = inputs(model)
    w, logits = weights(model), model(x).detach()
    others = logits.scatter(1, t[:, None], -torch.inf).softmax(1)  # of all classes but the target
    slope = w[t] - torch.einsum("nk,kchw->nchw", others, w)
    wanted = x + EPS * slope.sign()
    found = FGSM(EPS, objective=objective)(model, x, y, targeted=t)  # type: ignore[arg-type]
    torch.testing.assert_close(found, wanted)
    again = IFGSM(EPS, EPS, 1)(model, x, y, targeted=t)
    torch.testing.assert_close(again, wanted)


@pytest.mark.parametrize("adaptive", [True, False])
def test_pgd_finds_the_corner_that_is_nearest_to_its_target(adaptive: bool) -> None:
    """Of two classes the others are far below: the best image within EPS is x + EPS sign(w_t - w_y)."""
    model = linear()
    x, y, t = inputs(model)
    y, t = torch.zeros_like(y), torch.ones_like(t)
    next(part for part in model.modules() if isinstance(part, nn.Linear)).bias.data[2:] = -100
    w = weights(model)
    attack = PGD(EPS, loss="margin", steps=20, step_size=None if adaptive else EPS)
    result = attack.run_towards(model, x, y, t)
    torch.testing.assert_close(result.images, x + EPS * (w[t] - w[y]).sign(), rtol=0, atol=1e-9)
    assert result.target is not None
    assert result.target.tolist() == t.tolist()


@pytest.mark.parametrize(
    "attack",
    [PGD(0.3), PGD(2.0, norm="l2"), Square(0.3, queries=300), RandomSigns(0.3, draws=200), RandFGSM(0.2, 0.1)],
)
def test_the_target_is_reached_where_another_class_would_not_count(attack: Attack) -> None:
    model = linear()
    x, y, t = inputs(model)
    found = attack(model, x, y, targeted=t)
    odds = [model(images).detach().log_softmax(1).gather(1, t[:, None]) for images in (x, found)]
    assert bool((odds[1] > odds[0]).all())
    assert bool(attack.budget.holds(found, x).all())
    if isinstance(attack, PGD):
        assert model(found).argmax(1).tolist() == t.tolist()


def test_without_targets_nothing_changes() -> None:
    model = linear()
    x, y, _ = inputs(model)
    for attack in (FGSM(EPS), PGD(EPS, steps=3), Square(EPS, queries=20)):
        assert torch.equal(attack(model, x, y), attack.run(model, x, y).images)


@pytest.mark.parametrize(
    "attack", [GaussianNoise(0.1), Standard(EPS), HardLabel("boundary", EPS), LocSearchAdv(steps=1)]
)
def test_an_attack_that_cannot_aim_says_which_can(attack: Attack) -> None:
    model = linear()
    x, y, t = inputs(model)
    with pytest.raises(InputError, match="cannot aim at given classes; FGSM, IFGSM, RandFGSM, PGD"):
        attack(model, x, y, targeted=t)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, y: t[:2], "want an int64 tensor of shape"),
        (lambda t, y: t.double(), "want an int64 tensor of shape"),
        (lambda t, y: t - 10, "want classes numbered from 0"),
        (lambda t, y: y, "image 0 has the label"),
        (lambda t, y: t + K, "want classes below"),
    ],
)
@pytest.mark.parametrize("attack", [FGSM(EPS), PGD(EPS, steps=2)])
def test_targets_that_are_no_classes_are_refused(
    attack: Attack, change: Callable[[Tensor, Tensor], Tensor], said: str
) -> None:
    model = linear()
    x, y, t = inputs(model)
    with pytest.raises(InputError, match=said):
        attack(model, x, y, targeted=change(t, y))
