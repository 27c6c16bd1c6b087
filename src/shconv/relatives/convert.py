"""Any network -> one with relatives in the place of the convolutions that where= picks, as shconv.to_shc does it."""

from typing import Any, TypeVar, cast

from torch import nn

from shconv.conversion import is_3x3
from shconv.conversion.convert import prepared
from shconv.conversion.layers import become, reason_against, recast, shc_class
from shconv.conversion.where import Where
from shconv.layers import SHConv2d
from shconv.relatives.base import Relative

ModelT = TypeVar("ModelT", bound=nn.Module)


def convert(
    model: ModelT, kind: type[Relative], where: Where = is_3x3, inplace: bool = False, **options: Any
) -> ModelT:
    """Replace the convolutions that where= picks by layers of this kind, with their weights where the kind has any.

    where, inplace, what is kept and what is refused are to_shc's. A computed weight (weight norm, pruning) is refused.
    What the layer adds is drawn anew, so the network computes something else than before and has to be trained.

    Raises:
        InputError: nothing was picked, or something picked cannot be converted, with its name and the reason.
    """
    model, picked = prepared(model, where, inplace, Relative, _reason_against)
    layers = {conv: recast(conv, kind) for conv in picked}
    for layer, own in zip(layers.values(), kind.options_for(list(picked), options), strict=True):
        layer.extend(**own)
    for conv, layer in layers.items():
        become(conv, layer.train(conv.training))
    return model


def _reason_against(module: nn.Module) -> str:
    kind = type(module).__name__
    if reason := reason_against(module):
        return reason
    if shc_class(cast(nn.Conv2d, module)) is not SHConv2d:
        return f"a {kind}, which pads or computes its kernel in its own way"
    return "" if module._parameters.get("weight") is not None else f"a {kind} whose weight is computed"
