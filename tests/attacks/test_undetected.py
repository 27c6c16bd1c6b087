"""Attacks past a detector: on a made-up network whose classifier and detector are linear, in closed form."""

import pytest
import torch
from torch import Tensor, nn

from shconv.attacks import PGD, UndetectedPGD, create_attack
from shconv.errors import InputError
from shconv.models.detector import DetectorNetwork

EPS = 0.1


class Linear(DetectorNetwork):
    """The first pixel decides the class, the second whether an image is rejected: above 0.5."""

    def __init__(self, watched: int = 1) -> None:
        nn.Module.__init__(self)
        self.network, self.layer, self.watched = nn.Identity(), "", watched
        self.threshold = torch.tensor(0.0)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.flatten(1)
        return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5, x[:, 0] - 9], 1), x[:, self.watched] - 0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)[0]


def images(first: list[float], second: list[float]) -> Tensor:
    x = torch.full((len(first), 1, 2, 2), 0.5)
    x.view(-1, 4)[:, :2] = torch.tensor([first, second]).T
    return x


def fooled(network: DetectorNetwork, x: Tensor, y: Tensor) -> list[bool]:
    logits, score = network.both(x)
    return ((logits.argmax(1) != y) & (score <= network.threshold)).tolist()


def test_both_are_fooled_where_the_budget_reaches_either_and_none_else() -> None:
    x = images([0.45, 0.55, 0.45, 0.3, 0.45], [0.4, 0.55, 0.7, 0.4, 0.58])
    y = (x.flatten(1)[:, 0] > 0.5).long()
    network = Linear()
    result = UndetectedPGD(EPS, steps=30, loss="margin").run(network, x, y)
    assert fooled(network, result.images, y) == [True, True, False, False, True]
    assert result.distances["linf"].max() <= EPS + 1e-6
    blind = PGD(EPS, steps=30, loss="margin", random_start=False).run(network, x, y)  # knows nothing of the detector
    assert fooled(network, blind.images, y)[4] is False


def test_a_detector_that_sees_the_deciding_pixel_itself_cannot_be_passed() -> None:
    network, x = Linear(watched=0), images([0.45, 0.48], [0.5, 0.5])
    y = torch.zeros(2, dtype=torch.int64)
    result = UndetectedPGD(EPS, steps=30, loss="margin").run(network, x, y)
    assert fooled(network, result.images, y) == [False, False]
    assert (network(PGD(EPS)(network, x, y)).argmax(1) != y).all()


@pytest.mark.parametrize("objective", ["margin", "cross_entropy"])
def test_an_images_result_depends_on_its_place_and_not_on_the_others(objective: str) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    attack = UndetectedPGD(EPS, steps=5, loss=objective)  # type: ignore[arg-type]
    whole = attack.run(Linear(), x, y, index=range(10, 16), seed=3)
    for i in range(6):
        alone = attack.run(Linear(), x[i : i + 1], y[i : i + 1], index=[10 + i], seed=3)
        assert torch.equal(alone.images[0], whole.images[i])
        assert alone.queries[0] == whole.queries[i]


def test_without_a_detector_it_is_pgd() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(UndetectedPGD(EPS)(network, x, y, seed=2), PGD(EPS)(network, x, y, seed=2))


def test_it_is_an_attack_by_name() -> None:
    attack = create_attack("undetected_pgd", eps="4/255", steps=7)
    assert isinstance(attack, UndetectedPGD)
    assert (attack.epsilon, attack.steps) == (4 / 255, 7)


def test_it_does_not_aim_at_classes_past_a_detector() -> None:
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match="UndetectedPGD cannot aim at given classes where a network has a detector"):
        UndetectedPGD(0.1, steps=2)(Linear(), x, y, targeted=y + 1)
