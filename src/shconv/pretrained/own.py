"""A network that shconv stored, as fine-tuning takes it: images in [0, 1] go in, its normalisation is inside. A vanilla
one becomes its SHC twin, one with SHC layers stays as it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from shconv.conversion import to_shc
from shconv.errors import InputError
from shconv.models import DetectorNetwork, all_models, vanilla_of
from shconv.models.noise import NoiseNetwork
from shconv.models.registry import behind_the_stem
from shconv.models.wrapped import wrapped
from shconv.pretrained.folder import Config, load_network
from shconv.routes import shc_layers
from shconv.training.checkpoint import ModelConfig


def network_of(path: Path, classes: int, channels: int, say: Callable[[str], None]) -> tuple[nn.Module, Config]:
    """The network of a checkpoint folder for so many classes, in eval mode, and how it is built.

    For other classes than it was trained for the head is new, and a detector beside it is left out; both are said.
    Raises InputError where there is no such network, where it takes images of other channels, where its head cannot be
    replaced, and where it has neither SHC layers nor an SHC counterpart.
    """
    network, config, _ = load_network(path)
    if config.in_channels != channels:
        raise InputError(f"{path} takes images of {config.in_channels} channels; these have {channels}")
    if not isinstance(config, ModelConfig):
        if config.num_classes != classes:
            raise InputError(f"{path} has {config.num_classes} classes, the images have {classes}: wanted as many")
        return network, config
    if not shc_layers(network) and f"{config.name}_shc" not in all_models():
        raise InputError(
            f"{path} is a {config.name}, which has no SHC counterpart; wanted: {vanilla_of(config.name)}, say, or a "
            "network with SHC layers"
        )
    if isinstance(network, DetectorNetwork):
        say(f"the detector of {path} is left out: it knows the classifier as it was")
        network, config = network.network, replace(config, wrapper=None)
    if config.num_classes == classes:
        return network, config
    say(f"{config.num_classes} outputs, {classes} classes: the head is new, with random weights")
    config = replace(config, num_classes=classes)
    fresh = config.build()
    wanted = fresh.state_dict()
    kept = {name: tensor for name, tensor in network.state_dict().items() if tensor.shape == wanted[name].shape}
    fresh.load_state_dict(kept, strict=False)
    return fresh.eval(), config


def shc_of(network: nn.Module, config: Config, images: Tensor) -> tuple[nn.Module, Config]:
    """Its SHC twin, which computes what it does for the images (N, 3, S, S), and how that is built."""
    if shc_layers(network) or not isinstance(config, ModelConfig):
        return network, config
    inner = network.network if isinstance(network, NoiseNetwork) else network
    twin = to_shc(inner, where=behind_the_stem, start="identity", check=images)
    twin = twin if config.wrapper is None else wrapped(twin, config.wrapper)
    return twin.eval(), replace(config, name=f"{config.name}_shc")
