"""create_model(pretrained=): the weights that somebody has, wherever they stand, and nothing that does not fit."""

import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch

from shconv import InputError, create_model
from shconv.pretrained import save_pretrained

SMALL = {"num_classes": 3, "stem": "small", "width": 4}
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["folder", "safetensors", "torch.save", "wrapped", "state_dict"])
def test_the_same_network_comes_back_without_a_warning(kind: str, tmp_path: Path) -> None:
    network = create_model("plain10_shc", **SMALL).eval()
    state = network.state_dict()
    given: object = tmp_path / "weights.pth"
    if kind == "folder":
        given = save_pretrained(network, tmp_path / "folder")
    elif kind == "safetensors":
        given = str(tmp_path / "weights.safetensors")
        safetensors.torch.save_file(state, given)
    elif kind == "torch.save":
        torch.save(state, given)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "model": {f"module.{name}": tensor for name, tensor in state.items()}}, given)
    else:
        given = state
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = create_model("plain10_shc", **SMALL, pretrained=given).eval()
    assert torch.equal(again(IMAGES), network(IMAGES))


def test_for_other_classes_all_but_the_head_is_kept_and_that_is_said() -> None:
    state = create_model("resnet18", **SMALL).state_dict()
    with pytest.warns(UserWarning, match="has 3 classes, the network 5: its head fc is new"):
        other = create_model("resnet18", **SMALL | {"num_classes": 5}, pretrained=state).state_dict()
    assert {name for name in state if not torch.equal(state[name], other[name])} == {"fc.weight", "fc.bias"}
    assert other["fc.weight"].shape[0] == 5


def test_weights_of_another_network_are_refused_with_what_does_not_fit(tmp_path: Path) -> None:
    state = create_model("plain10", **SMALL).state_dict()
    with pytest.raises(InputError, match=r"does not hold this network's weights: missing .*hyper"):
        create_model("plain10_shc", **SMALL, pretrained=state)
    with pytest.raises(InputError, match=r"is \(4, 3, 3, 3\), wanted \(8, 3, 3, 3\)"):
        create_model("plain10", **SMALL | {"width": 8}, pretrained=state)
    with pytest.raises(InputError, match="there is no file"):
        create_model("plain10", **SMALL, pretrained=tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="no state_dict"):
        create_model("plain10", **SMALL, pretrained={"a": 1})
