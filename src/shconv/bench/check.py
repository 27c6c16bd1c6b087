"""Is a result the definition's but for rounding? Asked of every formulation and layer before its speed is printed."""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from shconv.eval_mode import eval_mode
from shconv.ops import filtered_conv2d, reference
from shconv.ops.geometry import Geometry
from shconv.routes import shc_layers

Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]  # x, weight, M -> Y
Results = dict[str, Tensor]
_MAP_ROUNDING = 1e-3  # of a filter map from float32 statistics; a TF32 hypernetwork stays below it


def results(convolution: Convolution, x: Tensor, weight: Tensor, M: Tensor, dY: Tensor) -> Results:
    """The output and all gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, M)]
    Y = convolution(*leaves)
    return dict(zip(("Y", "dX", "dW", "dM"), (Y.detach(), *torch.autograd.grad(Y, leaves, dY)), strict=True))


def defined(x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, geometry: Geometry) -> Results:
    """What the definition gives for these very tensors, in float64."""

    def convolution(x: Tensor, weight: Tensor, M: Tensor) -> Tensor:
        return reference.filtered_conv2d(x, weight, M, None, *geometry)

    return results(convolution, x.double(), weight.double(), M.double(), dY.double())


def deviation(got: Results, wanted: Results, weight: Tensor) -> str:
    """What is wrong with results, "" where they differ by rounding only.

    Allowed, relative to a tensor's largest element: float32's epsilon times the root of the number of terms in its
    sums (rounding errors add up as a random walk), and two roundings of the dtype itself, or of TF32 on CUDA.
    """
    C, D, taps = weight.shape[0], weight.shape[1], weight[0, 0].numel()
    pixels = wanted["Y"][:, 0].numel()
    terms = {"Y": D * taps, "dX": C * taps, "dW": pixels, "dM": C * D * pixels // len(wanted["Y"])}
    coarse = 2**-10 if weight.device.type == "cuda" and weight.dtype == torch.float32 else 0.0
    for name, tensor in got.items():
        allowed = 2**-23 * terms[name] ** 0.5 + 2 * max(torch.finfo(weight.dtype).eps, coarse)
        error, largest = (float(each.abs().max()) for each in (tensor.double() - wanted[name], wanted[name]))
        if not error <= allowed * largest:  # NaN is not
            share = error / largest if largest else torch.inf
            return f"wrong {name}: off by {share:.1e} of its largest element, rounding explains {allowed:.1e}"
    return ""


def layers_deviation(network: nn.Module, images: Tensor) -> str:
    """What is wrong with the first wrong SHC layer, on what it gets when the network sees these images; "" if none.

    Layers of the same shape and stride are checked once. The network is left as it was.
    """
    seen: set[object] = set()
    found: list[str] = []

    def check(layer: nn.Module, arguments: tuple[Tensor]) -> None:
        x, kind = arguments[0].detach(), (arguments[0].shape, layer.weight.shape, layer.stride)
        if kind not in seen and not found:
            seen.add(kind)
            found.extend(filter(None, [_layer_deviation(layer, x)]))

    with ExitStack() as hooks, eval_mode(network), torch.no_grad():
        for layer in shc_layers(network).values():
            hooks.enter_context(layer.register_forward_pre_hook(check))
        network(images)
    return "".join(found)


@torch.enable_grad()
def _layer_deviation(layer: Any, x: Tensor) -> str:
    M = layer.filter_map(x).detach()
    with torch.autocast(x.device.type, enabled=False):
        with torch.no_grad():
            off = float((M - copy.deepcopy(layer).double().filter_map(x.double())).abs().max())
        if not off <= _MAP_ROUNDING:
            return f"wrong filter map: off by {off:.1e}, of values between 0 and 1"
        geometry = Geometry(layer.stride, layer.padding, layer.dilation, layer.groups)
        weight = layer.weight.detach().to(x.dtype)
        size = geometry.output_size(x, weight)
        noise = torch.randn(len(x), len(weight), *size, generator=torch.Generator().manual_seed(0))
        dY = noise.to(x)
        got = results(lambda x, weight, M: filtered_conv2d(x, weight, M, None, *geometry), x, weight, M, dY)
        wrong = deviation(got, defined(x, weight, M, dY, geometry), weight)
    return wrong or _whole_deviation(layer, x, dY)


def _whole_deviation(layer: Any, x: Tensor, dY: Tensor) -> str:
    """The layer as it is called, forward and backward: the convolution and its map may be one op."""
    exact = copy.deepcopy(layer).double()
    exact.hyper.register_forward_hook(lambda *_: None)  # whoever looks in gets the definition

    def gradients(layer: Any, x: Tensor) -> dict[str, Tensor]:
        leaf = x.detach().requires_grad_()
        parameters = {name: each for name, each in layer.named_parameters() if each.requires_grad}
        Y = layer.forward(leaf)
        found = torch.autograd.grad(Y, [leaf, *parameters.values()], dY.to(Y.dtype))
        return dict(zip(("Y", "dX", *(f"d {name}" for name in parameters)), (Y.detach(), *found), strict=True))

    got = gradients(layer, x)
    with torch.autocast(x.device.type, enabled=False):
        wanted = gradients(exact, x.double())
    allowed = _MAP_ROUNDING + 8 * torch.finfo(got["Y"].dtype).eps
    for name, tensor in got.items():
        error, largest = (float(each.abs().max()) for each in (tensor.double() - wanted[name], wanted[name]))
        if not error <= allowed * largest:
            return f"wrong {name} of the whole layer: off by {error:.1e}, of values up to {largest:.1e}"
    return ""
