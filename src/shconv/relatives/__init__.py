"""Layers that are like SHC: other networks that make or change a convolution's kernel, each a drop-in of nn.Conv2d.

    model = shconv.relatives.to_relative(model, "condconv", where=shconv.is_3x3)
    model = shconv.create_model("plain10_condconv")

A new one is a file with a sub-class of Relative, and a line in KINDS.
"""

from typing import Any

from torch import nn

from shconv.arguments import checked
from shconv.conversion import is_3x3
from shconv.conversion.where import Where
from shconv.errors import InputError, near
from shconv.relatives.base import Relative
from shconv.relatives.condconv import CondConv2d
from shconv.relatives.convert import ModelT, convert
from shconv.relatives.dynamic import DynamicConv2d
from shconv.relatives.hyper import HyperConv2d, KernelGenerator
from shconv.relatives.local import LocalConv2d
from shconv.relatives.odconv import SpatialAttentionConv2d
from shconv.relatives.se import SEConv2d

KINDS: tuple[type[Relative], ...] = (
    HyperConv2d,
    DynamicConv2d,
    LocalConv2d,
    SEConv2d,
    CondConv2d,
    SpatialAttentionConv2d,
)
RELATIVES: dict[str, type[Relative]] = {kind.suffix: kind for kind in KINDS}

__all__ = [
    "RELATIVES",
    "CondConv2d",
    "DynamicConv2d",
    "HyperConv2d",
    "KernelGenerator",
    "LocalConv2d",
    "Relative",
    "SEConv2d",
    "SpatialAttentionConv2d",
    "list_relatives",
    "to_relative",
]


def list_relatives() -> list[str]:
    """The kinds that to_relative takes; with a vanilla network's name before them, create_model's ("plain10_se")."""
    return list(RELATIVES)


@checked
def to_relative(
    model: ModelT, kind: str | type[Relative], where: Where = is_3x3, inplace: bool = False, **options: Any
) -> ModelT:
    """Replace the convolutions that where= picks by layers of this kind: one of list_relatives(), or a class.

    Args:
        model, where, inplace: as in shconv.to_shc.
        options: of the new layers: see the class.

    Returns:
        The converted network, in the same mode, on the same device. What a layer adds to its convolution is drawn anew.

    Raises:
        InputError: an unknown kind (near ones are offered); nothing was picked; something picked cannot be converted.
    """
    if isinstance(kind, str) and kind not in RELATIVES:
        raise InputError(f"unknown relative {kind!r}; {near(kind, list(RELATIVES))}")
    cls: type[nn.Module] = RELATIVES[kind] if isinstance(kind, str) else kind
    if not (isinstance(cls, type) and issubclass(cls, Relative)):
        raise InputError(f"kind must be one of {', '.join(RELATIVES)} or a sub-class of Relative, got {kind!r}")
    return convert(model, cls, where, inplace, **options)
