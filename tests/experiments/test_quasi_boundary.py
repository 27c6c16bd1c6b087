"""Section 4.1: the network with every kernel fixed at the clean image, against kernels made and applied by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shconv
from shconv.experiments import quasi_boundary
from shconv.routes import shc_layers
from toys import colour_networks


def by_hand(model: nn.Module, x: Tensor, maps: list[Tensor]) -> Tensor:
    """Logits (N, K) of the toy network with its kernels filtered by the given maps (N, 3, 3), image by image."""
    logits = []
    for n, image in enumerate(x):
        hidden = image[None]
        for layer, M, bend in zip((model.first, model.second), maps, (torch.relu, lambda h: h), strict=True):
            hidden = bend(F.conv2d(hidden, layer.weight * M[n], layer.bias, padding=1))
        logits.append(model.scale * hidden.mean((2, 3))[0].flip(0))
    return torch.stack(logits)


def maps_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    first = model.first.filter_map(x)
    return [first, model.second.filter_map(model.first(x).relu())]


@torch.no_grad()
def test_agreement_and_distances_are_those_computed_by_hand():
    model = colour_networks(scale=5.0)[1]
    torch.manual_seed(4)
    for layer in shc_layers(model).values():  # maps that follow the image so strongly that some predictions flip
        nn.init.normal_(layer.hyper.output.weight, std=5.0)
    clean = torch.rand(400, 3, 6, 7)
    moved = (clean + 0.6 * torch.randn(clean.shape)).clamp(0, 1)
    before, after = maps_of(model, clean), maps_of(model, moved)
    true, frozen = by_hand(model, moved, after).argmax(1), by_hand(model, moved, before).argmax(1)
    measured = quasi_boundary.compare(model, clean, moved)
    assert measured["agreement"].tolist() == (true == frozen).float().tolist()
    assert 0 < measured["agreement"].mean() < 1
    expected = torch.stack([(a - b).flatten(1).norm(dim=1) for a, b in zip(after, before, strict=True)]).mean(0)
    np.testing.assert_allclose(measured["map_distance"], expected, rtol=1e-5)
    np.testing.assert_allclose(measured["image_distance"], (moved - clean).flatten(1).norm(dim=1), rtol=1e-6)


@pytest.mark.parametrize(
    "build", [lambda: colour_networks()[1], lambda: shconv.create_model("plain10_shc", 3, width=2)]
)
def test_an_image_that_has_not_moved_agrees_at_distance_zero(build):
    x = torch.rand(5, 3, 16, 16)
    measured = quasi_boundary.compare(build().eval(), x, x)
    assert measured["agreement"].tolist() == [1.0] * 5
    assert measured["map_distance"].tolist() == measured["image_distance"].tolist() == [0.0] * 5


def test_an_image_without_an_answer_agrees_with_nothing():
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = colour_networks()[1]

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x).masked_fill((x[:, 0, 0, 0] > 0.5)[:, None], torch.nan)

    x = torch.rand(6, 3, 8, 8)
    x[:, 0, 0, 0] = torch.tensor([0.0, 1.0]).repeat(3)
    assert quasi_boundary.compare(Blind(), x, x)["agreement"].tolist() == [1.0, 0.0] * 3
    nan = {"agreement": np.ones(2), "map_distance": np.array([1, np.nan]), "image_distance": np.ones(2)}
    assert quasi_boundary.summary(nan) == {"image_distance": 1.0, "map_distance": None, "agreement": 1.0}


def test_maps_that_do_not_follow_the_image_always_agree():
    model = shconv.to_shc(colour_networks()[0], start="identity").eval()
    x = torch.rand(6, 3, 8, 8)
    measured = quasi_boundary.compare(model, x, torch.rand_like(x))
    assert measured["agreement"].tolist() == [1.0] * 6
    assert measured["map_distance"].tolist() == [0.0] * 6


def test_nothing_is_left_on_the_network():
    model = colour_networks()[1]
    x = torch.rand(4, 3, 8, 8)
    logits = model(x)
    quasi_boundary.compare(model, x, torch.rand_like(x))
    assert torch.equal(model(x), logits)
    assert logits.requires_grad
    torch.testing.assert_close(model(x[:3]), logits[:3])  # any number of images may pass again


def test_the_summary_is_the_mean_over_all_images():
    columns = {
        "image_distance": np.array([1.0, 1, 1, 5]),
        "map_distance": np.array([0.0, 0, 0, 2]),
        "agreement": np.array([1.0, 1, 1, 0]),
    }
    assert quasi_boundary.summary(columns) == {"image_distance": 2.0, "map_distance": 0.5, "agreement": 0.75}
    assert set(quasi_boundary.summary({}).values()) == {None}
