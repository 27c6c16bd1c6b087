"""Relatives that timm has too give timm's numbers."""

import timm.layers
import torch
from torch import Tensor, nn

from shconv.relatives import CondConv2d, SEConv2d


def images() -> Tensor:
    return torch.randn(3, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def test_condconv_is_timms() -> None:
    layer = CondConv2d(8, 6, 3, stride=2, padding=1, groups=2, bias=False, experts=3)
    theirs = timm.layers.CondConv2d(8, 6, 3, stride=2, padding=1, groups=2, num_experts=3)
    assert layer.experts.shape == theirs.weight.shape
    theirs.weight = layer.experts
    r = torch.sigmoid(layer.routing(images().mean((2, 3))))
    torch.testing.assert_close(layer(images()), theirs(images(), r))


def test_se_is_timms_behind_the_convolution() -> None:
    layer, theirs = SEConv2d(8, 32, 3, padding=1), timm.layers.SqueezeExcite(32)
    assert theirs.fc1.weight.shape[:2] == layer.hidden.weight.shape
    for own, other in ((layer.hidden, theirs.fc1), (layer.output, theirs.fc2)):
        other.weight, other.bias = nn.Parameter(own.weight[..., None, None]), own.bias
    convolved = layer.convolve(images(), layer.weight)
    torch.testing.assert_close(layer(images()), theirs(convolved))
