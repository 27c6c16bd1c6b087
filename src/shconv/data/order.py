"""Which images make the batches of an epoch. Those that are read one by one are shuffled as a whole; those that only
come by the group, as in Parquet files, so that each place in the batch goes from group to group."""

import numpy as np
from numpy.typing import NDArray

from shconv.data.sources import Groups


def share_of(n: int, rank: int, count: int) -> slice:
    """The share of `rank` in n things divided among `count`: neighbours, and equally many to within one."""
    return slice(rank * n // count, (rank + 1) * n // count)


def epoch_order(images: int, batch: int, rng: np.random.Generator, groups: Groups | None) -> NDArray[np.int64]:
    """(number of batches, batch): what each batch holds, every image at most once.

    By the group: the groups, shuffled and laid end to end, are cut into as many equal tracks as may be open at a time
    (at most one for each place in the batch), and each batch takes the next images of every track. So neighbouring
    places, which are what a process or a worker reads, want the same few groups until these are used up. Within a track
    images are shuffled inside the group or, where more may be open than there are places, among several groups.
    """
    count = images // batch
    if groups is None:
        return rng.permutation(images)[: count * batch].reshape(count, batch)
    turn = rng.permutation(groups.of.max() + 1)[groups.of]  # (N,) the place of each image's group among the shuffled
    by_turn = _shuffled_within(turn, rng)
    tracks, together = _tracks(groups, batch)
    order = np.empty((count, batch), np.int64)
    for track in range(tracks):
        places = share_of(batch, track, tracks)
        part = by_turn[places.start * count : places.stop * count]
        part = part[_shuffled_within((turn[part] - turn[part[0]]) // together, rng)]
        order[:, places] = part.reshape(count, -1)
    return order


def groups_wanted(places: slice, readers: int, batch: int, groups: Groups) -> int:
    """How many groups each of the readers that share these places of every batch has to keep, the last ones used, to
    read hardly any twice: those open in its tracks, and room for those that change from one batch to the next."""
    tracks, together = _tracks(groups, batch)
    mine = -(-(places.stop - places.start) // readers)
    opened = min(tracks, -(-mine * tracks // batch) + (tracks < batch)) * together
    ending = mine * (groups.of.max() + 1) // len(groups.of)  # in a batch, on average
    return int(opened + opened // 8 + max(2, together) + 4 * ending)


def _tracks(groups: Groups, batch: int) -> tuple[int, int]:
    """(tracks, groups of each that are open at a time)."""
    tracks = min(batch, groups.open)
    return tracks, groups.open // tracks


def _shuffled_within(key: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """All places of `key` by rising key, those of one key in random order."""
    shuffled = rng.permutation(len(key))
    return shuffled[np.argsort(key[shuffled], kind="stable")]
