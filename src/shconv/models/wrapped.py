"""What defences put around a network, by name, so that a checkpoint's few words build it again: "detector:layer2"."""

from collections.abc import Callable

from torch import nn

from shconv.errors import InputError
from shconv.models.detector import DetectorNetwork
from shconv.models.noise import NoiseNetwork

WRAPPERS: dict[str, Callable[[nn.Module, str], nn.Module]] = {"detector": DetectorNetwork, "noise-model": NoiseNetwork}


def wrapped(network: nn.Module, wrapper: str) -> nn.Module:
    """The network inside what `wrapper` names, a word of WRAPPERS, a colon and its one setting.

    It takes the same images and gives the same kind of logits in eval mode. Raises InputError for another word, and for
    a setting that does not fit the network.
    """
    word, colon, setting = wrapper.partition(":") if isinstance(wrapper, str) else ("", "", "")
    if word not in WRAPPERS or not colon:
        known = ", ".join(f"{each}:..." for each in WRAPPERS)
        raise InputError(f"there is no network around another called {wrapper!r}; wanted: {known}")
    return WRAPPERS[word](network, setting)
