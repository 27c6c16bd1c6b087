"""From one number an image to the rows of an inspection: medians, shares, and differences with their intervals.
All values are what JSON has."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shconv.experiments.network import ALL_ROUTES
from shconv.inspection import maps
from shconv.inspection.attacks import compared
from shconv.intervals import wilson
from shconv.paired import Paired
from shconv.routes import ROUTES

Record = dict[str, Any]
Flags = NDArray[np.bool_]
ALL = ""  # the name of all layers together
STILL = 1e-3  # a map that differs less than this between images, as a share of its mean, is constant
NO_EFFECT = 0.01  # logits that move less than this share of their length hardly notice


class Columns:
    """Numbers by image under names of several words, batch after batch."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, ...], list[Tensor]] = {}

    def add(self, values: Tensor | NDArray[Any], *name: str) -> None:
        self._parts.setdefault(name, []).append(torch.as_tensor(values).detach().cpu())

    def add_all(self, values: Mapping[str, Tensor], *name: str) -> None:
        for last, each in values.items():
            self.add(each, *name, last)

    def __contains__(self, name: tuple[str, ...]) -> bool:
        return name in self._parts

    def whole(self, *name: str) -> Tensor:
        return torch.cat(self._parts[name])

    def numbers(self, *name: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = self.whole(*name).double().numpy()
        return values

    def flags(self, *name: str) -> Flags:
        values: Flags = self.whole(*name).bool().numpy()
        return values


def network_record(columns: Columns, right: Flags, n: int) -> Record:
    """Of the whole network: clean accuracy of n images, the gradient's routes, and what holding all maps at their mean
    does. The columns, and `right`, are about the images for which it gives logits; the others are wrong."""
    correct = int(right.sum())
    routes = {name: _median(columns.numbers("routes", name)) for name in ("share", "cosine", "agreement")}
    clean = {"n": n, "correct": correct, "accuracy": correct / n, "interval": list(wilson(correct, n))}
    clean |= {"unanswered": n - len(right), "flat": int(columns.flags("flat").sum())}
    return {**clean, **routes, **_held(columns, ALL, right)}


def layer_records(columns: Columns, layers: Mapping[str, Any], right: Flags) -> Iterator[Record]:
    """A record for each SHC layer, in the network's order."""
    for name, layer in layers.items():
        M = columns.whole("maps", name)
        level, differs = float(M.double().mean()), maps.spread(M)
        active = columns.whole("active", name).any(0) if ("active", name) in columns else None
        record = {
            "layer": name,
            "channels": layer.in_channels,
            "mean": level,
            "spread": differs,
            "saturated": maps.saturation(layer.hyper, M),
            "silent": None if active is None else 1 - float(active.double().mean()),
            "sensitivity": _median(columns.numbers("sensitivity", name)),
            "share": _median(columns.numbers("layer", name, "share")),
            "agreement": _median(columns.numbers("layer", name, "agreement")),
            **{f"shift_{route}": _median(columns.numbers("shift", name, route)) for route in ROUTES},
            **_held(columns, name, right),
        }
        yield {**record, "verdict": verdict(record)}


def verdict(record: Mapping[str, Any]) -> str:
    """What a map is worth on these images, in a word or two."""
    if record["spread"] <= STILL * abs(record["mean"]):
        return "dead"
    if record["moved"] < NO_EFFECT and record["changed"] == 0:
        return "idle"
    low, high = record["difference_interval"]
    return "helps" if high < 0 else "harms" if low > 0 else "used"


def attack_records(columns: Columns, attacks: Sequence[str], right: Flags) -> Iterator[Record]:
    """A record for each attack and route."""
    for attack in attacks:
        words = ("attacked", attack)
        outcomes = {
            route: (columns.flags(*words, route, "right"), columns.numbers(*words, route, "loss"))
            for route in ALL_ROUTES
        }
        for record in compared(outcomes, right):
            yield {"attack": attack, **record}


def linearity_records(columns: Columns) -> Iterator[Record]:
    """A record for each route: medians over the images of what one step promises, what comes of it, and the error."""
    for route in ALL_ROUTES:
        yield {
            "route": route,
            **{name: _median(columns.numbers("linearity", route, name)) for name in ("promised", "rise", "error")},
        }


def _held(columns: Columns, name: str, right: Flags) -> Record:
    """What holding a layer's map at its mean does: accuracy's difference, predictions changed, logits moved."""
    predicted, labels = columns.whole("held", name, "predicted"), columns.whole("labels")
    pair = Paired.of((predicted == labels).numpy(), right)
    changed = predicted != columns.whole("logits").argmax(1)
    return {
        "moved": _median(columns.numbers("held", name, "moved")),
        "changed": float(changed.double().mean()),
        "difference": pair.difference,
        "difference_interval": list(pair.interval),
    }


def _median(values: NDArray[np.float64]) -> float | None:
    """Of the images that have one: a map has no distance to NaN, which an attack may make of it."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
