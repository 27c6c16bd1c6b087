"""What is kept for each network, and which recordings make room for others on a device."""

import math
import weakref
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from shconv.capturing import Uncapturable
from shconv.replaying.passes import Pair

SEEN = 2  # calls of a kind that run as they are
SHARE = 0.25  # of a device's memory that graphs may hold


class Recordings:
    """Those of one network, as long as it lives."""

    def __init__(self) -> None:
        self.reason = ""  # why none is made any more
        self.states: dict[tuple[Any, ...], int] = {}  # that the network was seen in, numbered
        self.calls: dict[Any, int] = {}  # as it is, of a kind
        self.given_up: dict[Any, int] = {}  # how often a pair made room for others
        self.pairs: dict[Any, Pair] = {}


NETWORKS: weakref.WeakKeyDictionary[nn.Module, Recordings] = weakref.WeakKeyDictionary()
USED: OrderedDict[Any, tuple[weakref.ref[Recordings], Any]] = OrderedDict()  # all pairs, the last used one last


def keep(recordings: Recordings, key: Any, pair: Pair, device: torch.device) -> None:
    """Raises Uncapturable where it takes too much memory; others that have not been used for long make room. Each time
    they do they wait ten times as long until they are recorded anew: two that have no room together take turns."""
    recordings.pairs[key] = pair
    USED[id(recordings), key] = weakref.ref(recordings), key
    most = _most(device)
    if pair.size > most:
        raise Uncapturable(f"its passes take {pair.size / 2**30:.1f} GB, more than a quarter of the memory")
    sizes = {}
    for place, (owner, its) in list(USED.items()):
        held = owner()
        if held is None or its not in held.pairs:
            del USED[place]
        else:
            sizes[place] = held.pairs[its].size
    for place in list(sizes):
        if sum(sizes.values()) <= most:
            break
        owner, its = USED.pop(place)
        if (held := owner()) is not None:
            del held.pairs[its]
            held.given_up[its] = held.given_up.get(its, 0) + 1
            held.calls[its] = SEEN - 10 ** held.given_up[its]
        del sizes[place]


def _most(device: torch.device) -> float:
    """Bytes that all graphs of a device may hold."""
    return SHARE * torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else math.inf
