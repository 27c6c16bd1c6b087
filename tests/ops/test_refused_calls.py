"""Calls that filtered_conv2d refuses, and what it says about them."""

from typing import Any

import pytest
import torch

from shconv.errors import InputError
from shconv.ops import filtered_conv2d

X, W, M = torch.zeros(2, 4, 5, 5), torch.zeros(6, 4, 3, 3), torch.zeros(2, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"formulation": "fft"}, "'fft'.*grouped"),
        ({"formulation": "shifted", "stride": 2}, r"shifted.*stride must be 1, got \(2, 2\)"),
        ({"formulation": "shifted", "groups": 2, "weight": W[:, :2]}, "shifted.*groups must be 1, got 2"),
        ({"x": X[0]}, r"\(4, 5, 5\)"),
        ({"weight": W[0]}, r"\(4, 3, 3\)"),
        ({"weight": W[0], "padding": "same"}, r"\(4, 3, 3\)"),
        ({"x": X[:, :3]}, "3 channels"),
        ({"groups": 4, "weight": W[:, :1]}, "groups=4"),
        ({"groups": 0}, "groups=0"),
        ({"filter_map": M[:1]}, r"\(2, 3, 3\).*\(1, 3, 3\)"),
        ({"filter_map": M[:, :2]}, r"\(2, 3, 3\).*\(2, 2, 3\)"),
        ({"filter_map": M[:, None, None]}, r"\(2, 1, 1, 3, 3\)"),
        ({"x": X.to(torch.uint8)}, "uint8"),
        ({"filter_map": M.long()}, "int64"),
        ({"x": X.double()}, "float64.*float32"),
        ({"weight": W.double()}, "float32.*float64"),
        ({"weight": W.to("meta")}, "cpu, meta"),
        ({"x": X[..., :2]}, r"does not fit.*\(5, 2\)"),
        ({"dilation": 3}, r"dilation \(3, 3\)"),
        ({"x": X[:, :, :0], "padding": 2}, r"\(2, 4, 0, 5\)"),
        ({"x": X[:, :0], "weight": W[:, :0]}, r"\(2, 0, 5, 5\)"),
        ({"weight": W[:0], "formulation": "grouped"}, r"\(0, 4, 3, 3\)"),
        ({"stride": 1.5}, "stride.*1.5"),
        ({"padding": "full"}, "'full'"),
        ({"padding": "same", "stride": 2}, r"same.*\(2, 2\)"),
        ({"padding": -1}, "padding.*-1"),
        ({"stride": 0}, "stride.*0"),
        ({"dilation": 0}, "dilation.*0"),
        ({"stride": (1, 1, 1)}, r"stride.*\(1, 1, 1\)"),
        ({"bias": torch.zeros(5)}, r"bias.*\(6,\).*\(5,\)"),
        ({"bias": torch.zeros(1)}, r"bias.*\(6,\).*\(1,\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_call_that_cannot_be_served_says_what_was_given(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        filtered_conv2d(**{"x": X, "weight": W, "filter_map": M, **arguments})
