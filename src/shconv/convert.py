"""Any network -> its SHC counterpart: the chosen convolutions become SHConv2d, everything else stays as it is.
The identity start computes, at first, what the network computed before."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.layers import SHConv2d

Where = Callable[[str, nn.Module], bool]
ModelT = TypeVar("ModelT", bound=nn.Module)

_COPIED = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
)  # fmt: skip


def is_3x3(name: str, module: nn.Module) -> bool:
    """True for a 3x3 convolution that is not yet an SHC: the paper's choice of layers (section 3.2)."""
    return isinstance(module, nn.Conv2d) and not isinstance(module, SHConv2d) and tuple(module.kernel_size) == (3, 3)


def to_shc(
    model: ModelT,
    where: Where = is_3x3,
    start: Literal["identity", "random"] = "identity",
    inplace: bool = False,
) -> ModelT:
    """Replace the convolutions that where(name, module) picks by SHConv2d with the same weights.

    Args:
        model: any network; left untouched unless inplace.
        where: (name, module) -> whether to convert it; by default every 3x3.
        start: "identity": the hypernetwork's last layer is zero, so M = 0.5 exactly, and the weight is doubled, so that
            the network computes what it did. "random": the hypernetwork starts at PyTorch's default (M near 0.5), the
            weight stays.
        inplace: convert model itself; not possible where the model is itself a convolution.

    Returns:
        The converted network, in the same mode, on the same device.

    Raises:
        InputError: nothing was picked; something picked is no plain nn.Conv2d, or has hooks (conversion would lose what
            they add); an identity start whose weight a module that was not picked shares.
    """
    if start not in ("identity", "random"):
        raise InputError(f'start must be "identity" or "random", got {start!r}')
    if inplace and isinstance(model, nn.Conv2d):
        raise InputError(
            "a convolution by itself cannot be replaced in place; leave out inplace and take what is returned"
        )
    if not inplace:
        model = copy.deepcopy(model)
    picked = {module: name for name, module in model.named_modules() if where(name, module)}
    if not picked:
        raise InputError(f"where= picked no module of {type(model).__name__}: nothing to convert")
    for module, name in picked.items():
        _check_convertible(module, name or "the model")
    if start == "identity":
        _check_weights_are_alone(model, picked)
    converted = {module: _convert(module) for module in picked if isinstance(module, nn.Conv2d)}
    if start == "identity":
        _start_at_identity(converted.values())
    for path, child in list(
        model.named_modules(remove_duplicate=False)
    ):  # a shared layer is replaced wherever it stands
        if isinstance(child, nn.Conv2d) and child in converted and path:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, converted[child])
    return cast(ModelT, converted[model]) if isinstance(model, nn.Conv2d) else model


def _check_convertible(module: nn.Module, name: str) -> None:
    if type(module) is not nn.Conv2d:
        raise InputError(f"{name} is a {type(module).__name__}, not a plain nn.Conv2d: it cannot be converted")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, kind) for kind in hooks):
        raise InputError(f"{name} has hooks (spectral norm, for one, is a hook): remove them before converting")


def _check_weights_are_alone(model: nn.Module, picked: dict[nn.Module, str]) -> None:
    left_alone = {
        id(parameter) for m in model.modules() if m not in picked for parameter in m.parameters(recurse=False)
    }
    for module, name in picked.items():
        if id(module.weight) in left_alone:
            raise InputError(f"{name} shares its weight with a module that is not converted: it cannot be doubled")


def _convert(conv: nn.Conv2d) -> SHConv2d:
    arguments: dict[str, Any] = {name: getattr(conv, name) for name in _COPIED}
    place: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    layer = SHConv2d(**arguments, bias=conv.bias is not None, **place)
    layer.weight, layer.bias = conv.weight, conv.bias
    return layer.train(conv.training)


@torch.no_grad()
def _start_at_identity(layers: Iterable[SHConv2d]) -> None:
    doubled: set[Tensor] = set()
    for layer in layers:
        layer.hyper.output.weight.zero_()
        layer.hyper.output.bias.zero_()
        if layer.weight not in doubled:  # a weight that several layers share is doubled once
            layer.weight.mul_(2)
            doubled.add(layer.weight)
