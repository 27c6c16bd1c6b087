"""DeepFool: the closed form on linear models, and foolbox's own on trained networks."""

import pytest
import torch
from attack_toys import Linear, Toy, inner_images
from torch import Tensor

from shconv.attacks import DeepFool, SemiRandom
from shconv.attacks.budget import Norm

NORMS = pytest.mark.parametrize("norm", ["l2", "linf"])


def boundary(model: Linear, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """The distance (N,) to the nearest boundary of a linear model: min over k of (z_y - z_k) / ||w_k - w_y||_q."""
    w = model.weight.flatten(1)
    gap = model(x).gather(1, y[:, None]) - model(x)
    across = torch.cdist(w, w, 1.0 if norm == "linf" else 2.0)[y]
    return (gap / across).scatter(1, y[:, None], torch.inf).amin(1)


@NORMS
@pytest.mark.parametrize("overshoot", [0.02, 0.3])
def test_on_a_linear_model_the_distance_is_the_boundarys_times_the_overshoot(norm: Norm, overshoot: float) -> None:
    model, x = Linear(6), inner_images(30)
    y = model(x).argmax(1)
    result = DeepFool(norm, overshoot).run(model, x, y)
    wanted = (1 + overshoot) * boundary(model, x, y, norm)
    assert float(wanted.max()) < (0.3 if norm == "linf" else 3)
    torch.testing.assert_close(result.distances[norm], wanted)
    assert result.queries.tolist() == [2] * 30
    assert bool((model(result.images).argmax(1) != y).all())


def test_fewer_candidates_look_only_at_the_likeliest_classes() -> None:
    def model(z: Tensor) -> Tensor:
        """Class 1 is likelier than class 2, and beyond the box; class 2 is 0.15 away."""
        likely, near = z.flatten(1)[:, 0], z.flatten(1)[:, 1]
        return torch.stack([1 + 0 * near, 0.5 + 0.1 * likely, 4 * near], 1)

    x, y = torch.full((1, 1, 1, 2), 0.1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    both = DeepFool().run(model, x, y)
    assert float(both.distances["l2"]) == pytest.approx(0.15 * 1.02)
    assert torch.equal(DeepFool(candidates=1)(model, x, y), x)


def test_a_confident_network_has_the_same_boundary() -> None:
    model, x = Linear(6), inner_images(10).float()
    y = model(x).argmax(1)
    loud = DeepFool()(lambda z: 1e4 * model(z), x, y)
    torch.testing.assert_close(loud, DeepFool()(model, x, y), rtol=0, atol=1e-5)


@NORMS
@pytest.mark.parametrize("network", ["robust_toy", "plain_toy"])
def test_it_reaches_foolboxs_distances(network: str, norm: Norm, request: pytest.FixtureRequest) -> None:
    foolbox = pytest.importorskip("foolbox")
    model, x, y = request.getfixturevalue(network)
    kind = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}[norm]
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    keep: Tensor = model(x).argmax(1) == y
    theirs = kind().run(wrapped, x[keep], foolbox.Misclassification(y[keep]))
    ours = DeepFool(norm).run(model, x[keep], y[keep])
    assert bool((model(ours.images).argmax(1) != y[keep]).all())
    reached = (theirs - x[keep]).flatten(1).norm(float("inf") if norm == "linf" else 2, dim=1)
    # foolbox lengthens every step by 1e-4 of a distance, so it is never nearer.
    torch.testing.assert_close(ours.distances[norm], reached, rtol=0.02, atol=1e-3)


def test_an_image_without_a_gradient_stays(plain_toy: Toy) -> None:
    network, x, y = plain_toy
    result = DeepFool().run(lambda z: network(z.detach()), x[:6], y[:6])
    assert torch.equal(result.images, x[:6])


@pytest.mark.parametrize("attack", [DeepFool(), DeepFool("linf"), SemiRandom(share=0.5)], ids=str)
def test_an_image_on_the_boundary_crosses_it(attack: DeepFool | SemiRandom) -> None:
    """Equal logits: the first class is predicted, and the step to the other's boundary has no length."""

    def model(x: Tensor) -> Tensor:
        level = x.mean((1, 2, 3))
        return torch.stack([level, torch.full_like(level, 0.5)], 1)

    images, labels = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, dtype=torch.int64)
    result = attack.run(model, images, labels)
    assert model(images).argmax(1).tolist() == [0]
    assert model(result.images).argmax(1).tolist() == [1]
    assert 0 < float(result.distances["l2"]) < 1e-2
