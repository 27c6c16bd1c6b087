"""PGD: the known optimum on linear networks, masked gradients, strength against cost, on toys whose truth is known."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from attack_toys import EPSILON, Linear, Toy, accuracy, inner_images
from torch import Tensor, nn

from shconv.attacks import PGD
from shconv.attacks.ascent import check_points
from shconv.attacks.ball import Ball
from shconv.attacks.budget import Norm
from shconv.attacks.losses import Loss, margin

NORMS = pytest.mark.parametrize(("norm", "epsilon", "dual"), [("linf", 0.05, 1), ("l2", 0.25, 2)])


@NORMS
@pytest.mark.parametrize("step_size", [None, 0.1])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_two_classes_reach_the_optimum_of_a_linear_network(
    norm: Norm, epsilon: float, dual: int, step_size: float | None, loss: Loss
) -> None:
    model, x = Linear(2), inner_images(6)
    y = model(x).argmax(1)
    normal = (model.weight[1 - y] - model.weight[y]).flatten(1)
    adversarial = PGD(epsilon, norm, steps=30, loss=loss, step_size=step_size)(model, x, y)
    wanted = margin(model(x), y) + epsilon * torch.linalg.vector_norm(normal, dual, dim=1)
    torch.testing.assert_close(margin(model(adversarial), y), wanted, rtol=0, atol=1e-7)


@NORMS
@pytest.mark.parametrize("loss", ["margin", "dlr", "cross_entropy"])
def test_all_targets_reach_the_optimum_over_all_classes_of_a_linear_network(
    norm: Norm, epsilon: float, dual: int, loss: Loss
) -> None:
    model, x = Linear(5), inner_images(6)
    y = model(x).argmax(1)
    z = model(x)
    rises = (z - z.gather(1, y[:, None])) + epsilon * torch.linalg.vector_norm(
        (model.weight[None] - model.weight[y][:, None]).flatten(2), dual, dim=2
    )
    wanted = rises.scatter(1, y[:, None], -torch.inf).amax(1)
    reached = margin(model(PGD(epsilon, norm, steps=60, loss=loss, targets=9)(model, x, y)), y)
    assert bool((reached <= wanted + 1e-9).all())
    slack = 1e-9 if loss == "margin" else 0.02 * float(wanted.abs().max())  # the others bend towards a third class
    torch.testing.assert_close(reached, wanted, rtol=0, atol=slack)


def test_queries_and_cost_count_every_pass() -> None:
    model, x = Linear(5), inner_images(3)
    attack = PGD(0.05, steps=7, restarts=2, targets=3, samples=4)
    assert attack.cost == (1 + 6 * (7 * 4 + 1), 6 * 7 * 4)
    assert attack.run(model, x, model(x).argmax(1)).queries.tolist() == [attack.cost.forwards] * 3


def test_saturated_cross_entropy_has_no_gradient_and_stops_pgd_where_the_margin_does_not(plain_toy: Toy) -> None:
    network, x, y = plain_toy
    masked = nn.Sequential(network, Scale(1e5))
    right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    plain = PGD(EPSILON, steps=20, random_start=False)
    assert torch.equal(plain(masked, x, y), x)
    assert accuracy(masked, replace(plain, random_start=True)(masked, x, y), y) > 0.9
    for loss in ("margin", "dlr"):
        broken = accuracy(masked, replace(plain, loss=loss)(masked, x, y), y)
        assert broken == accuracy(network, replace(plain, loss=loss)(network, x, y), y) < 0.2


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", EPSILON), ("l2", 0.5)])
def test_more_fixed_steps_never_lose_an_image(robust_toy: Toy, norm: Norm, epsilon: float) -> None:
    network, x, y = robust_toy
    attack = PGD(epsilon, norm, random_start=False, step_size=epsilon / 5)
    found = [replace(attack, steps=steps)(network, x, y) for steps in (1, 5, 20, 60)]
    margins = [margin(network(z).detach(), y) for z in found]
    for fewer, more in pairwise(margins):
        assert bool((more >= fewer - 1e-5).all())
    assert float(margins[-1].mean()) > float(margins[0].mean())


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", EPSILON), ("l2", 0.5)])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "margin"])
def test_more_adaptive_steps_find_higher_margins(robust_toy: Toy, norm: Norm, epsilon: float, loss: Loss) -> None:
    network, x, y = robust_toy
    found = [PGD(epsilon, norm, steps=steps, loss=loss)(network, x, y) for steps in (3, 10, 50)]
    means = [float(margin(network(z).detach(), y).mean()) for z in found]
    assert means == sorted(means)
    rates = [accuracy(network, z, y) for z in (x, *found)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] - rates[-1] > 0.1


def test_more_restarts_and_more_targets_never_lose_an_image(robust_toy: Toy) -> None:
    network, x, y = robust_toy
    once = PGD(EPSILON, steps=5)
    thrice = margin(network(replace(once, restarts=3)(network, x, y)), y)
    assert bool((thrice >= margin(network(once(network, x, y)), y) - 1e-5).all())
    aimed = [margin(network(replace(once, targets=k, random_start=False)(network, x, y)), y) for k in (1, 3, 9)]
    assert bool((aimed[1] >= aimed[0] - 1e-5).all())
    assert bool((aimed[2] >= aimed[1] - 1e-5).all())


def test_until_broken_breaks_the_same_images_with_fewer_passes(robust_toy: Toy) -> None:
    network, x, y = robust_toy
    attack = PGD(EPSILON, steps=20, restarts=2)
    whole, short = attack.run(network, x, y), replace(attack, until_broken=True).run(network, x, y)
    wrong = network(whole.images).argmax(1) != y
    assert torch.equal(network(short.images).argmax(1) != y, wrong)
    assert bool((short.queries[wrong] < whole.queries[wrong]).all())
    assert torch.equal(short.queries[~wrong], whole.queries[~wrong])


def test_averaged_gradients_hurt_a_network_that_shakes_its_input_more_than_single_ones(robust_toy: Toy) -> None:
    network, x, y = robust_toy

    class Shaken(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            logits: Tensor = network(z + 0.2 * torch.randn_like(z))
            return logits

    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [PGD(EPSILON, steps=10, samples=samples)(Shaken(), x, y) for samples in (1, 16)]
        single, averaged = (sum(accuracy(Shaken(), z, y) for _ in range(20)) / 20 for z in found)
    assert averaged < single


def test_check_points_come_ever_faster() -> None:
    assert sorted(check_points(100)) == [22, 41, 57, 70, 80, 87, 93, 99]  # Croce and Hein 2020, section 3.2
    assert check_points(1) == set()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_ascent_stays_put_where_the_gradient_is_zero_and_survives_tiny_ones(norm: Norm) -> None:
    x = inner_images(3).float()
    ball = Ball(x, 0.1, norm)
    assert torch.equal(ball.step(x, torch.zeros_like(x), 0.05), x)
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ball.step(x, 1e-30 * gradient, 0.05), ball.step(x, gradient, 0.05))


def test_random_starts_fill_the_ball_evenly() -> None:
    x = torch.full((4000, 1, 1, 2), 0.5, dtype=torch.float64)
    draws = [np.random.default_rng(0)] * 4000
    radius = (Ball(x, 0.2, "l2").random(draws) - x).flatten(1).norm(dim=1)
    assert float((radius < 0.1).double().mean()) == pytest.approx(1 / 4, abs=0.03)  # the area of half the radius
    side = (Ball(x, 0.2, "linf").random(draws) - x).flatten(1)
    assert float((side.abs() < 0.1).all(1).double().mean()) == pytest.approx(1 / 4, abs=0.03)
    assert float(side.mean(0).abs().max()) < 0.01
