"""Relative confidence against the formula in 60 decimal digits, and Wilson intervals against published ones."""

import math

import mpmath
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from shconv.errors import InputError
from shconv.metrics import (
    accuracy_interval,
    alarm_threshold,
    detection_auc,
    rcd,
    relative_confidence,
    relative_confidence_floored,
)


def by_formula(logits: list[float], label: int) -> float:
    """Equation 5, with the population standard deviation."""
    with mpmath.workdps(60):
        powers = [mpmath.exp(mpmath.mpf(value)) for value in logits]
        p = [power / mpmath.fsum(powers) for power in powers]
        others = p[:label] + p[label + 1 :]
        mean = mpmath.fsum(others) / len(others)
        variance = mpmath.fsum((value - mean) ** 2 for value in others) / len(others)
        return float(mpmath.log(p[label] / mpmath.sqrt(variance)))


def rows(*logits: list[float]) -> Tensor:
    return torch.tensor(logits, dtype=torch.float64)


@st.composite
def row(draw: st.DrawFn, reach: float = 30) -> tuple[list[float], int]:
    logits = draw(st.lists(st.floats(-reach, reach), min_size=3, max_size=8))
    label = draw(st.integers(0, len(logits) - 1))
    others = logits[:label] + logits[label + 1 :]
    assume(max(others) - min(others) > 1e-3)  # nearly equal others leave a deviation of few digits
    return logits, label


# relative confidence


@given(row())
def test_relative_confidence_is_equation_5(case: tuple[list[float], int]) -> None:
    logits, label = case
    (actual,) = relative_confidence(rows(logits), torch.tensor([label]))
    assert actual.item() == pytest.approx(by_formula(logits, label), rel=1e-9, abs=1e-9)


@given(row(), st.randoms(use_true_random=False))
def test_permuting_the_other_classes_changes_nothing(case: tuple[list[float], int], random: object) -> None:
    logits, label = case
    others = logits[:label] + logits[label + 1 :]
    random.shuffle(others)  # type: ignore[attr-defined]
    permuted = [*others[:label], logits[label], *others[label:]]
    labels = torch.tensor([label])
    expected = relative_confidence(rows(logits), labels)
    torch.testing.assert_close(relative_confidence(rows(permuted), labels), expected, rtol=1e-9, atol=1e-9)


@given(row(), st.floats(-1000, 1000))
def test_adding_a_constant_to_the_logits_changes_nothing(case: tuple[list[float], int], constant: float) -> None:
    logits, label = case
    labels = torch.tensor([label])
    shifted = relative_confidence(rows(logits) + constant, labels)
    torch.testing.assert_close(shifted, relative_confidence(rows(logits), labels), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_extreme_logits_stay_finite_and_exact(label: int) -> None:
    logits = [1e4, -1e4, 0.0, 3.0]
    (actual,) = relative_confidence(rows(logits), torch.tensor([label]))
    assert actual.item() == pytest.approx(by_formula(logits, label), rel=1e-12)


def test_float32_logits_are_scored_in_float64_image_by_image() -> None:
    logits, labels = torch.randn(7, 10), torch.randint(10, (7,))
    scores = relative_confidence(logits, labels)
    assert scores.dtype == torch.float64
    assert scores.shape == (7,)
    for n in range(7):
        assert scores[n].item() == pytest.approx(by_formula(logits[n].double().tolist(), int(labels[n])), rel=1e-9)


def test_labels_may_be_of_any_integer_type() -> None:
    logits = torch.randn(4, 5)
    expected = relative_confidence(logits, torch.tensor([0, 4, 2, 1]))
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert torch.equal(relative_confidence(logits, torch.tensor([0, 4, 2, 1], dtype=dtype)), expected)


def test_no_images_give_no_scores() -> None:
    logits, labels = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    assert relative_confidence(logits, labels).shape == rcd(logits, logits, labels).shape == (0,)
    assert relative_confidence_floored(logits, labels).shape == (0,)


def test_equal_other_classes_are_floored_and_counted() -> None:
    logits = rows([2.0, 1.0, 1.0, 1.0], [2.0, 1.0, 1.0, 1.1], [0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0])
    labels = torch.zeros(4, dtype=torch.int64)
    assert relative_confidence_floored(logits, labels).tolist() == [True, False, True, True]
    scores = relative_confidence(logits, labels)
    # p_y / (p_other * 1e-12)
    torch.testing.assert_close(
        scores[[0, 2, 3]], torch.tensor([1.0, 0.0, 1e4], dtype=torch.float64) - torch.tensor(1e-12).double().log()
    )
    assert scores.isfinite().all()


@given(row(), st.floats(0.01, 10))
def test_rcd_is_positive_where_the_true_class_loses_confidence(case: tuple[list[float], int], loss: float) -> None:
    logits, label = case
    clean, labels = rows(logits), torch.tensor([label])
    adversarial = clean.clone()
    adversarial[0, label] -= loss
    difference = rcd(clean, adversarial, labels)
    assert difference.dtype == torch.float64
    # the others keep their ratios, so p_y / SD falls by exactly exp(loss)
    assert difference.item() == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(rcd(adversarial, clean, labels), -difference)
    assert rcd(clean, clean, labels).item() == 0


LOGITS, LABELS = torch.arange(20.0).sin().view(4, 5), torch.tensor([0, 1, 2, 4])


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (torch.zeros(4, 2), LABELS.clamp(max=1), "at least 3 classes, got 2"),
        (LOGITS, LABELS + 1, r"0\.\.4.*5"),
        (LOGITS, LABELS - 1, r"0\.\.4.*-1"),
        (LOGITS, LABELS.float(), "float32"),
        (LOGITS, LABELS > 1, "bool"),
        (LOGITS, LABELS[:3], r"\(4, 5\).*\(3,\)"),
        (LOGITS, LABELS[:, None], r"\(4, 1\)"),
        (LOGITS[0], LABELS, r"\(5,\)"),
        (LOGITS / 0, LABELS, "finite"),
        (LOGITS * torch.nan, LABELS, "finite"),
        (LOGITS[:0], torch.zeros(0), "float32"),
    ],
)
def test_logits_and_labels_that_do_not_fit_are_refused(logits: Tensor, labels: Tensor, said: str) -> None:
    for score in (relative_confidence, relative_confidence_floored, lambda z, y: rcd(z, z, y)):
        with pytest.raises(InputError, match=said):
            score(logits, labels)


def test_rcd_refuses_clean_and_adversarial_logits_of_different_classes() -> None:
    with pytest.raises(InputError, match=r"\(4, 5\).*\(4, 4\)"):
        rcd(LOGITS, LOGITS[:, :4], LABELS.clamp(max=3))


# accuracy


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_newcombes(correct: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert accuracy_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "n"), [(5, 4), (-1, 4), (0, -1)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(InputError, match=f"correct={correct}, n={n}"):
        accuracy_interval(correct, n)


# ---- a detector's scores


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(clean: list[int], attacked: list[int]) -> None:
    pairs = [(a > c) + (a == c) / 2 for a in attacked for c in clean]
    found = detection_auc(torch.tensor(clean).float(), torch.tensor(attacked).float())
    assert found == pytest.approx(sum(pairs) / len(pairs))


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=60), st.floats(0, 0.99))
def test_the_alarm_threshold_is_the_lowest_score_with_no_more_false_alarms(scores: list[int], share: float) -> None:
    threshold = alarm_threshold(torch.tensor(scores).float(), share)
    assert threshold in scores
    assert sum(each > threshold for each in scores) <= share * len(scores)
    lower = [each for each in scores if each < threshold]
    assert not lower or sum(each > max(lower) for each in scores) > share * len(scores)


def test_scores_that_are_none_are_refused() -> None:
    for scores in (torch.tensor([]), torch.zeros(2, 2), torch.tensor([math.nan])):
        with pytest.raises(InputError, match="clean: wanted finite scores"):
            alarm_threshold(scores)
        with pytest.raises(InputError, match="attacked: wanted finite scores"):
            detection_auc(torch.zeros(1), scores)
    with pytest.raises(InputError, match="false_alarms must be at least 0 and below 1, got 1"):
        alarm_threshold(torch.zeros(3), 1.0)
