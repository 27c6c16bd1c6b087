"""Which images an experiment is about: drawn by a seed, or those that a pair of networks is right on and sure of."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shconv.data import ImageData, ImageSplit, evaluation_batches
from shconv.data.splits import in_unit_range
from shconv.experiments.network import Pair
from shconv.experiments.outcomes import Outcomes
from shconv.experiments.question import Index


def drawn(n: int, wanted: int | None, seed: int) -> Index:
    """Of n places the first `wanted` (None: all) of a seeded shuffle, ascending.

    Files in folders come class by class, so the first places would be of one class.
    """
    return np.sort(np.random.default_rng(seed).permutation(n)[:wanted])


def taken(split: ImageSplit, places: Index) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) in [0, 1] and labels (n,) at these places."""
    parts = [(in_unit_range(batch.images), batch.labels) for batch in evaluation_batches(split, places.tolist(), 256)]
    images, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    return images, labels


def confident(
    pair: Pair, clean: Sequence[Outcomes], data: ImageData, wanted: int, least: float, seed: int
) -> tuple[Index, dict[str, Any]]:
    """The first `wanted` images of a seeded shuffle that all of the pair get right with more than `least`; and what a
    run folder keeps of the choice, with how it spreads over the classes: a few images, or one class, say nothing about
    a data set.

    clean: the outcomes of each network of the pair on the same images.
    """
    right = np.logical_and.reduce([each.correct for each in clean])
    lowest = np.minimum.reduce([each.p_y for each in clean])  # of the less confident network
    sure = right & (lowest > least)
    shuffled = np.random.default_rng(seed).permutation(len(sure))
    index: Index = clean[0].index[shuffled[sure[shuffled]]][:wanted]
    labels = data.test.labels[torch.from_numpy(index)].tolist()
    return index, {
        "pair": [member.name for member in pair.members],
        "seed": pair.members[0].seed,
        "wanted": wanted,
        "found": len(index),
        "index": index.tolist(),
        "min_confidence": least,
        "highest_confidence": float(lowest[right].max(initial=0.0)),
        "candidates": len(sure),
        "classes": {data.classes[label]: labels.count(label) for label in sorted(set(labels))},
    }
