"""Paired shares: a published example, symmetry, and how often the interval holds the truth."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shconv.audit.paired import PairedCounts

COUNTS = st.tuples(*(st.integers(0, 60) for _ in range(4)))


@pytest.mark.parametrize(
    ("cells", "interval", "rounding"),
    [((14, 5, 0, 22), (0.011, 0.226), 5e-4), ((59, 6, 16, 80), (-0.1186, -0.0046), 5e-5)],
    ids=["Altman et al. 2000, thallium scans", "Cavo et al. 2012, in Fagerland et al. 2017"],
)
def test_published_examples(cells: tuple[int, ...], interval: tuple[float, float], rounding: float) -> None:
    assert PairedCounts(*cells).interval == pytest.approx(interval, abs=rounding)


def test_counts_come_from_the_images() -> None:
    first, second = np.array([True, True, False, False, True]), np.array([True, False, True, False, False])
    assert PairedCounts.of(first, second) == PairedCounts(1, 2, 1, 1)


@given(COUNTS)
def test_the_interval_holds_the_difference_and_turns_with_its_sign(cells: tuple[int, int, int, int]) -> None:
    a, b, c, d = cells
    counts, swapped = PairedCounts(a, b, c, d), PairedCounts(a, c, b, d)
    low, high = counts.interval
    assert -1 <= low <= counts.difference <= high <= 1
    assert swapped.interval == pytest.approx((-high, -low))
    assert swapped.p == counts.p


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    tails = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert PairedCounts(3, b, c, 5).p == pytest.approx(min(1.0, 2 * tails))


def test_no_image_tells_nothing() -> None:
    assert (PairedCounts(0, 0, 0, 0).interval, PairedCounts(0, 0, 0, 0).p) == ((-1.0, 1.0), 1.0)


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.1, 0.2), (0.1, 0.05, 0.05, 0.8), (0.85, 0.1, 0.02, 0.03)])
def test_it_holds_the_true_difference_about_95_times_in_100(shares: tuple[float, ...]) -> None:
    """By adding up the probabilities of every table of 16 images."""
    n, covered = 16, 0.0
    for a, b, c in product(range(n + 1), repeat=3):
        d = n - a - b - c
        if d < 0:
            continue
        ways = comb(n, a) * comb(n - a, b) * comb(n - a - b, c)
        low, high = PairedCounts(a, b, c, d).interval
        if low <= shares[1] - shares[2] <= high:
            covered += ways * np.prod(np.power(shares, (a, b, c, d)))
    assert 0.92 < covered <= 1
