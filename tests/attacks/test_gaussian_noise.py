"""Gaussian noise: the distribution of equation 1 and its options."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shconv.attacks import GaussianNoise

GREY = torch.full((2, 3, 100, 100), 0.5, dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def normal_cdf(z: np.ndarray) -> np.ndarray:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in z])


def noise(attack: GaussianNoise, seed: int = 0) -> np.ndarray:
    """Sorted noise of 60,000 values."""
    return np.sort((attack(unused, GREY, LABELS, seed=seed) - GREY).numpy().ravel())


def unused(x: Tensor) -> Tensor:
    raise AssertionError("noise needs no model")


def distance_between_distributions(sample: np.ndarray, cdf: np.ndarray) -> float:
    """Kolmogorov-Smirnov, times sqrt(n): above 1.95 once in 1,000 samples."""
    steps = np.arange(len(sample) + 1) / len(sample)
    return float(max(np.abs(cdf - steps[:-1]).max(), np.abs(cdf - steps[1:]).max()) * math.sqrt(len(sample)))


def test_untruncated_noise_is_normal() -> None:
    sample = noise(GaussianNoise(0.1, epsilon=None, clip=False))
    assert distance_between_distributions(sample, normal_cdf(sample / 0.1)) < 1.95


def test_clipped_noise_is_normal_inside_and_piles_up_at_epsilon() -> None:
    sample = noise(GaussianNoise(0.2))
    free = noise(GaussianNoise(0.2, epsilon=None, clip=False))
    np.testing.assert_allclose(sample, free.clip(-0.1, 0.1), atol=1e-8)
    assert np.isclose(sample, 0.1).mean() == pytest.approx(1 - normal_cdf(np.array([0.5]))[0], abs=0.01)


@pytest.mark.parametrize(("sigma", "epsilon"), [(0.1, 0.1), (0.4, 0.1), (0.05, 0.3)])
def test_resampled_noise_is_the_normal_restricted_to_the_interval(sigma: float, epsilon: float) -> None:
    sample = noise(GaussianNoise(sigma, epsilon, truncation="resample"))
    assert np.abs(sample).max() <= epsilon * (1 + 1e-6)
    low, high = normal_cdf(np.array([-epsilon, epsilon]) / sigma)
    assert distance_between_distributions(sample, (normal_cdf(sample / sigma) - low) / (high - low)) < 1.95


@pytest.mark.parametrize("truncation", ["clip", "resample"])
@pytest.mark.parametrize("zero", [{"sigma": 0.0}, {"sigma": 0.2, "epsilon": 0.0}])
def test_no_noise_changes_nothing(truncation: str, zero: dict[str, float]) -> None:
    attack = GaussianNoise(**zero, truncation=truncation)  # type: ignore[arg-type]
    assert torch.equal(attack(unused, GREY, LABELS), GREY)


def test_two_sigma_truncates_at_two_standard_deviations() -> None:
    assert GaussianNoise.two_sigma(0.2) == GaussianNoise(0.2, epsilon=0.4)


@given(
    sigma=st.floats(0, 1),
    epsilon=st.floats(0, 1) | st.none(),
    truncation=st.sampled_from(["clip", "resample"]),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=50, deadline=None)
def test_noisy_images_stay_in_the_box_and_within_epsilon(sigma, epsilon, truncation, seed) -> None:  # type: ignore[no-untyped-def]
    images = torch.rand(3, 1, 5, 4, generator=torch.Generator().manual_seed(seed % 2**31))
    result = GaussianNoise(sigma, epsilon, truncation).run(unused, images, torch.zeros(3, dtype=torch.int64), seed=seed)
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    if epsilon is not None:
        assert (result.distances["linf"] <= epsilon + 1e-6).all()
    assert result.queries.tolist() == [0, 0, 0]
    assert result.target is None


def test_noise_is_the_same_in_every_dtype_and_batch() -> None:
    images = GREY.float()
    single = GaussianNoise(0.2)(unused, images, LABELS, index=[4, 9])
    torch.testing.assert_close(
        GaussianNoise(0.2)(unused, GREY, LABELS, index=[4, 9]).float(), single, rtol=0, atol=1e-7
    )
    assert torch.equal(GaussianNoise(0.2)(unused, images[:1], LABELS[:1], index=[9])[0], single[1])
