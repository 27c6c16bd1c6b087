"""Weights that somebody has, put into a network: all that fit, and a new head where the classes differ."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from shconv.errors import InputError, few
from shconv.pretrained.state_file import read_weights
from shconv.training.checkpoint import MODEL


def fill(network: nn.Module, given: str | Path | Mapping[str, Any]) -> None:
    """Loads a checkpoint folder's weights, a file's or a state_dict's into `network`, in place.

    Whatever all names begin with (module., _orig_mod.) is taken off. A last layer of another number of classes stays
    as it is, with a warning. Raises InputError where anything else is missing, left over or of another shape.
    """
    found, where = _found(given)
    own = network.state_dict()
    head = list(own)[-1].rpartition(".")[0] + "."
    reasons = []
    for weights in found.values():
        fitting = _without_prefix(weights, next(iter(own)))
        wrong = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
        extra = [name for name in fitting if name not in own]
        if wrong or extra:
            reasons.append(f"missing {few(wrong)}; unexpected {few(extra)}")
            continue
        shapes = [name for name in fitting if fitting[name].shape != own[name].shape]
        if any(not name.startswith(head) for name in shapes):
            first = next(name for name in shapes if not name.startswith(head))
            reasons.append(f"{first} is {tuple(fitting[first].shape)}, wanted {tuple(own[first].shape)}")
            continue
        if shapes:
            there, here = len(fitting[shapes[0]]), len(own[shapes[0]])
            warnings.warn(
                f"{where} has {there} classes, the network {here}: its head {head[:-1]} is new, with random weights",
                stacklevel=3,
            )
        network.load_state_dict(
            {n: t for n, t in fitting.items() if not n.startswith(head) or not shapes}, strict=False
        )
        return
    raise InputError(f"{where} does not hold this network's weights: {reasons[0]}")


def _found(given: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Mapping[str, Tensor]], str]:
    """The weights by their place, the likeliest first, and what to call them."""
    if isinstance(given, Mapping):
        if not given or not all(isinstance(each, Tensor) for each in given.values()):
            raise InputError("pretrained is a mapping, but no state_dict: wanted names and tensors")
        return {"": given}, "the state_dict"
    path = Path(given)
    return read_weights(path / MODEL if path.is_dir() else path), str(path)


def _without_prefix(weights: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    prefix = next((name[: -len(first)] for name in weights if f".{name}".endswith(f".{first}")), "")
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
