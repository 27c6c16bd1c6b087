"""The hypernetwork's modules are modules: whatever is hooked to them, put in their place or done to their weights has
its effect, with the values of a layer computed by hand."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from shconv import SHConv2d
from shconv.layers import channel_statistics
from shconv.ops import reference
from shconv.untouched import plain_linear, untouched


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class LowRank(nn.Module):
    """A linear layer plus a product of two small ones, as adapters for fine-tuning have it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, s: Tensor) -> Tensor:
        result: Tensor = self.base(s) + self.up(self.down(s))
        return result


class Scaled(nn.Linear):
    def forward(self, s: Tensor) -> Tensor:
        return 3 * super().forward(s)


def layer_and_images(dtype: torch.dtype = torch.float32) -> tuple[SHConv2d, Tensor]:
    return SHConv2d(4, 6, 3, padding=1, dtype=dtype), torch.randn(3, 4, 6, 6, dtype=dtype)


def by_calling(layer: SHConv2d, x: Tensor) -> Tensor:
    """The layer's output, its hypernetwork's modules called one after the other."""
    s = channel_statistics(x)
    M = torch.sigmoid(layer.hyper.output(F.relu(layer.hyper.hidden(s)))).view(-1, 3, 3)
    return reference.filtered_conv2d(x, layer.weight, M, layer.bias, padding=1)


def lora(layer: SHConv2d) -> None:
    layer.hyper.hidden = LowRank(layer.hyper.hidden)  # type: ignore[assignment]


def sub_class(layer: SHConv2d) -> None:
    layer.hyper.output = Scaled(2, 9)


def replaced_method(layer: SHConv2d) -> None:
    linear = layer.hyper.hidden
    linear.forward = lambda s: F.linear(s, linear.weight, linear.bias).square()  # type: ignore[method-assign]


def parametrized(layer: SHConv2d) -> None:
    parametrize.register_parametrization(layer.hyper.hidden, "weight", Doubled())


def without_bias(layer: SHConv2d) -> None:
    layer.hyper.hidden = nn.Linear(8, 2, bias=False)


def pre_hook(layer: SHConv2d) -> None:
    layer.hyper.output.register_forward_pre_hook(lambda _, inputs: (inputs[0] + 1,))


def forward_hook(layer: SHConv2d) -> None:
    layer.hyper.hidden.register_forward_hook(lambda _, inputs, z: z * 2)


CHANGES: dict[str, Any] = {
    "forward hook": forward_hook,
    "forward pre-hook": pre_hook,
    "LoRA": lora,
    "a sub-class": sub_class,
    "forward replaced on the instance": replaced_method,
    "without bias": without_bias,
    "parametrisation": parametrized,
    "pruning": lambda layer: prune.l1_unstructured(layer.hyper.hidden, "weight", 0.5),
    "pruning of the output": lambda layer: prune.random_unstructured(layer.hyper.output, "weight", 0.5),
    "old weight norm": lambda layer: weight_norm(layer.hyper.hidden),
    "weight norm": lambda layer: parametrizations.weight_norm(layer.hyper.output),
    "orthogonal": lambda layer: parametrizations.orthogonal(layer.hyper.hidden),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", CHANGES)
def test_what_is_done_to_a_linear_layer_has_its_effect_in_both_directions_time_after_time(name: str) -> None:
    layer, x = layer_and_images()
    CHANGES[name](layer)
    for _ in range(3):  # a stale weight fails in the second backward pass
        X = x.clone().requires_grad_()
        Y, wanted = layer(X), by_calling(layer, X)
        torch.testing.assert_close(Y, wanted, rtol=1e-5, atol=1e-5)
        leaves = [X, *layer.parameters()]
        found, right = (torch.autograd.grad(each.square().sum(), leaves) for each in (Y, wanted))
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.01)


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("normed", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norm_moves_its_vectors_at_every_training_pass(normed: Any) -> None:
    layer, x = layer_and_images()
    layer.hyper.hidden.weight.data *= 10
    normed(layer.hyper.hidden)
    buffers = [buffer.clone() for buffer in layer.hyper.buffers()]
    layer(x).sum().backward()
    layer(x).sum().backward()
    assert any(not torch.equal(*pair) for pair in zip(buffers, layer.hyper.buffers(), strict=True))
    layer.eval()
    torch.testing.assert_close(layer(x), by_calling(layer, x), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # torch.ao is on its way to another package, and says so
def test_dynamic_quantization_of_the_linear_layers_is_used() -> None:
    layer, x = layer_and_images()
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(layer), {nn.Linear}, torch.qint8)
    assert type(quantized.hyper.hidden) is not nn.Linear
    with torch.no_grad():
        torch.testing.assert_close(quantized(x), by_calling(quantized, x), rtol=1e-5, atol=1e-5)
        assert not torch.equal(quantized(x), layer(x))


@pytest.mark.parametrize("of", ["hyper", "hyper.hidden", "hyper.output"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_every_kind_of_hook_fires_once_a_pass_and_no_more_after_its_removal(of: str, kind: str) -> None:
    layer, x = layer_and_images()
    calls: list[str] = []
    handle = getattr(layer.get_submodule(of), f"register_{kind}_hook")(lambda *_: calls.append(kind))
    for number in (1, 2):
        layer(x.clone().requires_grad_()).sum().backward()
        assert len(calls) == number
    handle.remove()
    layer(x.clone().requires_grad_()).sum().backward()
    assert len(calls) == 2
    assert untouched(layer.hyper)
    assert plain_linear(layer.hyper.hidden)


def test_hooks_on_all_modules_see_the_linear_layers() -> None:
    layer, x = layer_and_images()
    seen: list[type] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        layer(x)
    finally:
        handle.remove()
    assert seen.count(nn.Linear) == 2


def test_a_module_in_the_place_of_the_hypernetwork_is_called() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3, 3), 0.5)

    layer, x = layer_and_images()
    layer.hyper = Halves()  # type: ignore[assignment]
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight / 2, layer.bias, padding=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_hooked_layer_of_another_precision_is_called_in_it(dtype: torch.dtype) -> None:
    layer, x = layer_and_images(dtype)
    seen: list[torch.dtype] = []
    plain = layer.filter_map(x)
    layer.hyper.hidden.register_forward_hook(lambda _, inputs, z: seen.append(z.dtype))
    hooked = layer.filter_map(x)
    assert seen == [dtype]
    assert hooked.dtype == plain.dtype
    torch.testing.assert_close(hooked, plain, rtol=0.05, atol=0.05)
