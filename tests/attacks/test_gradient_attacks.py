"""FGSM, I-FGSM and RAND+FGSM: closed forms on linear networks, the printed equations, other libraries, invariants."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shconv.attacks import FGSM, IFGSM, RandFGSM
from shconv.attacks.base import BatchAttack
from shconv.attacks.objective import log_odds
from shconv.errors import InputError

SHAPE = (6, 2, 4, 5)


class Linear:
    """K classes, float64, counting its forward passes."""

    def __init__(self, classes: int, seed: int = 0, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weight = scale * torch.randn(classes, math.prod(SHAPE[1:]), generator=generator, dtype=torch.float64)
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.flatten(1) @ self.weight.T.to(x)


def inner_images(seed: int = 1, margin: float = 0.2) -> Tensor:
    """Images far enough from 0 and 1 that nothing is clipped."""
    x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return margin + (1 - 2 * margin) * x


def labels(classes: int) -> Tensor:
    return torch.arange(SHAPE[0]) % classes


def towards_other(model: Linear, y: Tensor) -> Tensor:
    """Two classes: the sign, pixel by pixel, that raises the other class."""
    return (model.weight[1 - y] - model.weight[y]).sign().view(SHAPE)


def test_fgsm_untargeted_moves_every_pixel_by_epsilon_towards_the_other_of_two_classes() -> None:
    model, x, y = Linear(2), inner_images(), labels(2)
    wanted = x + 0.03 * towards_other(model, y)
    torch.testing.assert_close(FGSM(0.03, objective="untargeted")(model, x, y), wanted, rtol=0, atol=1e-15)


def test_fgsm_least_likely_moves_every_pixel_by_epsilon_towards_the_less_likely_of_two_classes() -> None:
    model, x = Linear(2), inner_images()
    model.weight[:, ::2] -= (
        model(x).mean(0)[:, None] / x.flatten(1)[:, ::2].sum(1).mean()
    )  # either may be the less likely
    y_t = model(x).argmin(1)
    result = FGSM(0.03).run(model, x, labels(2))
    assert result.target is not None
    assert torch.equal(result.target, y_t)
    assert set(y_t.tolist()) == {0, 1}
    torch.testing.assert_close(result.images, x + 0.03 * towards_other(model, 1 - y_t), rtol=0, atol=1e-15)


@pytest.mark.parametrize("objective", ["least_likely", "untargeted"])
def test_fgsm_steps_along_the_signed_cross_entropy_gradient(objective: str) -> None:
    model, x, y = Linear(5, scale=0.3), inner_images().requires_grad_(), labels(5)
    y_t = model(x).argmin(1)
    towards = objective == "least_likely"
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y_t if towards else y, reduction="sum"), x)
    wanted = x.detach() + (-0.02 if towards else 0.02) * gradient.sign()
    torch.testing.assert_close(FGSM(objective=objective)(model, x, y), wanted, rtol=0, atol=1e-15)  # type: ignore[arg-type]


def test_literal_sign_adds_the_gradients_as_printed() -> None:
    model, x, y = Linear(5, scale=0.3), inner_images().requires_grad_(), labels(5)
    logits = model(x)
    (of_ce,) = torch.autograd.grad(F.cross_entropy(logits, logits.argmin(1), reduction="sum"), x, retain_graph=True)
    (of_p_y,) = torch.autograd.grad(logits.softmax(1).gather(1, y[:, None]).sum(), x)
    for objective, gradient in (("least_likely", of_ce), ("untargeted", of_p_y)):
        literal = FGSM(sign="literal", objective=objective)(model, x, y)  # type: ignore[arg-type]
        torch.testing.assert_close(literal, x.detach() + 0.02 * gradient.sign(), rtol=0, atol=1e-15)


def test_a_saturated_softmax_does_not_hide_the_gradient() -> None:
    model, x = Linear(2, scale=100.0), inner_images().float()
    y = model(x).argmax(1)
    assert (model(x).softmax(1).gather(1, y[:, None]) == 1).all()
    wanted = x + 0.02 * towards_other(model, y).float()
    torch.testing.assert_close(FGSM(objective="untargeted")(model, x, y), wanted, rtol=0, atol=1e-7)


def test_log_odds_is_the_logit_of_the_probability() -> None:
    logits, y = torch.randn(6, 4, dtype=torch.float64), labels(4)
    p = logits.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(log_odds(logits, y), torch.logit(p))


@pytest.mark.parametrize(("steps", "size", "reached"), [(5, 0.001, 0.005), (7, 0.004, 0.02)])
def test_ifgsm_walks_steps_times_step_size_but_never_beyond_epsilon(steps: int, size: float, reached: float) -> None:
    model, x, y = Linear(2), inner_images(), labels(2)
    result = IFGSM(0.02, size, steps, objective="untargeted").run(model, x, y)
    torch.testing.assert_close(result.images, x + reached * towards_other(model, y), rtol=0, atol=1e-15)
    torch.testing.assert_close(result.distances["linf"], torch.full((6,), reached, dtype=torch.float64))


def test_ifgsm_starts_each_step_from_the_last_image() -> None:
    def bowl(x: Tensor) -> Tensor:  # p_1 grows with the distance from 0.5: two steps differ from one
        return torch.stack([0 * x.sum((1, 2, 3)), (x - 0.5).square().sum((1, 2, 3))], 1)

    x = torch.full(SHAPE, 0.512, dtype=torch.float64)
    y = torch.ones(6, dtype=torch.int64)
    walked = IFGSM(0.05, 0.01, 2, objective="untargeted")(bowl, x, y)
    torch.testing.assert_close(walked, x - 0.02, rtol=0, atol=1e-15)  # 0.502, then across the bottom
    back = IFGSM(0.05, 0.01, 3, objective="untargeted")(bowl, x, y)
    torch.testing.assert_close(back, x - 0.01, rtol=0, atol=1e-15)


def test_ifgsm_keeps_the_clean_images_target() -> None:
    model, x = Linear(3), inner_images()
    strong = IFGSM(0.5, 0.1, 5).run(model, x, labels(3))
    assert strong.target is not None
    assert torch.equal(strong.target, model(x).argmin(1))
    assert not torch.equal(strong.target, model(strong.images).argmin(1))


def test_ifgsm_of_one_full_step_is_fgsm() -> None:
    model, x, y = Linear(4), inner_images(margin=0), labels(4)
    torch.testing.assert_close(IFGSM(0.1, 0.1, 1)(model, x, y), FGSM(0.1)(model, x, y), rtol=0, atol=1e-15)


def test_rand_fgsm_is_a_random_sign_step_then_a_gradient_step() -> None:
    model, x, y = Linear(2), inner_images(), labels(2)
    moved = RandFGSM(0.03, 0.01, objective="untargeted")(model, x, y) - x - 0.03 * towards_other(model, y)
    torch.testing.assert_close(moved.abs(), torch.full(SHAPE, 0.01, dtype=torch.float64), rtol=0, atol=1e-15)
    ups = int((moved > 0).sum())
    assert abs(ups - moved.numel() / 2) < 4 * math.sqrt(moved.numel() / 4)


def test_rand_fgsm_takes_its_gradient_at_the_random_image_and_its_target_at_the_clean_one() -> None:
    seen: list[Tensor] = []
    model = Linear(3)

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return model(x)

    x = inner_images()
    result = RandFGSM().run(watched, x, labels(3))
    assert len(seen) == 2
    assert torch.equal(seen[0], x)
    torch.testing.assert_close((seen[1] - x).abs(), torch.full(SHAPE, 0.03125, dtype=torch.float64))
    assert result.target is not None
    assert torch.equal(result.target, model(x).argmin(1))


@pytest.mark.parametrize("attack", [FGSM(0.3), IFGSM(0.3, 0.2, 3), RandFGSM(0.3, 0.3)])
def test_the_model_is_only_shown_images_in_the_box(attack: BatchAttack) -> None:
    def watched(x: Tensor) -> Tensor:
        assert x.min() >= 0
        assert x.max() <= 1
        return Linear(3)(x)

    attack(watched, inner_images(margin=0), labels(3))


@pytest.mark.parametrize(
    ("attack", "passes"),
    [
        (FGSM(), 1),
        (FGSM(objective="untargeted"), 1),
        (IFGSM(), 5),
        (IFGSM(steps=3, objective="untargeted"), 3),
        (RandFGSM(), 2),
        (RandFGSM(objective="untargeted"), 1),
    ],
)
def test_queries_are_the_forward_passes_made(attack: BatchAttack, passes: int) -> None:
    model = Linear(3)
    result = attack.run(model, inner_images(), labels(3))
    assert model.calls == passes
    assert result.queries.tolist() == [passes] * 6


@pytest.mark.parametrize("attack", [FGSM(0), IFGSM(0), RandFGSM(0, 0)])
def test_zero_epsilon_changes_nothing(attack: BatchAttack) -> None:
    x = inner_images(margin=0)
    assert torch.equal(attack(Linear(3), x, labels(3)), x)


@pytest.mark.parametrize("attack", [FGSM(0.1), IFGSM(0.1, 0.1)])
def test_a_pixel_without_gradient_stays(attack: BatchAttack) -> None:
    x = inner_images()
    moved = attack(lambda x: Linear(3)(x * (torch.arange(5) != 2)), x, labels(3)) != x
    assert not moved[..., 2].any()
    assert moved[..., :2].all()


@pytest.mark.parametrize("model", [lambda x: torch.eye(6, dtype=x.dtype), lambda x: Linear(6)(x.detach())])
def test_images_without_a_path_to_the_logits_stay(model: object) -> None:
    x = inner_images()
    assert torch.equal(FGSM(0.1)(model, x, labels(6)), x)  # type: ignore[arg-type]


def test_a_gradient_of_nan_is_refused() -> None:
    def broken(x: Tensor) -> Tensor:
        return Linear(3)(x) + (0 * x).sqrt().sum((1, 2, 3), keepdim=True).flatten(1)

    with pytest.raises(InputError, match="gradient"):
        FGSM()(broken, inner_images(), labels(3))


@given(
    seed=st.integers(0, 10**6),
    epsilon=st.floats(0, 1),
    size=st.floats(0, 0.5),
    objective=st.sampled_from(["least_likely", "untargeted"]),
    sign=st.sampled_from(["consistent", "literal"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=40, deadline=None)
def test_attacked_images_stay_in_the_box_and_in_the_budget(seed, epsilon, size, objective, sign, dtype) -> None:  # type: ignore[no-untyped-def]
    model, x, y = Linear(4, seed), inner_images(seed, margin=0).to(dtype), labels(4)
    options = {"objective": objective, "sign": sign}
    for attack, budget in (
        (FGSM(epsilon, **options), epsilon),
        (IFGSM(epsilon, size, 3, **options), min(epsilon, 3 * size)),
        (RandFGSM(epsilon, size, **options), epsilon + size),
    ):
        result = attack.run(model, x, y, seed=seed)
        assert result.images.min() >= 0
        assert result.images.max() <= 1
        assert (result.distances["linf"] <= budget + 4 * torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("attack", [FGSM(0.3, clip=False), IFGSM(0.3, 0.1, clip=False), RandFGSM(0.3, clip=False)])
def test_without_clipping_every_pixel_moves_the_whole_way(attack: BatchAttack) -> None:
    model, x, y = Linear(2), inner_images(margin=0), labels(2)
    images = attack(model, x, y)
    assert images.min() < 0
    assert images.max() > 1
    if not isinstance(attack, RandFGSM):
        torch.testing.assert_close((images - x).abs(), torch.full(SHAPE, 0.3, dtype=torch.float64))


@pytest.mark.parametrize(("levels", "steps"), [(8, 10), (16, 20), (4, 5), (2, 2), (5.1, 6), (1.1, 2), (0, 1)])
def test_kurakin_schedule(levels: float, steps: int) -> None:
    attack = IFGSM.kurakin(levels / 255)
    assert (attack.step_size, attack.steps) == (1 / 255, steps)
    assert attack.steps * attack.step_size >= attack.epsilon - 1e-12


def test_epsilon_over_steps_reaches_epsilon() -> None:
    attack = IFGSM.epsilon_over_steps(0.02, 4, objective="untargeted")
    assert attack == IFGSM(0.02, 0.005, 4, objective="untargeted")
    result = attack.run(Linear(2), inner_images(), labels(2))
    torch.testing.assert_close(result.distances["linf"], torch.full((6,), 0.02, dtype=torch.float64))


def test_total_budget_is_shared_by_both_steps() -> None:
    assert RandFGSM.total() == RandFGSM(4 / 256, 4 / 256)
    assert RandFGSM.total(0.5, objective="untargeted") == RandFGSM(0.25, 0.25, objective="untargeted")


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 2 * 3, 4)).double().eval()


def test_untargeted_fgsm_equals_foolbox() -> None:
    foolbox = pytest.importorskip("foolbox", reason="foolbox is an oracle of the tests only")
    network, x, y = small_network(), inner_images(margin=0), labels(4)
    _, wanted, _ = foolbox.attacks.FGSM()(foolbox.PyTorchModel(network, bounds=(0, 1)), x, y, epsilons=0.02)
    torch.testing.assert_close(FGSM(objective="untargeted")(network, x, y), wanted, rtol=0, atol=1e-15)


def test_untargeted_fgsm_equals_torchattacks() -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is installed by hand: pip --no-deps")
    network, x, y = small_network(), inner_images(margin=0), labels(4)
    wanted = torchattacks.FGSM(network, eps=0.02)(x, y)
    torch.testing.assert_close(FGSM(objective="untargeted")(network, x, y), wanted, rtol=0, atol=1e-15)
