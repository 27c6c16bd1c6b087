"""What is asked of how many images, and the batches in which they come: one shape, whoever works on them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks import Attack
from shconv.experiments.network import Network
from shconv.experiments.partial import Columns

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of the images at `index`; they are always worked on in the same units of `size` images."""

    network: Network
    attack: Attack | None
    index: Index
    size: int
    route: str = "both"
    also: str = ""  # what is measured beside the outcomes

    @property
    def title(self) -> str:
        asked = type(self.attack).__name__ if self.attack else "clean"
        return f"{asked} on {self.network.key}, route {self.route}"

    def place(self, seed: int) -> str:
        """A name for its partial outcomes that no other question has."""
        about = repr((self.network.key, self.attack, self.size, self.route, self.also, seed))
        return hashlib.sha256(about.encode() + self.index.tobytes()).hexdigest()[:24]


class Images(NamedTuple):
    """A batch of one fixed shape; only the first `n` images count, the rest repeat the first."""

    x: Tensor  # float32 (B, 3, H, W) in [0, 1]
    y: Tensor  # int64 (B,)
    places: Tensor  # int64 (B,), of each image in the test split
    n: int


Measure = Callable[[Images, Callable[[], None]], Columns]  # a unit, and what to call after each of its parts


def padded(part: Tensor, size: int) -> Tensor:
    """(size, ...) from (n, ...) of at least one: the rest repeats the first, so that a network sees one shape."""
    return torch.cat([part, part[:1].expand(size - len(part), *part.shape[1:])])
