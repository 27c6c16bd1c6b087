"""The detector of attacked images: its loss, its two adversaries, its threshold."""

import copy
from dataclasses import replace

import pytest
import torch
from defence_toys import CLASSES, EPS, away_from, images, linear, slim, source, step, trained_on
from torch import Tensor, nn

from shconv.data.splits import MemorySplit
from shconv.errors import InputError
from shconv.models.detector import DetectorNetwork
from shconv.training import ModelConfig
from shconv.training.defences import Detector, Plain


def guarded(defence: Detector, name: str = "plain10") -> DetectorNetwork:
    network = DetectorNetwork(slim(name), defence.layer)
    defence.begin(network)
    network.train()
    return network


def test_the_detector_learns_to_tell_the_attacked_half_of_its_batch() -> None:
    classifier, y = slim("plain10", seed=5), torch.tensor([0, 1, 2, 0])
    defence = Detector(EPS, steps=3, sources=(source(classifier),))
    network = guarded(defence)
    twin = copy.deepcopy(network)
    result, batch = trained_on(network, defence, images(4), y, step())
    clean, attacked = batch.chunk(2)
    assert torch.equal(clean, images(4))
    assert 0 < (attacked - clean).abs().max() <= EPS + 1e-6
    score = twin.both(batch)[1].double()
    torch.testing.assert_close(result.loss.double(), -torch.cat([(-score[:4]), score[4:]]).sigmoid().log().mean())
    torch.testing.assert_close(result.logits, classifier(clean))
    missed = (score[4:] <= 0) & (classifier(attacked).argmax(1) != y)
    assert result.attacked is not None
    assert torch.equal(result.attacked.argmax(1) != y, missed)


def test_only_the_detector_is_trained() -> None:
    defence = Detector(EPS, steps=1, sources=(source(slim("plain10_shc", seed=5)),))
    network = guarded(defence, "plain10_shc")
    defence.loss(network, images(4), torch.arange(4) % 3, step()).loss.backward()
    assert all(each.grad is None for each in network.network.parameters())
    assert all(each.grad is not None for each in network.detector.parameters())
    wanted = defence.sources[0].network.state_dict()
    assert all(torch.equal(each, wanted[name]) for name, each in network.network.state_dict().items())


class TwoSlopes(nn.Module):
    """Classifier and detector linear, so that the signs of their gradients are known."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier, self.detector = linear(2, seed=1), linear(1, seed=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.classifier(x), self.detector(x)], 1)


def test_a_static_adversary_climbs_the_classifiers_loss_and_a_dynamic_one_a_drawn_mixture() -> None:
    network, x, y = TwoSlopes(), images(low=0.3, high=0.7), torch.arange(6) % 2
    fooling = away_from(network.classifier, y)
    hiding = -network.detector[1].weight.data.sign().view(-1, 3, 8, 8)
    shares = []
    for adversary in ("static", "dynamic"):
        defence = Detector(EPS, step_size=0.5, steps=1, adversary=adversary, sources=(source(linear()),))  # type: ignore[arg-type]
        moved = (trained_on(network, defence, x, y, step())[1].chunk(2)[1] - x) / (0.5 * EPS)
        share = (1 - moved[fooling != hiding.expand_as(fooling)] * fooling[fooling != hiding.expand_as(fooling)]) / 2
        shares.append(share)
        same = fooling == hiding.expand_as(fooling)
        torch.testing.assert_close(moved[same], fooling[same], rtol=0, atol=1e-5)
    assert shares[0].abs().max() < 1e-5
    assert shares[1].min() > -1e-5
    assert shares[1].max() < 1 + 1e-5
    assert 2 <= len(shares[1].mul(1e4).round().unique()) <= 2 * 6  # one draw an image, up to rounding


def test_after_an_epoch_the_threshold_rejects_one_training_image_in_twenty() -> None:
    split = MemorySplit((images(40) * 255).to(torch.uint8), torch.arange(40) % 3, [str(i) for i in range(40)])
    defence = Detector(sources=(source(slim("plain10", seed=5)),))
    network = guarded(defence).eval()
    defence.settle(network, split, seed=0)
    score = network.score(split.images.float() / 255)
    assert (score > network.threshold).sum() == 2
    assert (score >= network.threshold).sum() == 3


def test_a_classifier_of_another_kind_is_refused() -> None:
    defence = Detector(sources=(source(slim("plain10")),))
    with pytest.raises(InputError, match="guards the network that is asked for, plain10_shc of width 4; got plain10"):
        defence.check(ModelConfig("plain10_shc", 3, width=4), CLASSES)
    defence.check(replace(defence.sources[0].config), CLASSES)
    assert defence.around(ModelConfig("plain10", 3)) == ModelConfig("plain10", 3, wrapper="detector:layer2")
    assert list(Detector().first(4).items()) == [("classifier", (Plain(), 4))]
    assert defence.first(4) == {}
