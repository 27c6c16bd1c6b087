"""Wilson's interval, McNemar's test, paired differences and the mean's interval against scipy, published examples and
the probabilities of every table."""

from itertools import product
from math import comb
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from shconv.intervals import wilson
from shconv.numbers import in_points
from shconv.paired import Paired, mcnemar, mean_interval, p_text
from shconv.report.numbers import pcts, points

COUNTS = st.tuples(*(st.integers(0, 60) for _ in range(4)))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys_interval_and_holds_the_share(counts):
    correct, n = counts
    low, high = wilson(correct, n)
    theirs = binomtest(correct, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= low <= correct / n <= high <= 1


def test_wilson_of_no_image_is_no_knowledge():
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(b, c):
    theirs = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(theirs, rel=1e-7)


def test_mcnemar_of_many_images_neither_overflows_nor_takes_long():
    assert mcnemar(20000, 21000) == pytest.approx(binomtest(20000, 41000).pvalue, rel=1e-6)


@pytest.mark.parametrize(
    ("cells", "interval", "rounding"),
    [((14, 5, 0, 22), (0.011, 0.226), 5e-4), ((59, 6, 16, 80), (-0.1186, -0.0046), 5e-5)],
    ids=["Altman et al. 2000, thallium scans", "Cavo et al. 2012, in Fagerland et al. 2017"],
)
def test_published_examples(cells: tuple[int, ...], interval: tuple[float, float], rounding: float) -> None:
    assert Paired(*cells).interval == pytest.approx(interval, abs=rounding)


def test_counts_come_from_the_images() -> None:
    first, second = np.array([True, True, False, False, True]), np.array([True, False, True, False, False])
    assert Paired.of(first, second) == Paired(1, 2, 1, 1)


@given(COUNTS)
def test_the_interval_holds_the_difference_and_turns_with_its_sign(cells: tuple[int, int, int, int]) -> None:
    a, b, c, d = cells
    counts, swapped = Paired(a, b, c, d), Paired(a, c, b, d)
    low, high = counts.interval
    assert -1 <= low <= counts.difference <= high <= 1
    assert swapped.interval == pytest.approx((-high, -low))
    assert swapped.p == counts.p


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_p_value_is_mcnemars(b: int, c: int) -> None:
    tails = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert Paired(3, b, c, 5).p == pytest.approx(min(1.0, 2 * tails))


def test_no_image_tells_nothing() -> None:
    assert (Paired(0, 0, 0, 0).interval, Paired(0, 0, 0, 0).p) == ((-1.0, 1.0), 1.0)


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.1, 0.2), (0.1, 0.05, 0.05, 0.8), (0.85, 0.1, 0.02, 0.03)])
def test_it_holds_the_true_difference_about_95_times_in_100(shares: tuple[float, ...]) -> None:
    """By adding up the probabilities of every table of 16 images."""
    n, covered = 16, 0.0
    for a, b, c in product(range(n + 1), repeat=3):
        d = n - a - b - c
        if d < 0:
            continue
        ways = comb(n, a) * comb(n - a, b) * comb(n - a - b, c)
        low, high = Paired(a, b, c, d).interval
        if low <= shares[1] - shares[2] <= high:
            covered += ways * np.prod(np.power(shares, (a, b, c, d)))
    assert 0.92 < covered <= 1


@pytest.mark.parametrize(
    ("only_first", "only_second", "verdict"), [(0, 0, "none"), (5, 0, "none"), (6, 0, "higher"), (0, 6, "lower")]
)
def test_verdict_needs_six_to_none(only_first: int, only_second: int, verdict: str) -> None:
    assert Paired(30, only_first, only_second, 20).verdict == verdict


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12).filter(lambda values: stdev(values) > 1e-6))
def test_the_interval_of_a_mean_is_that_of_scipys_t_test(values):
    theirs = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)


def test_equal_values_leave_their_mean_no_interval():
    assert mean_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


def test_a_rounded_number_never_contradicts_the_words_beside_it():
    assert [p_text(p) for p in (0.0004, 0.0123, 0.04998, 0.05, 0.0503)] == [
        *("p < 0.001", "p = 0.012", "p = 0.04998", "p = 0.050", "p = 0.0503")
    ]
    assert pcts(0.7612, 0.7612) == pcts(0.76121)[:1] * 2
    assert [each[:-2] for each in pcts(0.7612, 0.7613)] == ["76.12", "76.13"]
    assert (points(0.0002), points(-0.0002), points(0), points(0.012)) == ("+0.02", "−0.02", "0.0", "+1.2")
    assert (in_points(0.0002), in_points(-1e-18), in_points(0.012)) == ("+0.02", "+0.0", "+1.2")
