"""FGSM on networks that are certain: other libraries follow the cross-entropy, from whose gradient the true class drops
out in float32 where p_y rounds to 1; in float64 they agree with ours, which follows the log-odds."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.attacks import FGSM

EPSILON = 0.05


def confident(dtype: torch.dtype, scale: float = 200.0) -> nn.Module:
    """A small network with logits far apart, as long training without label smoothing leaves them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5, bias=False))
    with torch.no_grad():  # some images have p_y within float32's rounding of 1, none within float64's
        network[-1].weight -= network[-1].weight.mean(1, keepdim=True)
        network[-1].weight *= scale
    return network.to(dtype).eval()


def images(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images in steps of 1/256, the same in either precision, with the classes that the network gives them."""
    x = torch.randint(0, 257, (200, 3, 8, 8), generator=torch.Generator().manual_seed(1)) / 256
    with torch.no_grad():
        return x.to(dtype), confident(torch.float64)(x.double()).argmax(1)


def by_cross_entropy(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """FGSM as it is written elsewhere."""
    x = x.clone().requires_grad_()
    gradient = torch.autograd.grad(F.cross_entropy(network(x), y), x)[0]
    return (x + EPSILON * gradient.sign()).clamp(0, 1).detach()


def right(network: nn.Module, x: Tensor, y: Tensor) -> int:
    with torch.no_grad():
        return int((network(x).argmax(1) == y).sum())


def ours(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return FGSM(EPSILON, objective="untargeted")(network, x, y)


def test_the_cross_entropy_in_float32_makes_a_certain_network_look_robust() -> None:
    network, (x, y) = confident(torch.float32), images(torch.float32)
    assert right(network, x, y) == len(x)
    assert bool((network(x).softmax(1).amax(1) == 1).any())
    assert right(network, by_cross_entropy(network, x, y), y) > 2 * right(network, ours(network, x, y), y) > 0


def test_in_float64_the_cross_entropy_agrees_with_ours_and_ours_does_not_need_it() -> None:
    double, (x, y) = confident(torch.float64), images(torch.float64)
    assert torch.equal(by_cross_entropy(double, x, y), ours(double, x, y))
    single, (x32, _) = confident(torch.float32), images(torch.float32)
    assert right(single, ours(single, x32, y), y) == right(double, ours(double, x, y), y)


@pytest.mark.parametrize("library", ["foolbox", "torchattacks"])
def test_other_libraries_leave_standing_what_ours_breaks(library: str) -> None:
    network, (x, y) = confident(torch.float32), images(torch.float32)
    if library == "foolbox":
        foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        theirs = foolbox.attacks.FGSM()(model, x, y, epsilons=EPSILON)[1]
    else:
        torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
        theirs = torchattacks.FGSM(network, eps=EPSILON)(x, y)
    assert right(network, theirs, y) > 2 * right(network, ours(network, x, y), y)
