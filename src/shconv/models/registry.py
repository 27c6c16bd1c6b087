"""The networks by name: three of the paper's, each vanilla and as its SHC counterpart."""

import difflib
import fnmatch
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from shconv.conversion import is_3x3, to_shc
from shconv.errors import InputError
from shconv.models.normalize import Normalization
from shconv.models.plain import Plain10
from shconv.models.resnet import BasicBlock, Bottleneck, ResNet

_VANILLA: dict[str, Callable[..., nn.Module]] = {
    "plain10": Plain10,
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
}


def list_models(pattern: str = "*") -> list[str]:
    """The names create_model takes, each vanilla network followed by its SHC counterpart: those that fit a pattern with
    * and ?, such as "*shc*"."""
    names = [name + suffix for name in _VANILLA for suffix in ("", "_shc")]
    return fnmatch.filter(names, pattern)


def create_model(
    name: str,
    num_classes: int = 1000,
    in_channels: int = 3,
    stem: str = "imagenet",
    width: int = 64,
    normalize: Normalization = None,
    pretrained: str | Path | Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build a network of the paper (section 3.2), randomly initialised or with weights of yours.

    Args:
        name: one of list_models(); "*_shc" has a Statistical Hyper-Convolution in every 3x3 but the stem.
        stem: "imagenet" (7x7/2, max pool) or "small" (3x3/1, no pool; for images up to 64 px).
        width: channels of the first stage, 64 in the paper.
        normalize: None (the paper feeds [0, 1]), "imagenet", or (mean, std) by channel.
        pretrained: a checkpoint folder, a file of weights (safetensors, or what torch.save wrote) or a state_dict of
            this network. Where num_classes differs the head is new, with a warning.

    Returns:
        A network from images (N, in_channels, H, W) in [0, 1] to logits (N, num_classes).
        With the same random seed a network and its SHC counterpart start with the same convolution weights.

    Raises:
        InputError: unknown name (near ones are offered), an argument out of range, or weights of another network.
    """
    if name not in list_models():
        near = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.4) or list_models()
        raise InputError(f"unknown model {name!r}; did you mean {', '.join(near)}?")
    if stem not in ("imagenet", "small"):
        raise InputError(f'stem must be "imagenet" or "small", got {stem!r}')
    if min(num_classes, in_channels, width) < 1:
        raise InputError(
            f"num_classes, in_channels and width must be at least 1, got {num_classes}, {in_channels}, {width}"
        )
    model = _VANILLA[name.removesuffix("_shc")](
        num_classes=num_classes, in_channels=in_channels, stem=stem, width=width, normalize=normalize
    )
    if name.endswith("_shc"):
        model = to_shc(model, where=behind_the_stem, start="random", inplace=True)
    if pretrained is not None:
        # Named, not imported: that room knows this one, and brings data and training along.
        import_module("shconv.pretrained.given").fill(model, pretrained)
    return model


def matched_width(
    name: str, num_classes: int = 1000, in_channels: int = 3, stem: str = "imagenet", width: int = 64
) -> int:
    """The width at which the vanilla network has as many parameters as its SHC counterpart of the given width, nearly.

    SHC networks are larger (ResNet-18 by 9.9 %), so a gain over a twin of equal width may be one of size.

    Takes create_model's arguments; name may be either network of the pair. Raises InputError as create_model does.
    """
    vanilla = name.removesuffix("_shc")

    def parameters(model: str, at: int) -> int:
        with torch.device("meta"):  # shapes without numbers
            return sum(p.numel() for p in create_model(model, num_classes, in_channels, stem, at).parameters())

    wanted = parameters(f"{vanilla}_shc", width)
    above = bisect_left(range(2 * width), wanted, lo=width, key=lambda at: parameters(vanilla, at))
    return min(max(width, above - 1), above, key=lambda at: abs(parameters(vanilla, at) - wanted))


def behind_the_stem(name: str, module: nn.Module) -> bool:
    return is_3x3(name, module) and name != "conv1"
