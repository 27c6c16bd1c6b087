"""FLOPs for counters that go by a module's class instead of by ops. torch.utils.flop_counter needs nothing from here:
it counts our ops as torch's. Others are told in their own words:

    thop.profile(model, (x,), custom_ops=shconv.flops.thop())
    ptflops.get_model_complexity_info(model, (3, 224, 224), backend="pytorch",
                                      custom_modules_hooks=shconv.flops.ptflops())
    fvcore.nn.FlopCountAnalysis(model, x).set_op_handle(**shconv.flops.fvcore())

All three count one for a multiplication and an addition together. torchinfo counts modules without children only, and
offers no way to add to them: of an SHC layer its "mult-adds" hold the two linear layers of the hypernetwork, not the
convolution.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from shconv.layers import SHConv2d
from shconv.ops import flops
from shconv.relatives import Relative


def macs(layer: SHConv2d | Relative, x: Tensor, Y: Tensor) -> int:
    """Multiply-accumulates of one call, x (N, D, H, W) -> Y: the convolution, and the hypernetwork's linear layers or
    what else makes a relative's kernel."""
    if isinstance(layer, Relative):
        return layer.macs(x, Y)
    linear = sum(each.weight.numel() for each in layer.hyper.modules() if isinstance(each, nn.Linear))
    return flops.convolution(x.shape, layer.weight.shape, Y.shape) // 2 + len(x) * linear


def thop() -> dict[type[nn.Module], Callable[..., None]]:
    """What thop.profile takes as custom_ops."""

    def count(layer: Any, inputs: Sequence[Tensor], Y: Tensor) -> None:
        layer.total_ops += macs(layer, inputs[0], Y)

    return dict.fromkeys(_classes(), count)


def ptflops() -> dict[type[nn.Module], Callable[..., None]]:
    """custom_modules_hooks of ptflops.get_model_complexity_info, backend "pytorch"."""

    def count(layer: Any, inputs: Sequence[Tensor], Y: Tensor) -> None:
        layer.__flops__ += macs(layer, inputs[0], Y)

    return dict.fromkeys(_classes(), count)


def fvcore() -> dict[str, Callable[..., int]]:
    """Keyword arguments of fvcore's FlopCountAnalysis.set_op_handle."""

    def filtered(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        return flops.convolution(_shape(inputs[0]), _shape(inputs[1]), _shape(outputs[0])) // 2

    def layer(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        linear = flops.hypernetwork(_shape(inputs[0])[0], _shape(inputs[2]), _shape(inputs[4])) // 2
        return filtered(inputs, outputs) + linear

    return {"shconv::filtered_conv2d": filtered, "shconv::layer": layer}


def _classes() -> list[type[nn.Module]]:
    """SHConv2d, the relatives and what is derived from them: counters look a class up exactly."""
    found: list[type[nn.Module]] = [SHConv2d, Relative]
    for each in found:
        found.extend(each.__subclasses__())
    return found


def _shape(value: Any) -> list[int]:
    sizes: list[int] = value.type().sizes()
    return sizes
