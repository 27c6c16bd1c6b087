"""Attacks pass on what is still under way: the same results for fewer images passed, and whole batches where those are
held."""

import pytest
import torch
from attack_toys import inner_images
from torch import Tensor, nn

import shconv
from shconv.attacks import JSMA, LBFGS, PGD, Attack, DeepFool, RandomSigns, SemiRandom, Square, under_way
from shconv.attacks.under_way import passing

ATTACKS = {
    "deepfool": DeepFool(steps=20),
    "deepfool linf": DeepFool("linf", steps=20),
    "semi-random": SemiRandom(steps=20),
    "jsma": JSMA(steps=20, gamma=1.0),
    "lbfgs": LBFGS(iterations=5),
    "pgd": PGD(0.3, steps=5, restarts=3, until_broken=True),
    "square": Square(0.3, queries=12),
    "signs": RandomSigns(0.3, draws=12),
}
EACH = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_way, "LEAST", 1)


class Counting(nn.Module):
    """It bends, so that images take steps of their own number; `passed` has the rows of each pass."""

    holds_a_batch = False

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passed.append(len(x))
        bent = x.flatten(1).tanh() * x.flatten(1).square()
        return torch.stack([3 * bent[:, 0], bent[:, 1:5].sum(1), bent[:, 5] - bent[:, 0] - 2], 1)


@pytest.mark.parametrize(
    ("alive", "places"),
    [
        ([1, 1, 1, 1, 1], [0, 1, 2, 3, 4]),
        ([0, 1, 0, 1, 1], [0, 1, 3, 4]),
        ([0, 0, 0, 1, 0], [3]),
        ([0, 0, 1, 0, 1], [2, 4]),
        ([0, 0, 0, 0, 0], [0]),
    ],
)
def test_all_that_are_alive_pass_with_few_others(alive: list[int], places: list[int]) -> None:
    assert passing(torch.tensor(alive) == 1, False).tolist() == places


@pytest.mark.parametrize(("alive", "passed"), [(40, 40), (33, 40), (32, 32), (17, 32), (3, 16)])
def test_sizes_are_few_and_those_at_which_a_processor_rounds_alike(
    alive: int, passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert len(passing(torch.arange(40) < alive, False)) == passed


@EACH
def test_fewer_images_pass_and_each_gets_what_it_gets_alone(attack: Attack) -> None:
    network, x = Counting(), inner_images(9, (1, 3, 3))
    y = network(x).argmax(1)
    y[2:7] = (y[2:7] + 1) % 3  # misclassified from the start
    network.passed.clear()
    result = attack.run(network, x, y)
    assert sum(network.passed) < len(x) * len(network.passed)
    for place in range(len(x)):
        alone = attack.run(network, x[place : place + 1], y[place : place + 1], index=[place])
        torch.testing.assert_close(alone.images[0], result.images[place])
        assert int(alone.queries) == int(result.queries[place])


@EACH
def test_a_module_that_holds_a_batch_gets_whole_ones(attack: Attack) -> None:
    network, x = Counting(), inner_images(9, (1, 3, 3))
    network.holds_a_batch = True
    y = network(x).argmax(1)
    y[2:7] = (y[2:7] + 1) % 3
    attack.run(network, x, y)
    assert set(network.passed) == {9}


@EACH
def test_where_kernels_are_frozen_the_batch_stays_whole(attack: Attack) -> None:
    network = nn.Sequential(shconv.SHConv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).eval()
    x = torch.rand(6, 1, 3, 3)
    y = network(x).argmax(1)
    passed: list[int] = []
    network[0].register_forward_hook(lambda module, inputs, output: passed.append(len(output)))
    with shconv.frozen_kernels(network, x):
        attack.run(network, x, y)
    assert set(passed) == {6}
