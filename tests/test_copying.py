"""Copies of networks that copy.deepcopy refuses, and the words where there is none."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm

import shconv
from shconv.copying import copied
from shconv.errors import InputError
from shconv.export import plain_program


def pruned(conv: nn.Module) -> None:
    prune.random_unstructured(conv, "weight", 0.5)


def twice_pruned(conv: nn.Module) -> None:
    pruned(conv)
    prune.ln_structured(conv, "weight", 0.3, n=2, dim=0)
    prune.l1_unstructured(conv, "bias", 1)


def remembering(conv: nn.Module) -> None:
    """Keeps what it made of the last images, in the middle of their graph."""
    conv.register_forward_hook(lambda module, _, Y: vars(module).update(seen=Y, all=[Y]))


DERIVED: dict[str, Callable[[nn.Module], object]] = {
    "pruned": pruned,
    "pruned twice": twice_pruned,
    "weight norm": weight_norm,
    "spectral norm": spectral_norm,
    "remembering": remembering,
}


@pytest.fixture(params=DERIVED.values(), ids=list(DERIVED))
def net(request: Any) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    request.param(model[0])
    model(torch.rand(2, 3, 8, 8))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    return model.eval()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_copy_computes_the_same_and_learns_by_itself(net: nn.Module) -> None:
    x = torch.rand(2, 3, 8, 8)
    expected = net(x)
    other = copied(net, "")
    torch.testing.assert_close(other(x), expected)
    for _ in range(2):
        other(x).sum().backward()
    assert all(p.grad is not None for p in other.parameters())
    assert all(p.grad is None for p in net.parameters())
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    torch.testing.assert_close(net(x), expected)
    assert not torch.allclose(other(x), expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_it_is_converted(net: nn.Module) -> None:
    x = torch.rand(2, 3, 8, 8)
    converted = shconv.to_shc(net, check=x)
    assert isinstance(converted[0], shconv.SHConv2d)
    torch.testing.assert_close(converted(x), net(x))
    torch.testing.assert_close(shconv.to_vanilla(converted)(x), net(x))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_all_of_them_in_a_row_are_exported() -> None:
    row, x = nn.Sequential(*(nn.Conv2d(3, 3, 2) for _ in DERIVED)), torch.rand(2, 3, 8, 7)
    for conv, derive in zip(row, DERIVED.values(), strict=True):
        derive(conv)
    converted = shconv.to_shc(row.eval(), where=2, check=x)
    torch.testing.assert_close(plain_program(converted, x).module()(x), row(x), rtol=1e-4, atol=1e-5)


def test_what_has_no_copy_is_named_with_the_way_out() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)))
    model[1][1].lock = threading.Lock()
    with pytest.raises(InputError, match=r"because of the Conv2d 1\.1 \(TypeError: .*lock.*inplace=True"):
        shconv.to_shc(model)
    with pytest.raises(InputError, match=r"Conv2d 1\.1 .*to_onnx works on a copy"):
        plain_program(model, torch.rand(1, 3, 8, 8))
    converted = shconv.to_shc(model, inplace=True)
    with pytest.raises(InputError, match=r"SHConv2d 1\.1 .*inplace=True"):
        shconv.to_vanilla(converted)
