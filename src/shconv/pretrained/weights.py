"""Weights from a file into a library's network, and a network for other classes with all that still fits.
A file is safetensors, or a state_dict that torch reads with weights_only: neither runs code."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.pretrained.converted import create_vanilla

COUNTER = "num_batches_tracked"  # of batch norms: some libraries do not store it
WRAPPERS = ("state_dict", "model")  # what training scripts put a state_dict under


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises InputError where it holds anything else, or cannot be read safely."""
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file ends in many kinds of them
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{file} holds no weights that can be read without running code ({reason})") from error
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(each, Tensor) for each in state.values()):
        raise InputError(f"{file} holds no state_dict: wanted names and tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def network_with(arch: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, bool]:
    """(the network, whether the names did not match and the weights were put in by their order).

    By order they fit where each tensor has the shape and the last part of the name that the network's own has.
    Raises InputError where they fit neither way.
    """
    head = [name for name in create_vanilla(arch).state_dict() if not name.endswith(COUNTER)][-1]
    last = state.get(head, list(state.values())[-1])  # safetensors keeps the names, not their order
    network = create_vanilla(arch, len(last) if last.dim() else None)
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}
    given = {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}
    by_order = own.keys() != given.keys()
    if by_order and [_kind(*each) for each in own.items()] != [_kind(*each) for each in given.items()]:
        raise InputError(
            f"the file's {len(given)} tensors do not fit the {len(own)} of {arch}: neither by name, nor one after "
            f"another by shape; the first that differ: {_first_difference(own, given)}"
        )
    fitting = dict(zip(own, given.values(), strict=True)) if by_order else given
    if wrong := [name for name in own if own[name].shape != fitting[name].shape]:
        name = wrong[0]
        raise InputError(f"the file's {name} is {tuple(fitting[name].shape)}, that of {arch} {tuple(own[name].shape)}")
    network.load_state_dict(fitting, strict=False)
    return network, by_order


def for_classes(arch: str, network: nn.Module, num_classes: int, rows: Sequence[int] | None) -> nn.Module:
    """The network with a head of num_classes: the old head's rows where they are given, random weights otherwise.

    Raises InputError where more than the head would have to change.
    """
    new, old = create_vanilla(arch, num_classes), network.state_dict()
    state = new.state_dict()
    for name, tensor in state.items():
        if tensor.shape == old[name].shape:
            state[name] = old[name]
        elif tensor.shape[1:] != old[name].shape[1:]:
            raise InputError(f"{name} of {arch} is {tuple(old[name].shape)} and wanted as {tuple(tensor.shape)}")
        elif rows is not None:
            state[name] = old[name][list(rows)]
    new.load_state_dict(state)
    return new


def imagenet_rows(classes: Sequence[str], outputs: int) -> list[int] | None:
    """Which of ImageNet's 1000 outputs stand for these classes; None unless all are WordNet ids that timm knows."""
    if outputs != 1000:
        return None
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ImportError:
        return None
    ids: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
    places = {name: place for place, name in enumerate(ids)}
    return [places[name] for name in classes] if all(name in places for name in classes) else None


def _kind(name: str, tensor: Tensor) -> tuple[str, torch.Size]:
    return name.rpartition(".")[2], tensor.shape


def _first_difference(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    for ours, theirs in zip(own.items(), given.items(), strict=False):
        if _kind(*ours) != _kind(*theirs):
            return f"{theirs[0]} {tuple(theirs[1].shape)} for {ours[0]} {tuple(ours[1].shape)}"
    return "their number"
