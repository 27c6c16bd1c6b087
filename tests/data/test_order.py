"""Orders of an epoch: every image at most once, and by the group mixed as far as promised, for few groups at a time."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shconv.data.order import epoch_order, groups_wanted, share_of
from shconv.data.sources import Groups


def groups_of(count: int, size: int, opened: int) -> Groups:
    """Every fifth group has half the images."""
    sizes = [size // 2 if i % 5 == 4 else size for i in range(count)]
    return Groups(np.repeat(np.arange(count), sizes), opened)


def order(groups: Groups, batch: int, seed: int = 0) -> np.ndarray:
    return epoch_order(len(groups.of), batch, np.random.default_rng(seed), groups)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    opened=st.integers(1, 40),
    batch=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_by_the_group_an_epoch_is_full_batches_of_different_images(
    sizes: list[int], opened: int, batch: int, seed: int
) -> None:
    groups = Groups(np.repeat(np.arange(len(sizes)), sizes), opened)
    batch = min(batch, sum(sizes))
    got = order(groups, batch, seed)
    assert got.shape == (sum(sizes) // batch, batch)
    assert len(np.unique(got)) == got.size
    assert 0 <= got.min() <= got.max() < sum(sizes)
    assert np.array_equal(got, order(groups, batch, seed))


def test_the_order_changes_with_the_seed_and_with_the_number_of_groups_open() -> None:
    orders = [order(groups_of(40, 10, opened), 16, seed) for opened in (4, 16, 32) for seed in range(3)]
    assert len({each.tobytes() for each in orders}) == 9


def test_every_image_is_as_likely_as_any_other_to_come_in_the_first_batch() -> None:
    groups, draws = groups_of(10, 4, 5), 2000
    first = np.concatenate([order(groups, 9, seed)[0] for seed in range(draws)])
    wanted = draws * 9 / len(groups.of)
    assert np.abs(np.bincount(first) - wanted).max() < 5 * wanted**0.5


@pytest.mark.parametrize("opened", [8, 32, 100])
def test_a_batch_has_images_of_as_many_groups_as_are_open_or_as_it_has_images(opened: int) -> None:
    groups = groups_of(400, 10, opened)
    for images in order(groups, 32):
        assert len(np.unique(groups.of[images])) >= min(opened, 32)


def test_more_open_groups_than_places_in_a_batch_mix_images_of_several() -> None:
    def groups_at_one_place(opened: int) -> float:
        groups = groups_of(400, 10, opened)
        return float(np.mean([len(np.unique(groups.of[column[:10]])) for column in order(groups, 16).T]))

    assert groups_at_one_place(16) <= 3
    assert groups_at_one_place(16 * 5) > 4


def groups_read(groups: Groups, batch: int, readers: int) -> int:
    """How often a group is read by so many readers, each of its places, that keep the groups they used last."""
    read, batches = 0, groups.of[order(groups, batch)]
    kept = groups_wanted(share_of(batch, 0, 1), readers, batch, groups)
    for reader in range(readers):
        held: OrderedDict[int, None] = OrderedDict()
        for group in batches[:, share_of(batch, reader, readers)].ravel().tolist():
            read += group not in held
            held[group] = held.pop(group, None)
            if len(held) > kept:
                held.popitem(last=False)
    return read


@pytest.mark.parametrize("readers", [1, 3, 8])
@pytest.mark.parametrize("opened", [16, 64, 300])
@pytest.mark.parametrize("batch", [64, 200])
def test_readers_that_divide_a_batch_read_each_group_about_once_between_them(
    batch: int, opened: int, readers: int
) -> None:
    groups = groups_of(1000, 20, opened)
    assert groups_read(groups, batch, readers) < 1.2 * 1000 + min(batch, opened)


@pytest.mark.parametrize(("readers", "more"), [(1, 1.15), (8, 1.15), (64, 1.5)])
def test_what_all_readers_keep_is_little_more_than_the_groups_open(readers: int, more: float) -> None:
    groups = groups_of(3000, 100, 272)
    assert 256 < readers * groups_wanted(share_of(256, 0, 1), readers, 256, groups) < more * 272
