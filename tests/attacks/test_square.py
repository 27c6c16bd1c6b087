"""Square: the known optimum on linear networks, the schedule of its squares, its bumps, strength against queries."""

import pytest
import torch
from attack_toys import EPSILON, Linear, Toy, accuracy, inner_images

from shconv.attacks import PGD, RandomSigns, Square
from shconv.attacks.budget import Norm
from shconv.attacks.losses import margin
from shconv.attacks.square import _bump

SHAPE = (1, 4, 4)


def test_linf_reaches_the_optimum_of_a_linear_network() -> None:
    model, x = Linear(2, SHAPE, lead=100.0), inner_images(4, SHAPE)  # never broken, so it goes on to the end
    y = torch.zeros(4, dtype=torch.int64)
    wanted = margin(model(x), y) + 0.1 * (model.weight[1] - model.weight[0]).abs().sum()
    torch.testing.assert_close(margin(model(Square(0.1, queries=600)(model, x, y)), y), wanted, rtol=0, atol=1e-9)


def test_l2_gains_most_of_the_optimum_of_a_linear_network_and_never_more() -> None:
    model, x = Linear(2, (2, 6, 6), lead=100.0), inner_images(4, (2, 6, 6))
    y = torch.zeros(4, dtype=torch.int64)
    best = 0.5 * (model.weight[1] - model.weight[0]).norm()
    gain = margin(model(Square(0.5, "l2", queries=2000)(model, x, y)), y) - margin(model(x), y)
    assert bool((gain <= best).all())
    assert bool((gain >= 0.6 * best).all())


def test_the_l2_budget_is_spent_whole_while_the_box_is_far() -> None:
    model, x = Linear(3, lead=100.0), inner_images(3)
    result = Square(0.2, "l2", queries=50).run(model, x, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(result.distances["l2"], torch.full_like(result.distances["l2"], 0.2))


def test_more_queries_break_more_images_and_many_break_about_as_many_as_pgd(robust_toy: Toy) -> None:
    network, x, y = robust_toy
    rates = [accuracy(network, Square(EPSILON, queries=queries)(network, x, y), y) for queries in (10, 100, 500)]
    assert rates == sorted(rates, reverse=True)
    assert rates[2] < rates[0] - 0.2
    assert rates[2] <= accuracy(network, PGD(EPSILON)(network, x, y), y) + 0.15


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", EPSILON), ("l2", 0.8)])
def test_it_breaks_about_as_many_images_as_the_published_one(robust_toy: Toy, norm: Norm, epsilon: float) -> None:
    square = pytest.importorskip("pyautoattack.square")
    network, x, y = robust_toy[0], *(each[:60] for each in robust_toy[1:])
    with torch.random.fork_rng():
        published = square.SquareAttack(network, {"linf": "Linf", "l2": "L2"}[norm], 300, epsilon, seed=0, device="cpu")
        theirs = accuracy(network, published.perturb(x, y), y)
    ours = accuracy(network, Square(epsilon, norm, 300)(network, x, y), y)
    assert theirs < accuracy(network, x, y)
    assert ours <= theirs + 0.08


def test_it_needs_fewer_queries_than_random_signs(robust_toy: Toy) -> None:
    network, x, y = robust_toy
    square = accuracy(network, Square(EPSILON, queries=200)(network, x, y), y)
    assert square < accuracy(network, RandomSigns(EPSILON, draws=200)(network, x, y), y)


def test_squares_shrink_at_the_papers_points_scaled_to_the_queries() -> None:
    def sides(queries: int, at: tuple[int, ...]) -> list[int]:
        return [Square(0.1, queries=queries).side(k, 32, 32) for k in at]

    # sqrt(0.8 / 2^i x 1024) for i = 0, 1, 2, 3, ..., 9
    wanted = [29, 29, 20, 20, 14, 14, 10, 1]
    assert sides(10_000, (1, 10, 11, 50, 51, 200, 201, 9999)) == wanted
    assert sides(1000, (1, 1, 2, 5, 6, 20, 21, 999)) == wanted
    assert [Square(0.1, "l2").side(k, 32, 32) for k in (1, 4999)] == [29, 3]
    assert Square(0.1, share=1.0).side(1, 8, 5) == 5


@pytest.mark.parametrize("s", [1, 2, 3, 5, 8, 13])
def test_bumps_have_unit_norm_and_two_halves_of_opposite_sign(s: int) -> None:
    bump = _bump(s, torch.zeros(1, dtype=torch.float64))
    assert bump.shape == (s, s)
    assert float(bump.norm()) == pytest.approx(1)
    assert bool((bump[: s // 2] > 0).all())
    assert bool((bump[s // 2 :] < 0).all())


def test_a_clean_mistake_costs_one_query_and_stays() -> None:
    model, x = Linear(3), inner_images(5)
    wrong = model(x).argmin(1)
    result = Square(0.05, queries=40).run(model, x, wrong)
    assert torch.equal(result.images, x)
    assert result.queries.tolist() == [1] * 5
