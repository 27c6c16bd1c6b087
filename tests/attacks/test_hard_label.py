"""Decision-based attacks: they cross a plane whose distance is known, and say nothing where nothing is in reach."""

import pytest
import torch
from attack_toys import Linear, Toy, inner_images
from torch import Tensor

from shconv.attacks import HardLabel
from shconv.attacks.budget import Norm
from shconv.attacks.hard_label import Kind
from shconv.attacks.losses import margin
from shconv.errors import InputError

pytest.importorskip("foolbox")

CASES = pytest.mark.parametrize(
    ("kind", "norm", "dual", "steps", "factor"),
    [("boundary", "l2", 2, 2000, 1.5), ("hop_skip_jump", "l2", 2, 10, 1.3), ("hop_skip_jump", "linf", 1, 10, 1.4)],
)


def at_distance(dual: int, distance: float) -> tuple[Linear, Tensor, Tensor]:
    """A linear network of two classes, and images all `distance` from its boundary, in the norm dual to `dual`."""
    model, x = Linear(2), inner_images(2)
    y = model(x).argmax(1)
    normal = (model.weight[1 - y] - model.weight[y]).flatten(1)
    length = normal.square().sum(1)
    to_boundary = -margin(model(x), y) / length
    x = x + (
        (to_boundary - distance * torch.linalg.vector_norm(normal, dual, dim=1) / length)[:, None] * normal
    ).view_as(x)
    assert torch.equal(x, x.clamp(0, 1))
    return model, x, y


@CASES
def test_a_boundary_inside_the_ball_is_crossed(kind: Kind, norm: Norm, dual: int, steps: int, factor: float) -> None:
    model, x, y = at_distance(dual, 0.05)
    result = HardLabel(kind, factor * 0.05, norm, steps).run(model, x, y)
    assert bool((model(result.images).argmax(1) != y).all())
    assert bool((result.queries < HardLabel(kind, 0.1, norm, steps).cost.forwards).all())


@CASES
def test_a_boundary_outside_the_ball_leaves_the_image_as_it_was(
    kind: Kind, norm: Norm, dual: int, steps: int, factor: float
) -> None:
    model, x, y = at_distance(dual, 0.05)
    assert torch.equal(HardLabel(kind, 0.049, norm, min(steps, 100))(model, x, y), x)


@pytest.mark.parametrize("kind", ["boundary", "hop_skip_jump"])
def test_a_network_that_never_errs_ends_without_an_example(kind: Kind) -> None:
    x = inner_images(2)
    result = HardLabel(kind, 0.1, steps=5).run(
        lambda z: torch.tensor([[1.0, 0.0]]).repeat(len(z), 1), x, torch.zeros(2, dtype=torch.int64)
    )
    assert torch.equal(result.images, x)
    assert bool((result.queries <= HardLabel(kind, 0.1, steps=5).cost.forwards).all())


@pytest.mark.parametrize("kind", ["boundary", "hop_skip_jump"])
def test_a_clean_mistake_costs_one_query(kind: Kind) -> None:
    model, x = Linear(3), inner_images(2)
    result = HardLabel(kind, 0.1, steps=5).run(model, x, model(x).argmin(1))
    assert torch.equal(result.images, x)
    assert result.queries.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["boundary", "hop_skip_jump"])
def test_a_network_that_tosses_coins_neither_hangs_nor_fails(kind: Kind) -> None:
    x, calls = inner_images(4), 0

    def coins(z: Tensor) -> Tensor:
        nonlocal calls
        calls += len(z)
        far = ((z - x.mean()).abs().amax((1, 2, 3)) > 0.25).to(z)  # right near the images, a coin beyond
        return torch.stack([torch.full((len(z),), 0.7).to(z), far * torch.rand(len(z)).to(z)], 1)

    attack = HardLabel(kind, 0.001, steps=30)
    attack(coins, x, torch.zeros(4, dtype=torch.int64))
    assert calls <= 4 * attack.cost.forwards


def test_hop_skip_jump_breaks_trained_networks(plain_toy: Toy) -> None:
    network, x, y = plain_toy
    found = HardLabel("hop_skip_jump", 0.1, steps=8)(network, x[:10], y[:10])
    assert int((network(found).argmax(1) != y[:10]).sum()) >= 7


def test_an_assertion_of_the_network_is_not_taken_for_foolboxs() -> None:
    def calm(z: Tensor) -> Tensor:
        assert z.max() < 0.8, "no bright images"
        return torch.ones(len(z), 2).to(z)

    with pytest.raises(InputError, match="AssertionError: no bright images"):
        HardLabel("boundary", 0.1, steps=5)(calm, inner_images(2), torch.zeros(2, dtype=torch.int64))
