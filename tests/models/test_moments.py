"""Moments through layers: exact where a layer is linear, by quadrature where it is not."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad  # type: ignore[import-untyped]
from torch import Tensor, nn

from shconv import SHConv2d
from shconv.errors import InputError
from shconv.models.moments import Moments, add, average, larger, relu, through
from shconv.models.normalize import Normalize
from shconv.ops.reference import filtered_conv2d
from shconv.routes import frozen_kernels, gradient_route


def numbers(*shape: int, seed: int = 0) -> Moments:
    draw = torch.Generator().manual_seed(seed)
    mean, variance = (torch.rand(*shape, generator=draw, dtype=torch.float64) for _ in range(2))
    return Moments(mean - 0.3, variance)


def of_linear(f: Callable[[Tensor], Tensor], x: Moments) -> Moments:
    """f is affine: the variance is its squared Jacobian times x's."""
    J = torch.autograd.functional.jacobian(f, x.mean)
    out = f(x.mean)
    variance = J.reshape(out.numel(), -1).square() @ x.variance.flatten()
    return Moments(out, variance.view_as(out))


def check(found: Moments, wanted: Moments) -> None:
    for here, there in zip(found, wanted, strict=True):
        torch.testing.assert_close(here.double(), there.double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(3, 6, 3, stride=2, groups=3, bias=False),
        nn.Conv2d(3, 2, (3, 2), padding=(1, 0), dilation=(1, 2)),
        nn.Conv2d(3, 2, 3, padding="same"),
        nn.BatchNorm2d(3).eval(),
        nn.BatchNorm2d(3, affine=False).eval(),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Identity(),
        nn.Dropout(0.4).eval(),
        nn.Sequential(nn.Flatten(), nn.Linear(48, 5)),
        Normalize((0.2, 0.4, 0.6), (0.5, 0.25, 2.0)),
    ],
    ids=lambda layer: str(layer)[:40],
)
def test_linear_layers_are_exact(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer, x = layer.double(), numbers(2, 3, 4, 4)
    for name, buffer in layer.named_buffers():
        if name.startswith("running"):
            buffer.uniform_(0.5, 2)
    parts = list(layer) if isinstance(layer, nn.Sequential) else [layer]
    found = x
    for part in parts:
        found = through(part, found)
    check(found, of_linear(layer, x))


def test_a_statistical_hyper_convolution_is_exact_for_the_map_of_the_mean() -> None:
    torch.manual_seed(0)
    for options in ({}, {"map_groups": 2}, {"stride": 2, "groups": 2}):
        layer, x = SHConv2d(4, 6, 3, padding=1, **options).double(), numbers(1, 4, 5, 5)  # type: ignore[arg-type]
        found = through(layer, x)
        with gradient_route(layer, "convolution"):  # the map held constant, the layer is linear
            check(found, of_linear(layer, x))


@given(mean=st.floats(-5, 5), deviation=st.floats(0.01, 3))
def test_relu_has_the_moments_of_the_integral(mean: float, deviation: float) -> None:
    found = relu(Moments(*(torch.tensor(each, dtype=torch.float64) for each in (mean, deviation**2))))

    def moment(power: int) -> float:
        def density(z: float) -> float:
            return max(0.0, mean + deviation * z) ** power * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        kink = min(12.0, max(-12.0, -mean / deviation))
        return quad(density, -12, 12, points=[kink], epsabs=1e-12)[0]

    first, second = moment(1), moment(2)
    assert float(found.mean) == pytest.approx(first, abs=1e-8)
    assert float(found.variance) == pytest.approx(second - first**2, abs=1e-7)


def test_relu_is_plain_far_from_the_kink_in_float32_too_and_its_gradient_is_finite() -> None:
    mean = torch.tensor([1e4, -1e4, 1.0, -1.0, 0.0], requires_grad=True)
    variance = torch.tensor([1e-3, 1e-3, 0.0, 0.0, 0.0], requires_grad=True)
    found = relu(Moments(mean, variance))
    torch.testing.assert_close(found.mean, mean.clamp_min(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.variance[:4], torch.tensor([1e-3, 0, 0, 0]), rtol=1e-3, atol=1e-9)
    sum(each.sum() for each in found).backward()  # type: ignore[union-attr]
    assert mean.grad is not None
    assert variance.grad is not None
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(variance.grad).all()


@pytest.mark.parametrize(("a", "b"), [((0.3, 0.5), (0.1, 0.2)), ((-1.0, 0.1), (1.0, 2.0)), ((0.0, 1.0), (0.0, 1.0))])
def test_the_larger_of_two_has_the_moments_of_the_integral(a: tuple[float, float], b: tuple[float, float]) -> None:
    def density(z: float, w: float) -> float:
        return math.exp(-(z * z + w * w) / 2) / (2 * math.pi)

    def of(power: int) -> float:
        def f(z: float, w: float) -> float:
            return max(a[0] + math.sqrt(a[1]) * z, b[0] + math.sqrt(b[1]) * w) ** power * density(z, w)

        return dblquad(f, -7, 7, -7, 7, epsabs=1e-7)[0]

    first, second = of(1), of(2)
    found = larger(*(Moments(*(torch.tensor(each, dtype=torch.float64) for each in pair)) for pair in (a, b)))
    assert float(found.mean) == pytest.approx(first, abs=1e-5)
    assert float(found.variance) == pytest.approx(second - first**2, abs=1e-5)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, stride=2, padding=1), nn.MaxPool2d(2), nn.MaxPool2d((1, 3), 1)])
def test_a_max_pool_is_the_layers_own_without_variance_and_near_the_truth_with_it(pool: nn.MaxPool2d) -> None:
    x = numbers(2, 3, 6, 6)
    still = through(pool, Moments(x.mean, torch.zeros_like(x.variance)))
    torch.testing.assert_close(still.mean, pool(x.mean), rtol=0, atol=1e-5)
    assert still.variance.max() < 1e-5
    found = through(pool, Moments(x.mean, x.variance))
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(4000, *x.mean.shape, generator=draw, dtype=torch.float64)
    drawn = torch.stack([pool(x.mean + x.variance.sqrt() * each) for each in noise])
    torch.testing.assert_close(found.mean, drawn.mean(0), rtol=0, atol=0.08)
    assert (found.variance - drawn.var(0)).abs().mean() < 0.25 * drawn.var(0).mean()  # pairs are no normal numbers


def test_a_max_pool_waits_for_no_number_and_so_has_shapes_without_memory() -> None:
    nothing = torch.empty(2, 3, 9, 9, device="meta")
    found = through(nn.MaxPool2d(3, 2, 1), Moments(nothing, nothing))
    assert [tuple(each.shape) for each in found] == [(2, 3, 5, 5)] * 2


def test_batch_norm_in_train_mode_does_to_noisy_batches_what_torch_does_to_many_of_them() -> None:
    torch.manual_seed(0)
    x = numbers(4, 3, 5, 5)
    ours, theirs = (nn.BatchNorm2d(3, momentum=0.3).double() for _ in range(2))
    for layer in (ours, theirs):
        nn.init.uniform_(layer.weight, 0.5, 2, generator=torch.Generator().manual_seed(3))
    found = through(ours, x)
    n = 500
    mean, variance = (each.repeat(n, 1, 1, 1) for each in x)
    noisy = mean + variance.sqrt() * torch.randn_like(mean)
    seen = theirs(noisy).view(n, *x.mean.shape)
    torch.testing.assert_close(found.mean, seen.mean(0), rtol=0, atol=0.3)
    torch.testing.assert_close(found.variance.mean((0, 2, 3)), seen.var(0).mean((0, 2, 3)), rtol=0.02, atol=0)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=0, atol=0.01)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=0.02, atol=0)
    assert ours.num_batches_tracked == 1


def test_dropouts_noise_is_carried_along() -> None:
    x, layer = numbers(6, seed=2), nn.Dropout(0.3)
    found = through(layer, x)
    kept = torch.tensor(np.random.default_rng(0).random((200_000, 6)) > 0.3)
    drawn = (x.mean + x.variance.sqrt() * torch.randn(200_000, 6, dtype=torch.float64)) * kept / 0.7
    torch.testing.assert_close(found.mean, drawn.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(found.variance, drawn.var(0), rtol=0.03, atol=0)


def test_sums_and_means_of_independent_numbers() -> None:
    x, y = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=5)
    check(add(x, y), Moments(x.mean + y.mean, x.variance + y.variance))
    check(add(x, 2.0), Moments(x.mean + 2, x.variance))
    check(average(x, (2, 3)), of_linear(lambda z: z.mean((2, 3)), x))


class Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, 2 * self.weight, self.bias)


@pytest.mark.parametrize(
    "layer",
    [Doubled(3, 3, 3), nn.GELU(), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, padding=1), nn.AdaptiveAvgPool2d(2)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_without_a_rule_is_refused(layer: nn.Module) -> None:
    with pytest.raises(InputError, match="the noise model has no rule for"):
        through(layer, numbers(1, 3, 6, 6))


def test_frozen_maps_of_a_layer_in_two_places_are_those_of_each() -> None:
    layer, x = SHConv2d(3, 3, 3, padding=1, dtype=torch.float64), numbers(2, 3, 5, 4)
    with torch.no_grad():
        maps = [layer.hyper(x.mean), layer.hyper(layer(x.mean))]
        with frozen_kernels(nn.Sequential(layer, layer), x.mean):
            for M in maps:
                mean = filtered_conv2d(x.mean, layer.weight, M, layer.bias, padding=1)
                variance = filtered_conv2d(x.variance, layer.weight**2, M**2, padding=1)
                check(through(layer, x), Moments(mean, variance))
