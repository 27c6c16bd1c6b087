"""Salt and pepper, Gaussian blur, semi-random noise: what they draw, and the smallest amount that fools."""

import numpy as np
import pytest
import torch
from attack_toys import Linear, inner_images
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from shconv.attacks import DeepFool, GaussianBlur, SaltAndPepper, SemiRandom
from shconv.attacks.base import generators
from shconv.attacks.semi_random import Subspace

ZEROS = torch.zeros(40, dtype=torch.int64)


def unused(x: Tensor) -> Tensor:
    raise AssertionError("a given amount needs no model")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_given_share_of_the_pixels_becomes_white_or_black(share: float) -> None:
    x = inner_images(40, (3, 10, 10))
    noisy = SaltAndPepper(share)(unused, x, ZEROS)
    changed = noisy != x
    assert torch.equal(changed.any(1), changed.all(1))
    assert (changed.any(1).sum((1, 2)) == round(100 * share)).all()
    values = noisy.permute(0, 2, 3, 1)[changed.any(1)]  # (pixels, channels)
    assert torch.equal(values.amin(1), values.amax(1))
    assert set(values.unique().tolist()) <= {0.0, 1.0}
    if share:
        assert float(values.mean()) == pytest.approx(0.5, abs=0.1)


def test_the_pixels_of_a_smaller_share_are_among_those_of_a_larger() -> None:
    x = inner_images(40, (3, 10, 10))
    few, many = (SaltAndPepper(share)(unused, x, ZEROS, seed=4) for share in (0.2, 0.6))
    assert torch.equal(torch.where(few != x, few, many), many)


@pytest.mark.parametrize("levels", [2, 10, 100])
def test_the_smallest_share_that_fools_is_the_one_at_which_the_prediction_turns(levels: int) -> None:
    def extremes(z: Tensor) -> Tensor:
        """Class 1 where at least 37 of the 100 pixels are white or black."""
        count = ((z == 0) | (z == 1)).sum((1, 2, 3)).double()
        return torch.stack([36.5 - count, count - 36.5], 1)

    x = inner_images(40, (1, 10, 10))
    result = SaltAndPepper(levels=levels).run(extremes, x, ZEROS)
    resolution = 100 / levels / 32
    count = (result.images != x).sum((1, 2, 3))
    assert int(count.min()) >= 37
    assert int(count.max()) <= 37 + resolution
    assert result.queries.tolist() == [1 + int(np.ceil(0.37 * levels - 0.01)) + 5] * 40


@pytest.mark.parametrize("width", [0.0, 0.4, 1.0, 3.0])
def test_blur_is_scipys_scaled_to_the_weights_inside(width: float) -> None:
    x = inner_images(3, (2, 9, 7)) / 0.7
    ours = GaussianBlur(width)(unused, x, ZEROS[:3])
    wanted, weight = x.numpy(), np.ones_like(x.numpy())
    for axis in (2, 3) if width else ():
        wanted, weight = (gaussian_filter1d(each, width, axis, mode="constant", radius=12) for each in (wanted, weight))
    np.testing.assert_allclose(ours.numpy(), wanted / weight, rtol=1e-12)


def test_the_smallest_blur_that_fools_flattens_just_enough() -> None:
    x = (torch.arange(12) % 2).double().expand(2, 1, 12, 12).contiguous()

    def striped(z: Tensor) -> Tensor:
        contrast = z.diff(dim=3).abs().mean((1, 2, 3))
        return torch.stack([contrast, 0 * contrast + 0.3], 1)

    result = GaussianBlur(levels=20).run(striped, x, ZEROS[:2])
    contrast = striped(result.images)[:, 0]
    assert bool((contrast < 0.3).all())
    assert bool((contrast > 0.27).all())


@pytest.mark.parametrize("share", [0.02, 0.25, 0.7, 1.0])
def test_a_random_subspace_has_an_orthogonal_projector_of_the_right_rank(share: float) -> None:
    x = torch.zeros(1, 2, 5, 4, dtype=torch.float64)
    subspace = Subspace.drawn(x, share, generators(0, 19, [5]))
    rows, place = torch.eye(40).double().view(40, 1, 2, 5, 4), torch.tensor([0])
    matrix = torch.stack([subspace.project(place, row).flatten() for row in rows])
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix @ matrix, matrix)
    assert float(matrix.trace()) == pytest.approx(max(1, round(share * 40)))


def test_a_random_subspace_holds_its_share_of_any_vector() -> None:
    """The squared length of a projection has mean m/n and, if uniform, variance 2 m (n - m) / (n^2 (n + 2))."""
    shape, images = (3, 8, 8), 400
    vector = torch.linspace(0, 1, 192, dtype=torch.float64).view(1, *shape)
    x = vector.expand(images, *shape)
    part = Subspace.drawn(x, 0.25, generators(1, 19, range(images))).project(torch.arange(images), x)
    share = part.square().sum((1, 2, 3)) / vector.square().sum()
    m, n = 48, 192
    deviation = (2 * m * (n - m) / (n**2 * (n + 2))) ** 0.5
    assert float(share.mean()) == pytest.approx(0.25, abs=5 * deviation / images**0.5)
    assert float(share.std()) == pytest.approx(deviation, rel=0.25)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_on_a_linear_model_semi_random_noise_goes_to_the_boundary_along_the_projected_weights(share: float) -> None:
    model, x = Linear(2, (3, 6, 6)), inner_images(20, (3, 6, 6))
    y = model(x).argmax(1)
    result = SemiRandom(share=share).run(model, x, y, seed=3)
    w = (model.weight[1] - model.weight[0]).expand_as(x)
    projected = Subspace.drawn(x, share, generators(3, 19, range(20))).project(torch.arange(20), w)
    wanted = 1.02 * model(x).diff(dim=1)[:, 0].abs() / projected.flatten(1).norm(dim=1)
    torch.testing.assert_close(result.distances["l2"], wanted)
    deepfool = DeepFool().run(model, x, y).distances["l2"]
    assert float((result.distances["l2"] / deepfool).mean()) == pytest.approx(share**-0.5, rel=0.1)
