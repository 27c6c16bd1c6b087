"""The substitute: labels only, their count, transfer, and independence of what is attacked."""

import pytest
import torch
from attack_toys import Toy, noisy_templates
from torch import Tensor, nn

from shconv.attacks import SeedImages, Substitute
from shconv.errors import InputError

SEEDS = SeedImages(noisy_templates(10, 40, 33)[0])
QUICK = Substitute(0.1, seeds=SEEDS, rounds=1, epochs=3)


class Counting(nn.Module):
    """Says only which class is likeliest, and counts how often it is asked."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.asked = network, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        logits: Tensor = self.network(x)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


def test_labels_are_all_it_asks_for_and_all_are_counted(plain_toy: Toy) -> None:
    network, x, y = plain_toy
    labels_only = Counting(network)
    result = QUICK.run(labels_only, x, y)
    assert torch.equal(result.images, QUICK(network, x, y))
    assert labels_only.asked == 40 * 2 == QUICK.cost.forwards
    assert result.queries.tolist() == [80] * len(x)
    assert float(result.distances["linf"].max()) <= 0.1


@pytest.mark.parametrize("by", ["fgsm", "pgd"])
def test_its_images_fool_more_than_noise_of_the_same_size(by: str, plain_toy: Toy) -> None:
    network, x, y = plain_toy
    noise = 0.1 * (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5).float().mul(2).sub(1)
    attack = Substitute(0.1, by, SEEDS, rounds=2)  # type: ignore[arg-type]
    right = [int((network(z).argmax(1) == y).sum()) for z in (attack(network, x, y), (x + noise).clamp(0, 1))]
    assert right[0] < right[1] - 60


def test_the_substitute_is_kept_until_the_model_changes(plain_toy: Toy) -> None:
    _, x, y = plain_toy
    attack = Substitute(0.1, seeds=8, rounds=1, epochs=1)
    model = Counting(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
    first = attack(model, x[:4], y[:4])
    assert torch.equal(attack(model, x[:2], y[:2]), first[:2])
    assert model.asked == 16
    near = Substitute(0.02, "fgsm", seeds=8, rounds=1, epochs=1)(model, x[:4], y[:4])
    assert model.asked == 16, "one that is trained alike and attacks otherwise trains no other"
    assert 0 < float((near - x[:4]).abs().max()) <= 0.02 + 1e-6
    with torch.no_grad():
        model.network[1].weight.neg_()  # type: ignore[index, operator, union-attr]
    attack(model, x[:4], y[:4])
    assert model.asked == 32


def test_seed_images_are_compared_by_content_and_checked() -> None:
    images = noisy_templates(10, 5, 1)[0]
    assert SeedImages(images) == SeedImages(images.double())
    assert SeedImages(images) != SeedImages(images.flip(0))
    assert Substitute(seeds=SeedImages(images)).about()["seeds"] == repr(SeedImages(images))
    with pytest.raises(InputError, match="255"):
        SeedImages(images * 255)


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"rounds": -1}, {"epochs": 0}, {"epsilon": 8}, {"by": "square"}])
def test_a_hyper_parameter_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name}: got .*want"):
        Substitute(**wrong)  # type: ignore[arg-type]
