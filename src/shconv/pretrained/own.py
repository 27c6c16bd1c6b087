"""A network that shconv stored, as fine-tuning takes it: images in [0, 1] go in, its normalisation is inside. A vanilla
one becomes its SHC twin, one with SHC layers stays as it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from shconv.conversion import to_shc
from shconv.errors import InputError
from shconv.models.registry import behind_the_stem
from shconv.pretrained.folder import Config, load_network
from shconv.routes import shc_layers
from shconv.training.checkpoint import ModelConfig


def network_of(path: Path, classes: int, channels: int, say: Callable[[str], None]) -> tuple[nn.Module, Config]:
    """The network of a checkpoint folder for so many classes, in eval mode, and how it is built.

    For other classes than it was trained for the head is new, and that is said. Raises InputError where there is no
    such network, where it takes images of other channels, and where its head cannot be replaced.
    """
    network, config, _ = load_network(path)
    if config.in_channels != channels:
        raise InputError(f"{path} takes images of {config.in_channels} channels; these have {channels}")
    if config.num_classes == classes:
        return network, config
    if not isinstance(config, ModelConfig):
        raise InputError(f"{path} has {config.num_classes} classes, the images have {classes}: wanted as many")
    say(f"{config.num_classes} outputs, {classes} classes: the head is new, with random weights")
    config = replace(config, num_classes=classes)
    fresh = config.build()
    kept = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")}
    fresh.load_state_dict(kept, strict=False)
    return fresh.eval(), config


def shc_of(network: nn.Module, config: Config, images: Tensor) -> tuple[nn.Module, Config]:
    """Its SHC twin, which computes what it does for the images (N, 3, S, S), and how that is built."""
    if shc_layers(network) or not isinstance(config, ModelConfig):
        return network, config
    twin = to_shc(network, where=behind_the_stem, start="identity", check=images)
    return twin, replace(config, name=f"{config.name}_shc")
