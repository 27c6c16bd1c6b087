"""Wilson's interval, McNemar's test, the paired difference and the mean's interval against scipy and by hand."""

from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from shconv.intervals import wilson
from shconv.report.computed.intervals import Paired, mcnemar, mean_interval


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


def test_paired_difference_of_agresti_and_min_by_hand():
    pair = Paired(n=100, only_first=20, only_second=5)
    assert pair.difference == -0.15
    # half an image in each cell: (5.5 - 20.5) / 102, half-width 1.959964 sqrt(26 - 225 / 102) / 102
    assert pair.interval == pytest.approx((-0.147059 - 0.093731, -0.147059 + 0.093731), abs=1e-5)
    assert pair.verdict == "lower"


@pytest.mark.parametrize(
    ("only_first", "only_second", "verdict"), [(0, 0, "none"), (0, 5, "none"), (0, 6, "higher"), (6, 0, "lower")]
)
def test_verdict_needs_six_to_none(only_first, only_second, verdict):
    assert Paired(50, only_first, only_second).verdict == verdict


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12).filter(lambda values: stdev(values) > 1e-6))
def test_the_interval_of_a_mean_is_that_of_scipys_t_test(values):
    theirs = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)


def test_equal_values_leave_their_mean_no_interval():
    assert mean_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)
