"""A classifier with a detector: what it returns, what stays frozen, and where the joint logits are wrong."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import shconv
from shconv.errors import InputError
from shconv.models.detector import DetectorNetwork
from shconv.models.wrapped import wrapped
from shconv.training import ModelConfig, load_checkpoint, save_checkpoint


def images(n: int = 6) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def guarded(name: str = "plain10", layer: str = "layer2") -> DetectorNetwork:
    torch.manual_seed(0)
    return DetectorNetwork(shconv.create_model(name, num_classes=5, stem="small", width=4), layer)


@pytest.mark.parametrize("name", ["plain10", "plain10_shc", "resnet18", "resnet50_shc"])
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer4", "conv1"])
def test_in_eval_mode_it_is_its_classifier_and_in_train_mode_the_detectors_logit_stands_last(
    name: str, layer: str
) -> None:
    network, x = guarded(name, layer), images()
    network.eval()
    assert torch.equal(network(x), network.network(x))
    logits, score = network.both(x)
    assert torch.equal(logits, network(x))
    assert torch.equal(score, network.score(x))
    assert score.shape == (6,)
    twin = copy.deepcopy(network)
    logits, score = twin.train().both(x)
    torch.testing.assert_close(network.train()(x), torch.cat([logits, score[:, None]], 1))


def test_its_score_is_what_the_detector_makes_of_the_layer() -> None:
    network, x = guarded().eval(), images()
    part = network.network
    features = part.layer2(part.layer1(part.relu(part.bn1(part.conv1(x)))))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(network.score(x), network.detector(features))
    assert not part.get_submodule("layer2")._forward_hooks


def test_a_frozen_classifier_stays_in_eval_mode_and_another_does_not() -> None:
    network = guarded().train()
    assert network.network.training
    network.network.requires_grad_(False)
    network.train()
    assert not any(each.training for each in network.network.modules())
    assert all(each.training for each in network.detector.modules())
    before = {name: each.clone() for name, each in network.network.state_dict().items()}
    network(images())
    assert all(torch.equal(before[name], each) for name, each in network.network.state_dict().items())


@given(threshold=st.floats(-2, 2), label=st.integers(0, 4), seed=st.integers(0, 20))
def test_joint_logits_are_wrong_exactly_where_the_classifier_is_and_the_detector_is_silent(
    threshold: float, label: int, seed: int
) -> None:
    class Given(DetectorNetwork):
        def __init__(self, logits: Tensor, score: Tensor) -> None:
            nn.Module.__init__(self)
            self.given = logits, score
            self.threshold = torch.tensor(threshold)

        def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.given

    draw = torch.Generator().manual_seed(seed)
    logits, score = torch.randn(50, 5, generator=draw), torch.randn(50, generator=draw)
    joint = Given(logits, score).joint(images(50), label)
    assert torch.equal(joint.argmax(1) != label, (logits.argmax(1) != label) & (score <= threshold))
    others = torch.arange(5) != label
    assert torch.equal(joint[:, others], logits[:, others])


def test_its_gradient_goes_to_the_classifier_or_the_detector_whichever_is_still_to_be_fooled() -> None:
    network, x, y = guarded().eval(), images(1).requires_grad_(), 2
    logits, score = network.both(x)
    others = logits.clone()
    others[:, y] = -torch.inf
    for threshold, wanted in ((1e3, logits[0, y]), (-1e3, others.amax() + score[0])):
        network.threshold.fill_(threshold)
        (gradient,) = torch.autograd.grad(network.joint(x, y)[0, y], x)
        (closed,) = torch.autograd.grad(wanted, x, retain_graph=True)
        torch.testing.assert_close(gradient, closed)


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ("detector:layer9", "no layer 'layer9' that gives feature maps; it has conv1, bn1, layer1, layer2"),
        ("detector:", "no layer ''"),
        ("detector:relu", "no layer 'relu'"),
        ("detector", "no network around another called 'detector'; wanted: detector:..."),
        ("os:system", "no network around another called 'os:system'"),
        (3, "no network around another called 3"),
    ],
)
def test_another_wrapper_is_refused(wrapper: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrapped(shconv.create_model("plain10", num_classes=3, stem="small", width=4), wrapper)


@pytest.mark.parametrize("name", ["plain10", "resnet18_shc"])
def test_a_checkpoint_builds_it_again(tmp_path, name: str) -> None:
    config = ModelConfig(name, 3, stem="small", width=4, wrapper="detector:layer1")
    network, x = config.build(), images()
    network(x)  # other running statistics
    assert isinstance(network, DetectorNetwork)
    network.threshold.fill_(0.25)
    save_checkpoint(tmp_path, network, {"model": vars(config)})
    again, known, _ = load_checkpoint(tmp_path)
    assert known == config
    assert isinstance(again, DetectorNetwork)
    network.eval()
    for here, there in zip((*again.both(x), again.threshold), (*network.both(x), network.threshold), strict=True):
        assert torch.equal(here, there)
