"""The networks by name: three of the paper's, each vanilla, as its SHC counterpart, with the layers of SHC's relatives,
and vanilla but as large as its SHC counterpart."""

import fnmatch
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

from torch import Tensor, nn

from shconv.arguments import checked
from shconv.conversion import is_3x3, to_shc
from shconv.errors import InputError, near
from shconv.models.normalize import Normalization
from shconv.models.plain import Plain10
from shconv.models.resnet import BasicBlock, Bottleneck, ResNet
from shconv.models.shapes import shapes_only
from shconv.relatives import RELATIVES, to_relative

_VANILLA: dict[str, Callable[..., nn.Module]] = {
    "plain10": Plain10,
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
}
MATCHED = "matched"
SUFFIXES = ("", "shc", MATCHED, *RELATIVES)


@checked
def list_models(pattern: str = "*") -> list[str]:
    """The paper's networks, each vanilla one followed by its SHC counterpart: those whose names fit a pattern with *
    and ?, such as "*shc*". create_model takes more: see all_models."""
    names = [name + suffix for name in _VANILLA for suffix in ("", "_shc")]
    return fnmatch.filter(names, pattern)


def all_models() -> list[str]:
    """All names that create_model takes: each vanilla network, and with _shc, _matched and each relative's suffix."""
    return ["_".join(filter(None, (name, suffix))) for name in _VANILLA for suffix in SUFFIXES]


def vanilla_of(name: str) -> str:
    """The vanilla network that this one of all_models() is made of."""
    return name.partition("_")[0]


@checked
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
        name: one of all_models(); "*_shc" has a Statistical Hyper-Convolution in every 3x3 but the stem, "*_se" and its
            like have a relative there (shconv.relatives), and "*_matched" is the vanilla network, widened until it has
            as many parameters as "*_shc", nearly.
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
    if name not in all_models():
        some = f"choose from {', '.join(list_models())}, or others that shconv info lists"
        raise InputError(f"unknown model {name!r}; {near(name, all_models(), otherwise=some)}")
    if stem not in ("imagenet", "small"):
        raise InputError(f'stem must be "imagenet" or "small", got {stem!r}')
    sizes = (num_classes, in_channels, width)
    if not all(hasattr(size, "__index__") and size >= 1 for size in sizes):
        raise InputError(
            f"num_classes, in_channels and width must be at least 1, and integers, got {', '.join(map(repr, sizes))}"
        )
    vanilla, _, kind = name.partition("_")
    real = _nearest_width(vanilla, (num_classes, in_channels, stem), width, parts=8) if kind == MATCHED else width
    model = _VANILLA[vanilla](
        num_classes=num_classes, in_channels=in_channels, stem=stem, width=real, normalize=normalize
    )
    if kind == "shc":
        model = to_shc(model, where=behind_the_stem, start="random", inplace=True)
    if kind in RELATIVES:
        model = to_relative(model, kind, where=behind_the_stem, inplace=True)
    if pretrained is not None:
        # Named, not imported: that room knows this one, and brings data and training along.
        import_module("shconv.pretrained.given").fill(model, pretrained)
    return model


@checked
def matched_width(
    name: str, num_classes: int = 1000, in_channels: int = 3, stem: str = "imagenet", width: int = 64
) -> int:
    """The width at which the vanilla network has as many parameters as its SHC counterpart of the given width, nearly.

    SHC networks are larger (ResNet-18 by 9.9 %), so a gain over a twin of equal width may be one of size. A whole width
    may miss by some percent; create_model("plain10_matched") widens each stage by its own and comes nearer.

    Takes create_model's arguments; name may be either network of the pair. Raises InputError as create_model does.
    """
    return int(_nearest_width(name.removesuffix("_shc"), (num_classes, in_channels, stem), width, parts=1))


def _nearest_width(vanilla: str, about: tuple[int, int, str], width: int, parts: int) -> float:
    """Of all widths in steps of 1 / parts, from `width` to twice that, the one that matches the SHC network best.

    about: num_classes, in_channels, stem. A stage's channels are the width times a power of two, rounded.
    """

    def parameters(build: Callable[..., nn.Module], at: float) -> int:
        with shapes_only():
            return sum(p.numel() for p in build(*about, at).parameters())

    wanted = parameters(partial(create_model, f"{vanilla}_shc"), width)
    least, most = width * parts, 2 * width * parts
    at = bisect_left(range(most), wanted, lo=least, key=lambda step: parameters(_VANILLA[vanilla], step / parts))
    near = (max(least, at - 1), at)
    return min(near, key=lambda step: abs(parameters(_VANILLA[vanilla], step / parts) - wanted)) / parts


def behind_the_stem(name: str, module: nn.Module) -> bool:
    return is_3x3(name, module) and name != "conv1"
