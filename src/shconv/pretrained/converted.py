"""A converted network of timm or torchvision in a few plain values, enough to build it again without its weights.
They may come from a stranger's config.json: only names that a library has in its registry are ever looked up."""

import re
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from shconv.conversion import to_shc
from shconv.conversion.convert import Start
from shconv.errors import InputError, near
from shconv.models.normalize import Normalization, make_normalize
from shconv.pretrained.network import at_once

LIBRARIES = ("timm", "torchvision")


@dataclass(frozen=True)
class ConvertedConfig:
    """SHC layers in a library's network, behind a normalisation of its own. Raises InputError for other values."""

    source: str  # timm:NAME or torchvision:NAME
    num_classes: int
    where: tuple[int | str, ...] = (3,)  # kernels, names and patterns, as to_shc's
    normalize: Normalization = None

    def __post_init__(self) -> None:
        library_and_name(self.source)
        if type(self.num_classes) is not int or self.num_classes < 1:
            raise InputError(f"num_classes is {self.num_classes!r}; wanted: an integer >= 1")
        if not self.where or any(type(each) not in (int, str) for each in self.where):
            raise InputError(f"where is {self.where!r}; wanted: kernels, names and patterns, at least one")

    @property
    def in_channels(self) -> int:
        return 3

    @property
    def name(self) -> str:
        return f"{self.source} with SHC"

    def vanilla(self) -> nn.Module:
        """The library's network with random weights. Raises InputError where the library does not know or have it."""
        return create_vanilla(self.source, self.num_classes)

    def converted(self, network: nn.Module, start: Start = "identity", check: Tensor | None = None) -> nn.Module:
        """to_shc's copy of a vanilla network."""
        return to_shc(network, list(self.where), start, check=check)

    def normalized(self, network: nn.Module) -> nn.Sequential:
        """Images in [0, 1] -> logits."""
        return nn.Sequential(OrderedDict(normalize=make_normalize(self.normalize, 3), network=network))

    def build(self) -> nn.Module:
        """The whole network with random weights."""
        return self.normalized(self.converted(self.vanilla(), "random"))


def library_and_name(source: str) -> tuple[str, str]:
    """("timm", "resnet18.a1_in1k"). Raises InputError for anything that could be more than a name, such as a path."""
    found = re.fullmatch(r"(timm|torchvision):([A-Za-z0-9][\w.-]*)", source) if isinstance(source, str) else None
    if found is None:
        raise InputError(f"{source!r} names no network; wanted: timm:NAME or torchvision:NAME")
    return found[1], found[2]


def create_vanilla(source: str, num_classes: int | None = None, pretrained: bool = False) -> nn.Module:
    """A library's network. num_classes: None for as many as the library gives it.

    Raises:
        InputError: a library that is not installed, a name that it does not have, weights that cannot be had.
    """
    library, name = library_and_name(source)
    classes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    try:
        if library == "timm":
            import timm

            if not timm.is_model(name):
                hint = near(name, timm.list_models(), otherwise="timm.list_models() lists them")
                raise InputError(f"timm has no network {name!r}; {hint}")
            with at_once(library) if pretrained else nullcontext():
                return timm.create_model(name, pretrained=pretrained, **classes)
        import torchvision

        if name not in (known := torchvision.models.list_models(torchvision.models)):
            raise InputError(f"torchvision has no image classifier {name!r}; {near(name, known)}")
        with at_once(library) if pretrained else nullcontext():
            weights = "DEFAULT" if pretrained else None
            network: nn.Module = torchvision.models.get_model(name, weights=weights, **classes)
    except ImportError as error:
        raise InputError(f"{source} needs the package {library}: pip install {library}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"the weights of {source} could not be loaded: {reason}. Without a connection give a file of weights: "
            f"--from FILE --arch {source}"
        ) from error
    return network
