"""Networks that people use, torchvision's and timm's: to_shc changes none of their logits, and to_vanilla goes back."""

import pytest
import torch
from tested_networks import CASES, Case, difference, photographs, trained_in_a_way

from shconv import SHConv2d, conversion_report, to_shc, to_vanilla

networks = [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in CASES]


def test_the_list_is_as_long_as_it_is_said_to_be() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    assert sum(not case.slow for case in CASES) >= 24


@torch.no_grad()
@pytest.mark.parametrize("case", networks)
def test_the_identity_start_changes_no_logit_and_undoing_it_no_bit(case: Case) -> None:
    net, x = trained_in_a_way(case), photographs(case.side)[:3]
    expected = net(x)
    assert difference(expected.mean(0), expected) > 1e-3  # the images matter
    converted = to_shc(net, where=case.where)
    assert difference(converted(x), expected) < 1e-3  # float32, through up to a hundred layers that amplify it
    assert any(row.converted for row in conversion_report(converted).rows)
    back = to_vanilla(converted)
    assert [type(module) for module in back.modules()] == [type(module) for module in net.modules()]
    before, after = net.state_dict(), back.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    for layer in converted.modules():
        if isinstance(layer, SHConv2d):
            layer.hyper.output.bias.add_(torch.linspace(-1, 1, layer.hyper.output.bias.numel()))
    assert difference(converted(x), expected) > 1e-3  # the maps matter


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm lcnet_050", "timm dla46_c", "timm test_nfnet", "timm mobilenetv2_050"])
def test_what_float32_leaves_is_rounding_for_in_float64_it_is_gone(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    net, x = trained_in_a_way(case).double(), photographs(case.side)[:3].double()
    assert difference(to_shc(net, where=case.where)(x), net(x)) < 1e-12


@pytest.mark.parametrize("name", ["timm regnetx_002", "timm test_nfnet", "timm tf_mobilenetv3_small_minimal_100"])
def test_a_gradient_reaches_every_parameter_of_a_converted_network(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    net = to_shc(trained_in_a_way(case), where=case.where)
    for layer in net.modules():
        if isinstance(layer, SHConv2d):
            layer.hyper.output.reset_parameters()  # at the identity start the hidden layer meets a zero
            layer.hyper.hidden.bias.data.fill_(1)  # and with few neurons all may be silent
    net(photographs(case.side)).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if ".hyper." in name and (p.grad is None or not p.grad.any())]
    assert silent == []


@pytest.mark.parametrize("name", ["torchvision resnet18", "timm regnetx_002"])
def test_at_the_identity_start_the_last_layers_learn_first(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    net = to_shc(trained_in_a_way(case), where=case.where)
    net(photographs(case.side)).square().sum().backward()
    for layer in net.modules():
        if isinstance(layer, SHConv2d):
            last, first = layer.hyper.output.weight.grad, layer.hyper.hidden.weight.grad
            assert last is not None
            assert last.any()
            assert first is not None
            assert not first.any()
