"""The public interface: what exists with which arguments."""

import inspect
from typing import Any

import pytest

import shconv

SIGNATURES: dict[str, str] = {
    "SHConv2d": "in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, "
    "padding_mode='zeros', device=None, dtype=None, *, hidden_features=None, eps=1e-05, statistics=('mean', 'std'), "
    "activation='sigmoid', map_groups=1, gain=None",
    "to_shc": "model, where=is_3x3, start='identity', inplace=False, *, check=None, options",
    "to_vanilla": "model, images=None, inplace=False",
    "load_vanilla": "model, state, start='identity'",
    "conversion_report": "model, where=is_3x3",
    "is_3x3": "name, module",
    "gradient_route": "model, route, hypernetwork_weight=1.0",
    "constant_maps": "model, maps",
    "frozen_kernels": "model, x",
    "record_filter_maps": "model",
    "create_model": "name, num_classes=1000, in_channels=3, stem='imagenet', width=64, normalize=None, pretrained=None",
    "list_models": "pattern='*'",
    "ops.filtered_conv2d": "x, weight, filter_map, bias=None, stride=1, padding=0, dilation=1, groups=1, "
    "formulation='auto'",
    "ops.reference.filtered_conv2d": "x, weight, filter_map, bias=None, stride=1, padding=0, dilation=1, groups=1",
    "metrics.relative_confidence": "logits, labels",
    "metrics.relative_confidence_floored": "logits, labels",
    "metrics.rcd": "clean_logits, adversarial_logits, labels",
}


def resolve(name: str) -> Any:
    value: Any = shconv
    for part in name.split("."):
        value = getattr(value, part)
    return value


def written(value: Any) -> str:
    parts = []
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = getattr(parameter.default, "__name__", repr(parameter.default))
        parts.append(parameter.name if parameter.default is parameter.empty else f"{parameter.name}={default}")
    return ", ".join(parts)


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_public_name_takes_the_documented_arguments(name: str) -> None:
    assert written(resolve(name)) == SIGNATURES[name]


def test_the_layers_parts_have_their_documented_names() -> None:
    layer = shconv.SHConv2d(2, 3, 3)
    names = ["bias", "hyper.hidden.bias", "hyper.hidden.weight", "hyper.output.bias", "hyper.output.weight", "weight"]
    assert sorted(layer.state_dict()) == names
    assert written(layer.filter_map) == "x"


def test_all_names_what_the_package_offers() -> None:
    assert sorted(shconv.__all__) == list(shconv.__all__)
    assert {name.split(".")[0] for name in SIGNATURES} | {"InputError"} <= set(shconv.__all__)
    assert all(hasattr(shconv, name) for name in shconv.__all__)
    assert issubclass(shconv.InputError, ValueError)
    assert all(inspect.getdoc(resolve(name)) for name in SIGNATURES)
