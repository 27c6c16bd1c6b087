"""Weights from a file into a library's network, and a network for other classes with all that still fits.
Names fit whatever wrappers put before them; where they are others, weights may still fit one after another."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.pretrained.converted import create_vanilla
from shconv.pretrained.state_file import PLACES, Weights

COUNTER = "num_batches_tracked"  # of batch norms: some libraries do not store it
INNER = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # wrappers within


@dataclass(frozen=True, eq=False)
class Filled:
    """A library's network with a file's weights, what has to be said of them, and whether its head is among them."""

    network: nn.Module
    said: str
    has_head: bool = True


def network_with(arch: str, found: Mapping[str, Weights]) -> Filled:
    """The network with the first of the weights found (`read_weights`) that fit.

    By name, behind any common prefix, with or without the head; else one after another, where each tensor has the shape
    and the last part of the name that the network's own has. Raises InputError where none fits, saying what was found,
    and for an SHC network's weights: its kernels alone compute something else.
    """
    if hyper := [name for each in found.values() for name in each if name.endswith("hyper.output.weight")]:
        raise InputError(
            f"the file holds an SHC network's weights ({hyper[0]}); wanted: those from before the conversion, or a "
            "folder that shconv train or finetune wrote"
        )
    reasons = []
    cleaned = {place: {INNER.sub("", name): tensor for name, tensor in each.items()} for place, each in found.items()}
    for place, weights in cleaned.items():
        for prefix, fitting, has_head in _by_name(arch, weights):
            try:
                network = _filled(arch, fitting, has_head)
            except InputError as error:
                reasons.append(str(error))
            else:
                return Filled(network, _said(place, prefix, cleaned, len(fitting), has_head), has_head)
    for place, weights in cleaned.items():
        try:
            network = _in_order(arch, weights)
        except InputError as error:
            reasons.append(str(error))
        else:
            said = "the file has other names; its weights were assigned by order and shape"
            return Filled(network, ". ".join(part for part in (said, _said(place, "", cleaned)) if part))
    listed = ", ".join(f"{len(each)} tensors{f' under {place}' if place else ''}" for place, each in found.items())
    raise InputError(f"found {listed}; {reasons[0]}")


def _by_name(arch: str, weights: Weights) -> Iterator[tuple[str, Weights, bool]]:
    """(prefix, the network's tensors without it, whether the head is among them), those with a head first."""
    own = [name for name in create_vanilla(arch).state_dict() if not name.endswith(COUNTER)]
    head = own[-1].rpartition(".")[0] + "."
    body = [name for name in own if not name.startswith(head)]
    prefixes = {name[: -len(own[0])] for name in weights if f".{name}".endswith(f".{own[0]}")}
    ranked = sorted(prefixes, key=lambda prefix: (bool(prefix), _rank(prefix), prefix))
    for names, has_head in ((own, True), (body, False)):
        for prefix in ranked:
            if all(prefix + name in weights for name in names):
                yield prefix, {name: weights[prefix + name] for name in names}, has_head


def _rank(prefix: str) -> int:
    """A trained network before an average of it, and both before others."""
    return max((PLACES.index(word) for word in prefix.split(".") if word in PLACES), default=len(PLACES))


def _filled(arch: str, weights: Weights, has_head: bool) -> nn.Module:
    last = list(weights.values())[-1]
    network = create_vanilla(arch, len(last) if has_head and last.dim() else None)
    own = network.state_dict()
    for name, tensor in weights.items():
        if own[name].shape != tensor.shape:
            raise InputError(f"the file's {name} is {tuple(tensor.shape)}, that of {arch} {tuple(own[name].shape)}")
    network.load_state_dict(weights, strict=False)
    return network


def _in_order(arch: str, weights: Weights) -> nn.Module:
    given = {name: tensor for name, tensor in weights.items() if not name.endswith(COUNTER)}
    last = list(given.values())[-1]
    network = create_vanilla(arch, len(last) if last.dim() else None)
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}
    if [_kind(*each) for each in own.items()] != [_kind(*each) for each in given.items()]:
        raise InputError(
            f"the file's {len(given)} tensors do not fit the {len(own)} of {arch}: neither by name, nor one after "
            f"another by shape; the first that differ: {_first_difference(own, given)}"
        )
    network.load_state_dict(dict(zip(own, given.values(), strict=True)), strict=False)
    return network


def _said(place: str, prefix: str, found: Mapping[str, Weights], used: int | None = None, has_head: bool = True) -> str:
    """What a reader should know of the choice; nothing where there was none."""
    others = [each for each in found if each != place and not _is_state(each)]
    parts = [f"under {place}"] if place else []
    parts += [f"without the prefix {prefix}"] if prefix else []
    if others:
        parts.append(f"not those under {', '.join(others[:3])}")
    given = [name for name in found[place] if not name.endswith(COUNTER)]
    if used is not None and (rest := len(given) - used):
        names = [name for name in given if not name.startswith(prefix)] or given
        parts.append(f"{rest} tensors of other names left out, such as {names[-1]}")
    said = f"the weights: {'; '.join(parts)}" if parts else ""
    new = "" if has_head else "the file has no head for this network: it is new, with random weights"
    return ". ".join(part for part in (said, new) if part)


def _is_state(place: str) -> bool:
    """Is it an optimiser's, or another that nobody takes for weights?"""
    return any(word not in PLACES for word in place.split("."))


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
