"""Check 11: SHC networks without statistics, and what they keep."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from check_toys import SMALL, Honest, Shc, finding, make_audit, patterns, toy_images
from torch import Tensor, nn

from shconv import create_model, record_filter_maps
from shconv.audit.checks import c11_ablations
from shconv.audit.checks.ablated import layer_means, only, shuffled_maps
from shconv.audit.checks.side import Batch
from shconv.layers import channel_statistics
from shconv.routes import constant_maps, shc_layers


class Fragile(Honest):
    """Right on the clean images, which do not reach into one direction; a small step in this direction breaks them."""

    def forward(self, x: Tensor) -> Tensor:
        basis = torch.linalg.qr(torch.cat([patterns().flatten(1), torch.ones(1, 108)]).T, mode="complete")[0]
        off = (x - 0.5).flatten(1) @ basis[:, -1]
        return super().forward(x) + 30 * off[:, None] * torch.tensor([1.0, -1.0, 1.0, -1.0])


def test_robustness_that_needs_no_statistics_raises_the_alarm(tmp_path: Path) -> None:
    found = finding(c11_ablations, make_audit(tmp_path, Shc(), Fragile()))
    assert found.alarm
    assert found.numbers["twin"]["PGD-10"]["accuracy"] < 0.2
    assert "M constant, PGD-10" in found.numbers["same"]
    assert found.numbers["M constant"]["clean"] == 1.0


def test_a_network_with_no_gain_over_its_twin_has_nothing_to_explain(tmp_path: Path) -> None:
    found = finding(c11_ablations, make_audit(tmp_path, Shc(), Honest()))
    assert found.alarm is False
    assert found.numbers["twin"]["PGD-10"]["accuracy"] == found.numbers["whole"]["PGD-10"]["accuracy"]


def test_without_a_twin_no_gain_is_known_and_the_numbers_are_shown(tmp_path: Path) -> None:
    """It may stay right under attack for another reason, as after adversarial training: that is no alarm."""
    found = finding(c11_ablations, make_audit(tmp_path, Shc()))
    assert found.alarm is None
    assert found.numbers["M constant"]["PGD-10"]["accuracy"] > 0.5
    assert "no gain is known" in found.text


def test_where_nothing_stands_there_is_nothing_to_explain(tmp_path: Path) -> None:
    found = finding(c11_ablations, make_audit(tmp_path, Shc(), Honest(), eps=0.4))
    assert found.alarm is False
    assert found.numbers["whole"]["PGD-10"]["accuracy"] == 0


def test_robustness_that_ends_with_the_statistics_raises_none(tmp_path: Path) -> None:
    """It was masked by the gradient through the maps, which the ablation takes away."""
    one = replace(SMALL, steps=(1, 1, 2), ablation_images=40)
    found = finding(c11_ablations, make_audit(tmp_path, Shc(mislead=-1000.0), Honest(), effort=one))
    assert found.numbers["whole"]["one step"]["accuracy"] > found.numbers["M constant"]["one step"]["accuracy"]
    assert not any("one step" in each for each in found.numbers["same"])


def test_a_vanilla_source_of_the_same_size_is_compared(tmp_path: Path) -> None:
    class Padded(Honest):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.rest = nn.Parameter(torch.zeros(size))

    shc = Shc()
    wanted = sum(p.numel() for p in shc.parameters())
    near = Shc2Vanilla(wanted)
    found = finding(c11_ablations, make_audit(tmp_path, shc, near=near, far=Padded(10 * wanted)))
    assert [name for name in found.numbers if "vanilla" in name] == ["near, vanilla with as many parameters"]


class Shc2Vanilla(nn.Module):
    """The linear classifier with so many parameters."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(108, 4, bias=False)
        self.fc.weight.data = Honest().fc.weight.data @ Honest().features.weight.data
        self.rest = nn.Parameter(torch.zeros(size - 432))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc((x - 0.5).flatten(1))
        return logits


def _batch(n: int = 6) -> Batch:
    x, y = toy_images(n)
    return Batch(x, y, torch.arange(n))


def test_constant_maps_are_the_mean_of_the_images_own() -> None:
    network, batch = create_model("plain10_shc", 10, stem="small", width=2).eval(), _batch()
    means = layer_means(network, iter([Batch(*(each[:2] for each in batch)), Batch(*(each[2:] for each in batch))]))
    with torch.no_grad(), record_filter_maps(network) as maps:
        network(batch.x)
        own = dict(maps)
        with constant_maps(network, {name: each.map for name, each in means.items()}):
            network(batch.x)
    assert set(means) == set(own)
    for name in own:
        assert torch.allclose(means[name].map, own[name].mean(0), atol=1e-6)
        assert torch.allclose(maps[name], own[name].mean(0).expand_as(maps[name]), atol=1e-6)


@pytest.mark.parametrize("statistic", ["mean", "std"])
def test_with_one_statistic_held_the_maps_follow_the_other_alone(statistic: str) -> None:
    network, x = Shc().eval(), _batch().x
    (layer,) = shc_layers(network).values()
    means = layer_means(network, iter([_batch()]))
    s = channel_statistics(x - 0.5)
    keep = slice(0, 3) if statistic == "mean" else slice(3, 6)
    expected = s.mean(0).repeat(len(x), 1)
    expected[:, keep] = s[:, keep]
    with torch.no_grad(), record_filter_maps(network) as maps, only(network, statistic, means):
        network(x)
        by_hand = torch.sigmoid(layer.hyper.output(layer.hyper.hidden(expected).relu())).view(len(x), 6, 6)
    assert torch.allclose(maps["conv"], by_hand, atol=1e-6)


def test_shuffled_maps_are_the_neighbours() -> None:
    network, x = Shc().eval(), _batch().x
    with torch.no_grad():
        own = next(iter(shc_layers(network).values())).filter_map(x - 0.5)
        with record_filter_maps(network) as maps, shuffled_maps(network, x):
            network(x)
    assert torch.allclose(maps["conv"], own.roll(1, 0))


def test_an_ablation_leaves_the_network_as_it_was() -> None:
    network, x = Shc().eval(), _batch().x
    means, before = layer_means(network, iter([_batch()])), network(x)
    with pytest.raises(ZeroDivisionError), only(network, "mean", means):
        1 / 0  # noqa: B018
    assert torch.equal(network(x), before)
