"""PGD beside foolbox's and pyautoattack's: never weaker with the same steps, step size and restarts."""

import pytest
import torch
from attack_toys import EPSILON, Toy, accuracy
from torch import Tensor, nn

from shconv.attacks import PGD
from shconv.attacks.ball import Ball
from shconv.attacks.base import generators
from shconv.attacks.budget import Norm
from shconv.attacks.pgd import STREAM

SETTINGS = pytest.mark.parametrize(
    ("norm", "epsilon"),
    [("linf", EPSILON), ("l2", 0.5)]
    + [pytest.param(*each, marks=pytest.mark.slow) for each in (("linf", 0.04), ("l2", 0.35))],
)
RELATIVE = 0.1  # foolbox's step size as a share of epsilon
NETWORKS = pytest.mark.parametrize("network", ["robust_toy", "plain_toy"])


def by_foolbox(
    network: nn.Module, x: Tensor, y: Tensor, norm: Norm, epsilon: float, steps: int, start: Tensor | None
) -> Tensor:
    """What foolbox's own PGD makes of x, from `start` or from a start of its own."""
    foolbox = pytest.importorskip("foolbox")
    base = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD

    class From(base):  # type: ignore[misc, valid-type]
        def get_random_start(self, x0, epsilon):  # type: ignore[no-untyped-def]
            return super().get_random_start(x0, epsilon) if start is None else type(x0)(start)

    attack = From(steps=steps, rel_stepsize=RELATIVE, random_start=True)
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device=x.device)
    adversarial: Tensor = attack.run(model, x, foolbox.Misclassification(y), epsilon=epsilon)
    return adversarial


@SETTINGS
@NETWORKS
@pytest.mark.parametrize("steps", [10, 40])
def test_from_the_same_start_it_breaks_every_image_that_foolbox_breaks(
    network: str, norm: Norm, epsilon: float, steps: int, request: pytest.FixtureRequest
) -> None:
    model, x, y = request.getfixturevalue(network)
    start = Ball(x, epsilon, norm).random(generators(0, STREAM, range(len(x))))
    theirs = model(by_foolbox(model, x, y, norm, epsilon, steps, start)).argmax(1) != y
    ours = model(PGD(epsilon, norm, steps=steps, step_size=RELATIVE * epsilon)(model, x, y)).argmax(1) != y
    assert bool(theirs.any())
    assert bool((ours | ~theirs).all())


@SETTINGS
@NETWORKS
def test_by_default_it_leaves_no_more_images_than_foolbox_with_as_many_steps_and_restarts(
    network: str, norm: Norm, epsilon: float, request: pytest.FixtureRequest
) -> None:
    model, x, y = request.getfixturevalue(network)
    standing = torch.ones_like(y, dtype=torch.bool)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(2):
            standing &= model(by_foolbox(model, x, y, norm, epsilon, 20, None)).argmax(1) == y
    ours = accuracy(model, PGD(epsilon, norm, steps=20, restarts=2)(model, x, y), y)
    assert ours <= float(standing.double().mean())


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", EPSILON), ("l2", 0.5)])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_it_leaves_as_many_images_as_the_published_auto_pgd(
    robust_toy: Toy, norm: Norm, epsilon: float, loss: str
) -> None:
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    network, x, y = robust_toy
    their_norm, their_loss = {"linf": "Linf", "l2": "L2"}[norm], {"cross_entropy": "ce", "dlr": "dlr"}[loss]
    with torch.random.fork_rng():
        published = autopgd.APGDAttack(network, 50, their_norm, eps=epsilon, loss=their_loss, seed=0, device="cpu")
        theirs = accuracy(network, published.perturb(x, y), y)
    ours = accuracy(network, PGD(epsilon, norm, steps=50, loss=loss)(network, x, y), y)  # type: ignore[arg-type]
    assert abs(ours - theirs) <= 2 / len(x)
