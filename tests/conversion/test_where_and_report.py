"""Which convolutions where= picks, and what the report says of the rest."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import shconv
from shconv import SHConv2d, conversion_report, to_shc
from shconv.errors import InputError
from toys import words


def net() -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    return nn.Sequential(nn.Conv2d(3, 8, 7), block, nn.Conv2d(4, 4, (3, 1)), nn.Conv2d(4, 2, 3), nn.Conv1d(2, 2, 3))


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (3, ["1.0", "3"]),
        ((3, 1), ["2"]),
        ([3, 7], ["0", "1.0", "3"]),
        ([3, (3, 1)], ["1.0", "2", "3"]),
        ("1.*", ["1.0", "1.2"]),
        ("3", ["3"]),
        (["3", "0"], ["0", "3"]),
        (("1.0", lambda _, m: isinstance(m, nn.Conv2d) and m.kernel_size == (7, 7)), ["0", "1.0"]),
        (lambda name, m: isinstance(m, nn.Conv2d) and m.groups > 1, ["1.0"]),
    ],
    ids=words,
)
def test_where_takes_kernels_names_patterns_predicates_and_lists(where: Any, names: list[str]) -> None:
    converted = to_shc(net(), where=where)
    assert [name for name, module in converted.named_modules() if isinstance(module, SHConv2d)] == names


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("1.1", "1.1 is a BatchNorm2d, not an nn.Conv2d"),
        ("layer.0", r"where='layer.0' picks no convolution of Sequential; it has "),
        ("1.3", "did you mean 1.0 or 1.2|did you mean 1.2 or 1.0"),
        ([3, 5], "where=5 picks no convolution"),
        (None, "where: got None; want a function, a string, an integer"),
        ("4", "4 is a Conv1d"),
    ],
)
def test_where_that_picks_nothing_or_the_wrong_thing_is_said(where: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        to_shc(net(), where=where)


def test_a_shared_convolution_is_picked_by_any_of_its_names() -> None:
    shared = nn.Conv2d(3, 3, 3)
    converted = to_shc(nn.ModuleDict({"a": shared, "b": shared}), where="b")
    assert converted["a"] is converted["b"]
    assert isinstance(converted["a"], SHConv2d)


def test_the_report_counts_and_explains() -> None:
    rows = {row.name: row for row in conversion_report(to_shc(net())).rows}
    assert {name: (row.converted, row.reason) for name, row in rows.items()} == {
        "0": (False, "where= does not pick it"),
        "1.0": (True, ""),
        "1.2": (False, "where= does not pick it"),
        "2": (False, "where= does not pick it"),
        "3": (True, ""),
        "4": (False, "a Conv1d, not an nn.Conv2d"),
    }
    assert (rows["2"].kernel, rows["1.0"].groups, rows["3"].in_channels, rows["3"].out_channels) == ("3x1", 8, 4, 2)
    assert (rows["3"].before, rows["3"].after) == (4 * 2 * 9 + 2, 4 * 2 * 9 + 2 + 8 * 2 + 2 + 2 * 9 + 9)


def test_before_conversion_the_report_is_a_forecast() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(3, 3), nn.Conv2d(3, 3, 3), timm.layers.CondConv2d(4, 4, 3))
    reasons = [row.reason for row in conversion_report(lazy).rows]
    assert reasons[0].startswith("refused: a LazyConv2d, lazy")
    assert reasons[1] == "where= picks it"
    assert reasons[2] == "a CondConv2d, not an nn.Conv2d"


def test_the_report_prints_a_line_for_each_convolution_and_the_growth() -> None:
    with torch.device("meta"):
        model = torchvision.models.mobilenet_v2()
    report = conversion_report(to_shc(model))
    assert report.before == sum(p.numel() for p in model.parameters())
    inputs = [m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    added = sum((2 * D + 1) * max(1, D // 2) + (max(1, D // 2) + 1) * 9 for D in inputs)
    assert report.after - report.before == added
    lines = str(report).splitlines()
    assert len(lines) == len(report.rows) + 2
    assert lines[-1].startswith("18 of 52 convolutions are SHC; parameters 3,504,872 -> 8,052,986")
    assert lines[-1].endswith("(+129.8%)")


def test_a_weight_that_several_layers_share_is_counted_once() -> None:
    tied = nn.Sequential(nn.Conv2d(3, 3, 3, bias=False), nn.Conv2d(3, 3, 3, bias=False))
    tied[1].weight = tied[0].weight
    assert conversion_report(to_shc(tied)).before == 81


# a check on an example input


class ReadsTheWeight(nn.Module):
    """Code as it stands in many repositories: the module is there for its parameters only."""

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        self.conv, self.read, self.times = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, bias=False), times

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(self.conv(x), self.read.weight * self.times)


class Regularised(nn.Module):
    """A convolution that runs, and whose weight the output also holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.conv(x), {"penalty": self.conv.weight.square().sum()}


@pytest.mark.parametrize("start", ["identity", "random"])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_weight_read_past_its_layer_is_found_and_the_network_left_whole(start: Any, inplace: bool) -> None:
    model, x = ReadsTheWeight().eval(), torch.randn(2, 3, 9, 9)
    expected = model(x)
    with pytest.raises(InputError, match=r"^read: other code reads the weight of this convolution directly"):
        to_shc(model, start=start, inplace=inplace, check=x)
    assert torch.equal(model(x), expected)
    assert not any(isinstance(module, SHConv2d) for module in model.modules())
    assert isinstance(to_shc(model, where="conv", start=start, inplace=inplace, check=x).conv, SHConv2d)


def test_outputs_that_the_identity_start_should_not_change_are_compared() -> None:
    with pytest.raises(InputError, match=r"differs from the original by .* times what rounding explains"):
        to_shc(Regularised(), check=(torch.randn(2, 3, 9, 9),))


def test_a_part_that_does_not_run_is_no_reason_to_refuse() -> None:
    inception = torchvision.models.GoogLeNet(num_classes=4, init_weights=False, aux_logits=True)
    x = torch.rand(1, 3, 64, 64)
    converted = to_shc(inception, where=[3, "aux1.*"], check=x)
    assert converted.training
    assert isinstance(converted.aux1.conv.conv, SHConv2d)


def test_the_examples_of_the_public_package_are_there() -> None:
    assert str(shconv.conversion_report(shconv.create_model("resnet18_shc", width=8))).count(" SHC ") == 16
