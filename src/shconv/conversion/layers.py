"""One convolution -> its SHC layer, and back: the same parameters, buffers, hooks, parametrisations and settings under
another class, with a hypernetwork or without."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from shconv.conversion.timm_layers import TIMM_LAYERS, StandardizedSHConv2d
from shconv.layers import SHConv2d

_COMPUTES = {"forward", "_conv_forward", "__call__", "weight", "bias"}  # a class that has one has its own way
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def reason_against(module: nn.Module) -> str:
    """Why the module cannot become an SHC layer; "" if it can."""
    kind = type(module).__name__
    if isinstance(module, SHConv2d):
        return f"a {kind} already"
    if isinstance(module, torch.jit.ScriptModule):
        return f"a {kind}, scripted: convert before scripting"
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        return f"a {kind}, lazy: run the network once, then convert"
    if not isinstance(module, nn.Conv2d):
        return f"a {f'{type(module).__module__}.' if kind == 'Conv2d' else ''}{kind}, not an nn.Conv2d"
    if "forward" in vars(module):
        return f"a {kind} whose forward was replaced on the instance"
    return "" if shc_class(module) else f"a {kind}, an nn.Conv2d with a forward of its own"


def shc_class(conv: nn.Conv2d) -> type[SHConv2d] | None:
    """The SHC layer that computes with a filtered kernel what this class computes; None where that is not known."""
    classes = parametrize.type_before_parametrizations(conv).__mro__
    owner = next(each for each in classes if _COMPUTES & vars(each).keys())
    if owner is nn.Conv2d:
        return SHConv2d
    return TIMM_LAYERS.get(owner.__name__) if owner.__module__.split(".")[0] == "timm" else None


def to_layer(conv: nn.Conv2d, borrowed: bool, **options: Any) -> SHConv2d:
    """The SHC layer of a convolution against which there is no reason; its hypernetwork is drawn anew.

    borrowed: others have a part in the weight, so that it cannot be doubled. As where the kernel is computed from the
    weight, the layer then has a gain.
    """
    cls = shc_class(conv)
    assert cls is not None
    layer = recast(conv, cls)
    layer.vanilla_class = parametrize.type_before_parametrizations(conv)
    some: Tensor | None = next(conv.parameters(), None)
    some = conv.weight if some is None else some  # a constant
    computed = cls is StandardizedSHConv2d or "weight" not in conv._parameters
    gain = 1.0 if borrowed or computed else None
    layer.add_hypernetwork(gain=gain, device=some.device, dtype=some.dtype, **options)
    layer.hyper.train(conv.training)
    return layer


def to_convolution(layer: SHConv2d) -> nn.Conv2d:
    """The layer without its hypernetwork, of the class it was converted from."""
    conv = recast(layer, layer.vanilla_class)
    del conv._modules["hyper"]
    for name in ("routes", "vanilla_class"):
        vars(conv).pop(name, None)
    return conv


def become(module: nn.Module, other: nn.Module) -> None:
    """Make the module what the other one is, whoever refers to it."""
    object.__setattr__(module, "__class__", type(other))
    vars(module).clear()
    vars(module).update(vars(other))


def recast(module: nn.Module, cls: type[ModuleT]) -> ModuleT:
    """A module of class cls that has all that module has."""
    new = cls.__new__(cls)
    nn.Module.__init__(new)
    for name in getattr(module, "parametrizations", ()):  # torch keeps them in a class made for the module
        new.register_parameter(name, nn.Parameter(torch.empty(0)))
        parametrize.register_parametrization(new, name, nn.Identity(), unsafe=True)
    vars(new).update(vars(module))
    for own in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
        vars(new)[own] = vars(module)[own].copy()
    return new
