"""`import shconv.timm` puts the paper's networks into timm's registry: timm.create_model("resnet18_shc") builds one.
The ResNets are timm's own, converted, so that features_only, reset_classifier and its weights work as ever."""

from typing import Any, Literal

import timm
from timm.models import is_model, register_model
from torch import nn

from shconv.conversion import is_3x3, to_shc
from shconv.errors import InputError
from shconv.models import create_model

__all__ = ["plain10", "plain10_shc", "resnet18_shc", "resnet50_shc"]

_IGNORED = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # timm's bookkeeping for weights to download


def plain10(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Plain-10 (section 3.2); num_classes, in_chans, and shconv.create_model's stem, width and normalize."""
    return _plain("plain10", pretrained, **arguments)


def plain10_shc(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Plain-10-SHC; arguments as plain10's."""
    return _plain("plain10_shc", pretrained, **arguments)


def resnet18_shc(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """ResNet-18-SHC: timm's resnet18, with its arguments, and an SHC in every 3x3 but the stem."""
    return _resnet("resnet18", pretrained, **arguments)


def resnet50_shc(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """ResNet-50-SHC: timm's resnet50, with its arguments, and an SHC in every 3x3 but the stem."""
    return _resnet("resnet50", pretrained, **arguments)


def _resnet(
    name: str, pretrained: bool, start: Literal["identity", "random"] | None = None, **arguments: Any
) -> nn.Module:
    """start: to_shc's; the identity where the vanilla network's pretrained weights are loaded, random otherwise."""
    start = start or ("identity" if pretrained else "random")
    vanilla: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    return to_shc(vanilla, where=_behind_the_stem, start=start, inplace=True)


def _plain(name: str, pretrained: bool, num_classes: int = 1000, in_chans: int = 3, **arguments: Any) -> nn.Module:
    known = {key: value for key, value in arguments.items() if key not in _IGNORED}
    if pretrained:
        raise InputError(f"there are no pretrained weights for {name}; give checkpoint_path= a file of your own")
    if unknown := set(known) - {"stem", "width", "normalize"}:
        raise InputError(f"{name} takes num_classes, in_chans, stem, width and normalize, not {', '.join(unknown)}")
    return create_model(name, num_classes=num_classes, in_channels=in_chans, **known)


def _behind_the_stem(name: str, module: nn.Module) -> bool:
    return is_3x3(name, module) and not name.startswith("conv1")


for _entry in (plain10, plain10_shc, resnet18_shc, resnet50_shc):
    if not is_model(_entry.__name__):
        register_model(_entry)
