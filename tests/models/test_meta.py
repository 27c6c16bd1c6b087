"""Networks whose tensors are made later or anew: what is no part of a state_dict is right all the same."""

import copy
import io
from collections.abc import Callable
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import shconv
from shconv import SHConv2d
from shconv.models.normalize import Normalize, _kept


def build(normalize: Any = "imagenet") -> nn.Module:
    return shconv.create_model("plain10_shc", num_classes=5, stem="small", width=4, normalize=normalize)


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return build()


def emptied(model: nn.Module) -> nn.Module:
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(float("nan") if tensor.is_floating_point() else -1)  # what memory may hold
    return model


def loaded(model: nn.Module, state: dict[str, Tensor], **options: Any) -> nn.Module:
    assert str(model.load_state_dict(state, **options)) == "<All keys matched successfully>"
    return model


def under_accelerate(state: dict[str, Tensor]) -> nn.Module:
    with accelerate.init_empty_weights(include_buffers=True):
        model = build()
    return loaded(model, state, assign=True)


def under_fake_tensors(state: dict[str, Tensor]) -> nn.Module:
    with FakeTensorMode():
        model = build()
        model(torch.rand(2, 3, 8, 8))
    return loaded(model, state, assign=True)


def module_by_module(state: dict[str, Tensor]) -> nn.Module:
    """As FSDP makes a meta network real; it wants reset_parameters of every module with tensors of its own."""
    model = on_meta()
    for module in model.modules():
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            module.to_empty(device="cpu", recurse=False)
            module.reset_parameters()  # type: ignore[operator]
    return loaded(model, state)


def stored_whole(state: dict[str, Tensor]) -> nn.Module:
    file = io.BytesIO()
    torch.save(loaded(build(), state), file)
    file.seek(0)
    model: nn.Module = torch.load(file, weights_only=False)
    return model


WAYS: dict[str, Callable[[dict[str, Tensor]], nn.Module]] = {
    "to_empty": lambda state: loaded(emptied(on_meta()), state),
    "assign": lambda state: loaded(on_meta(), state, assign=True),
    "to_empty of a copy": lambda state: loaded(emptied(copy.deepcopy(on_meta())), state),
    "emptied on the CPU": lambda state: loaded(emptied(build()), state, assign=True),
    "another dtype and back": lambda state: loaded(on_meta().half().to_empty(device="cpu").float(), state),
    "accelerate": under_accelerate,
    "fake tensors": under_fake_tensors,
    "module by module": module_by_module,
    "stored whole": stored_whole,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_a_network_made_later_normalises_as_one_made_at_once(way: Callable[[dict[str, Tensor]], nn.Module]) -> None:
    model, x = build(), torch.rand(4, 3, 8, 8)
    model(x)  # batch norm's statistics
    with torch.no_grad():
        actual, expected = way(model.state_dict()).eval()(x), model.eval()(x)
    assert expected.isfinite().all()
    assert torch.equal(actual, expected)


def test_constants_follow_the_images_dtype_and_device() -> None:
    layer, x = Normalize((0.5, 0.25), (0.5, 2.0)), torch.rand(2, 2, 3, 3, dtype=torch.float64)
    expected = torch.stack([(x[:, 0] - 0.5) / 0.5, (x[:, 1] - 0.25) / 2], 1)
    torch.testing.assert_close(layer(x), expected)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        torch.testing.assert_close(layer.to(dtype)(x.to(dtype)), expected.to(dtype), rtol=0.02, atol=0.02)
    assert layer(x.to("meta")).is_meta
    assert layer((255 * x).to(torch.uint8)).dtype == torch.float32
    torch.testing.assert_close(torch.func.vmap(layer)(x[None]), expected[None])
    assert torch.func.jacrev(layer)(x[:1, :, :1, :1]).unique().tolist() == [0.0, 0.5, 2.0]


def test_a_constant_first_used_in_inference_mode_serves_gradients_later() -> None:
    with torch.inference_mode():
        std = _kept((0.123, 0.5), torch.float32, torch.device("cpu"))
    x = torch.ones(1, 2, 1, 1, requires_grad=True)
    (x / std).prod().backward()
    assert x.grad is not None


def test_a_gain_comes_back_from_a_state_dict_and_from_a_reset() -> None:
    layer = SHConv2d(3, 4, 3, gain=2.0)
    with torch.device("meta"):
        other = SHConv2d(3, 4, 3, gain=2.0)
    x = torch.rand(2, 3, 5, 5)
    assert torch.equal(loaded(copy.deepcopy(other).to_empty(device="cpu"), layer.state_dict())(x), layer(x))
    assert torch.equal(loaded(copy.deepcopy(other), layer.state_dict(), assign=True)(x), layer(x))
    emptied(other)
    for module in other.modules():
        module.reset_parameters()  # type: ignore[operator]
    assert float(other.hyper.gain) == 2.0
    assert other(x).isfinite().all()
