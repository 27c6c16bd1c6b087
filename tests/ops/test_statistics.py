"""Mean and variance of every channel: torch's own in float64 as the oracle, both layouts, one image at a time."""

import pytest
import torch
from torch import Tensor

from shconv.ops.cpu import library
from shconv.ops.cuda import runtime
from shconv.ops.statistics import channel_mean_variance

# N, D, H, W
SHAPES = [
    (1, 1, 1, 1),
    (3, 5, 1, 1),
    (2, 3, 1, 7),
    (4, 16, 3, 5),
    (2, 17, 8, 8),
    (3, 33, 9, 11),
    (1, 2, 65, 31),
    (0, 4, 5, 5),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float32, torch.float64]

pytestmark = pytest.mark.filterwarnings("ignore:var_mean:UserWarning")  # torch's, of a batch without images
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to compute it; a machine without a compiler has one."""
    if request.param == "torch":
        monkeypatch.setattr(library, "kernels", lambda: "turned off")
    elif isinstance(reason := library.kernels(), str):
        pytest.skip(reason)


def images(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, offset: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + offset
    return x.to(dtype).contiguous(memory_format=layout)


def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x.double(), dim=(2, 3), correction=0)
    return mean, variance


def tolerance(dtype: torch.dtype) -> float:
    return 2e-6 if dtype == torch.float32 else 1e-13


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@layouts
@dtypes
def test_mean_and_population_variance_are_torchs(shape, dtype, layout):
    x = images(shape, dtype, layout)
    for ours, theirs in zip(channel_mean_variance(x), oracle(x), strict=True):
        assert ours.shape == shape[:2]
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance(dtype), atol=tolerance(dtype))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@layouts
@dtypes
def test_the_gradient_is_torchs(shape, dtype, layout):
    x = images(shape, dtype, layout)
    dmean, dvariance = torch.randn(shape[:2], dtype=dtype), torch.rand(shape[:2], dtype=dtype)
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    torch.autograd.backward(channel_mean_variance(ours), (dmean, dvariance))
    torch.autograd.backward(oracle(theirs), (dmean.double(), dvariance.double()))
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=10 * tolerance(dtype), atol=10 * tolerance(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@layouts
def test_low_precision_is_widened_before_anything_is_summed_and_only_the_gradient_rounded(dtype, layout):
    x = images((2, 5, 8, 7), dtype, layout)
    low, wide = x.clone().requires_grad_(), x.float().requires_grad_()
    got, wanted = channel_mean_variance(low), channel_mean_variance(wide)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    gradients = torch.randn(2, 5), torch.randn(2, 5)
    torch.autograd.backward(got, gradients)
    torch.autograd.backward(wanted, gradients)
    assert torch.equal(low.grad, wide.grad.to(dtype))


@pytest.mark.parametrize("used", [0, 1])
@dtypes
def test_one_result_alone_passes_its_gradient(used, dtype):
    x = images((2, 3, 4, 5), dtype, torch.contiguous_format)
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    channel_mean_variance(ours)[used].sum().backward()
    oracle(theirs)[used].sum().backward()
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-6)


@layouts
def test_gradcheck(layout):
    x = images((2, 3, 3, 4), torch.float64, layout).requires_grad_()
    assert torch.autograd.gradcheck(channel_mean_variance, (x,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(channel_mean_variance, (x,))


@layouts
def test_vmap_is_a_loop(layout):
    x = images((4, 3, 3, 4), torch.float64, layout).unflatten(0, (2, 2))
    for got, *wanted in zip(torch.func.vmap(channel_mean_variance)(x), *map(channel_mean_variance, x), strict=True):
        torch.testing.assert_close(got, torch.stack(wanted))


@layouts
@dtypes
def test_opcheck(layout, dtype):
    x = images((2, 3, 3, 4), dtype, layout).requires_grad_()
    torch.library.opcheck(torch.ops.shconv.channel_mean_variance.default, (x,))


@pytest.mark.parametrize("shape", [(7, 17, 8, 8), (5, 3, 1, 1), (6, 8, 5, 3)], ids=str)
@layouts
def test_an_images_numbers_have_the_same_bits_in_any_batch(shape, layout):
    x = images(shape, torch.float32, layout)
    together = channel_mean_variance(x)
    for n in range(len(x)):
        alone = channel_mean_variance(x[n : n + 1].contiguous(memory_format=layout))
        assert all(torch.equal(a[0], b[n]) for a, b in zip(alone, together, strict=True))
    some = [4, 1, 3]
    chosen = channel_mean_variance(x[some].contiguous(memory_format=layout))
    assert all(torch.equal(a, b[some]) for a, b in zip(chosen, together, strict=True))


@layouts
def test_a_large_mean_costs_the_variance_no_digits(layout):
    x = images((2, 5, 16, 16), torch.float32, layout, offset=1e3)
    mean, variance = channel_mean_variance(x)
    expected_mean, expected_variance = oracle(x)
    torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), expected_variance, rtol=1e-5, atol=0)


@dtypes
def test_a_constant_channel_has_variance_zero_and_a_finite_gradient(dtype):
    x = torch.full((2, 3, 5, 5), 0.3, dtype=dtype, requires_grad=True)
    mean, variance = channel_mean_variance(x)
    (variance.sum() + mean.sum()).backward()
    assert (variance.abs() < 1e-12).all()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 / 25))


@layouts
def test_the_input_is_left_alone_and_a_slice_counts_only_its_own_pixels(layout):
    whole = images((2, 6, 9, 9), torch.float32, layout)
    kept = whole.clone()
    part = whole[:, 1:4, 2:7, ::2]  # dense in neither layout
    torch.testing.assert_close(channel_mean_variance(part), channel_mean_variance(part.contiguous()))
    assert torch.equal(whole, kept)


@layouts
def test_no_images_are_given_to_kernels_in_no_direction(layout, monkeypatch):
    monkeypatch.setattr(runtime, "statistics_serve", lambda x: x[0].is_cuda)
    x = images((0, 4, 5, 5), torch.float32, layout).requires_grad_()
    (dX,) = torch.autograd.grad(channel_mean_variance(x), x, [torch.ones(0, 4)] * 2)
    assert dX.shape == x.shape
