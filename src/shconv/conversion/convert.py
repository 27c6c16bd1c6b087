"""Any network -> its SHC counterpart: the chosen convolutions become SHC layers, everything else stays as it is."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from shconv.arguments import checked
from shconv.conversion.check import Check, refuse_a_difference
from shconv.conversion.layers import become, reason_against, to_layer
from shconv.conversion.start import start_at_identity
from shconv.conversion.where import Where, check_network, is_3x3, pick
from shconv.copying import copied
from shconv.errors import InputError
from shconv.layers import SHConv2d

_SHARED = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}  # torch's, some slow to import
Start = Literal["identity", "random"]
ModelT = TypeVar("ModelT", bound=nn.Module)


@checked
def to_shc(
    model: ModelT,
    where: Where = is_3x3,
    start: Start = "identity",
    inplace: bool = False,
    *,
    check: Tensor | tuple[Any, ...] | None = None,
    **options: Any,
) -> ModelT:
    """Replace the convolutions that `where` selects by SHC layers with the same weights.

    Example:
        ```python
        shc = shconv.to_shc(model, check=images)  # every 3x3; model is not changed
        print(shconv.conversion_report(shc))
        ```

    Args:
        model: any network; it is not changed unless inplace.
        where: a function (name, module) -> bool, a kernel size (5 or (3, 1)), a name, a pattern ("layer1.*"), or a list
            of these; by default every 3x3.
        start: "identity": the hypernetwork's last layer is zero, so M = 0.5 exactly, and the weight is doubled. The
            outputs stay the same. If the kernel is computed (parametrisations, weight norm, weight standardisation), or
            a module that is not converted shares the weight, the map has a gain of 2 instead. "random": the
            hypernetwork starts at PyTorch's default (M near 0.5), and the weight stays.
        inplace: convert model itself.
        check: an example input, or a tuple of inputs. The converted network runs on it. Conversion is refused if other
            code reads a converted weight directly or, after an identity start, if the outputs differ.
        options: of the new layers, as in SHConv2d: hidden_features, eps, statistics, activation, map_groups.

    Returns:
        The converted network, in the same mode, on the same device. Hooks, parametrisations and ties are kept.
        `shconv.conversion_report` lists what was converted; `shconv.to_vanilla` converts back.

    Raises:
        InputError: nothing was selected; something selected cannot be converted (a scripted, lazy or quantised module,
            a class with its own forward), with its name and the reason; the check failed; the network cannot be copied
            (inplace=True does not copy).
    """
    if start not in ("identity", "random"):
        raise InputError(f'start must be "identity" or "random", got {start!r}')
    if inplace and check is not None:  # on a copy, so that the model stays whole where it is refused
        to_shc(model, where, start, check=check, **options)
    model, picked = prepared(model, where, inplace, SHConv2d, reason_against)
    before = Check.of(model, check) if check is not None and not inplace else None
    elsewhere = {id(p) for m in model.modules() if m not in picked for p in m.parameters(recurse=False)}
    layers = {conv: to_layer(conv, id(conv._parameters.get("weight")) in elsewhere, **options) for conv in picked}
    if start == "identity":
        start_at_identity(layers.values())
    for conv, layer in layers.items():
        become(conv, layer)
    if before is not None:
        refuse_a_difference(before, model, {name: conv for conv, name in picked.items()}, start == "identity")
    return model


def prepared(
    model: ModelT, where: Where, inplace: bool, done: type[nn.Conv2d], reason_against: Callable[[nn.Module], str]
) -> tuple[ModelT, dict[nn.Conv2d, str]]:
    """The network, or its copy, and the names of its convolutions to convert: those that where= picks, none in a layer
    that is done.

    Raises InputError where there is none, or a reason against one or against the network.
    """
    check_network(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(f"the model is {reason_against(model)}")
    for name, module in model.named_modules():
        if found := _SHARED & {each.__name__ for each in type(module).__mro__}:
            raise InputError(
                f"{name or 'the model'} is a {found.pop()}, which knows only the parameters that it was made with: "
                "convert the network first, then share it among processes"
            )
    if not inplace:
        model = copied(model, "inplace=True converts the network itself")
    inside = {part for module in model.modules() if isinstance(module, done) for part in module.modules()}
    picked = {module: name for module, name in pick(model, where).items() if module not in inside}
    if not picked:
        raise InputError(f"where= picked no module of {type(model).__name__}: nothing to convert")
    for module, name in picked.items():
        if reason := reason_against(module):
            raise InputError(f"{name or 'the model'} is {reason}: it cannot be converted")
    return model, cast(dict[nn.Conv2d, str], picked)
