"""The Triton formulation: against the reference in float64, interpreted and with a CUDA device on it too, where float32
is exact or rounded to TF32."""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from triton_toys import Run, places

from shconv.ops import reference
from shconv.ops.cuda import launches as formulation
from shconv.ops.cuda import runtime
from shconv.ops.geometry import Geometry

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
ALL = (True, True, True)
MASKS = [mask for mask in itertools.product((False, True), repeat=3) if any(mask)]
LAYOUTS = {"contiguous": torch.contiguous_format, "last": torch.channels_last}

# N, D, C, (H, W), kernel, stride, padding, dilation
SHAPES = [
    (2, 1, 1, (1, 1), (1, 1), 1, 0, 1),
    (3, 3, 5, (6, 6), (3, 3), 1, 1, 1),
    (2, 17, 20, (7, 9), (3, 3), 2, 1, 1),
    (2, 20, 17, (6, 5), (3, 3), 1, 1, 1),
    (17, 3, 2, (3, 4), (3, 2), 1, 1, 1),
    (3, 5, 3, (9, 5), (5, 2), (2, 1), (2, 1), 1),
    (2, 3, 17, (8, 9), (3, 3), 3, (1, 0), 1),
    (2, 5, 1, (9, 9), (3, 3), (1, 2), 2, 2),
    (4, 1, 3, (5, 7), (2, 2), (2, 3), 0, (2, 3)),
    (3, 33, 5, (2, 1), (1, 3), 1, (0, 3), 1),
    (2, 4, 8, (6, 6), (1, 1), 2, 0, 1),
    (1, 3, 3, (3, 4), (5, 5), 1, 3, 1),
]


def case(N, D, C, size, kernel, stride, padding, dilation, layout=torch.contiguous_format, dtype=torch.float32):
    """x, weight, M, dY and the geometry of a shape; the map is float32."""
    x, weight, M = torch.randn(N, D, *size), torch.randn(C, D, *kernel), torch.rand(N, *kernel)
    pairs = ((a, a) if isinstance(a, int) else a for a in (stride, padding, dilation))
    geometry = Geometry(*pairs, groups=1)
    dY = torch.randn(N, C, *geometry.output_size(x, weight))
    return x.to(dtype, memory_format=layout), weight.to(dtype), M, dY.to(dtype, memory_format=layout), geometry


class Wanted(NamedTuple):
    """A result by the reference in float64, and what may be lost on the way to it."""

    value: Tensor
    magnitude: Tensor  # the sum of the absolute values of the products that were summed
    count: int  # how many products


def truth(x, weight, M, dY, geometry) -> list[Wanted]:
    """Y and the gradients of x, weight and M."""

    def results(*tensors: Tensor) -> list[Tensor]:
        *inputs, gradient = (t.double().requires_grad_() for t in tensors)
        Y = reference.filtered_conv2d(*inputs, None, *geometry)
        return [Y.detach(), *torch.autograd.grad(Y, inputs, gradient)]

    counts = [weight[0].numel(), weight[:, 0].numel(), dY[:, 0].numel(), weight[:, :, 0, 0].numel() * dY[0, 0].numel()]
    magnitudes = results(*(t.abs() for t in (x, weight, M, dY)))
    return [Wanted(*each) for each in zip(results(x, weight, M, dY), magnitudes, counts, strict=True)]


def assert_rounding(got: Tensor, wanted: Wanted, tf32: bool = False) -> None:
    """Sums rounded in float32, then once to got's dtype (the interpreter cuts bfloat16 off instead). In TF32 each of a
    product's three factors may lose what its 10 bits have no room for, cut off as tensor cores do."""
    assert got.shape == wanted.value.shape
    error, largest = (got.double() - wanted.value).abs(), wanted.value.abs().max().clamp(min=1e-3)
    last = 0.0 if got.dtype == torch.float32 else torch.finfo(got.dtype).eps / (1 if got.dtype == torch.bfloat16 else 2)
    summed = (last + 2**-24 * 4 * max(wanted.count, 4) ** 0.5) * largest
    assert (error <= summed + (3 * 2**-10 * wanted.magnitude if tf32 else 0)).all()


@pytest.fixture(scope="module", params=places("interpreter", "cuda-float32", "cuda-tf32"))
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    with request.param() as place:
        yield place


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_equal_the_reference_and_every_element_is_written(shape, run):
    x, weight, M, dY, geometry = case(*shape, layout=torch.channels_last)
    results = [
        run(formulation.forward, x, weight, M, geometry),
        *run(formulation.backward, dY, x, weight, M, geometry, ALL),
    ]
    for got, wanted in zip(results, truth(x, weight, M, dY, geometry), strict=True):
        assert_rounding(got, wanted, run.tf32)


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_subset_of_the_gradients_is_what_was_asked_for(stride, mask, run):
    x, weight, M, dY, geometry = case(2, 5, 6, (7, 6), (3, 3), stride, 1, 1)
    gradients = run(formulation.backward, dY, x, weight, M, geometry, mask)
    for got, wanted, asked in zip(gradients, truth(x, weight, M, dY, geometry)[1:], mask, strict=True):
        assert (got is not None) == asked
        if got is not None:
            assert_rounding(got, wanted, run.tf32)


@pytest.mark.parametrize(("shape", "dtype"), [(SHAPES[2], torch.float16), (SHAPES[3], torch.bfloat16)], ids=str)
def test_half_precision_is_rounded_once_and_the_gradient_of_a_float32_map_not_at_all(shape, dtype, run):
    x, weight, M, dY, geometry = case(*shape, dtype=dtype)
    results = [
        run(formulation.forward, x, weight, M, geometry),
        *run(formulation.backward, dY, x, weight, M, geometry, ALL),
    ]
    assert [result.dtype for result in results] == [dtype, dtype, dtype, torch.float32]
    for got, wanted in zip(results, truth(x, weight, M, dY, geometry), strict=True):
        assert_rounding(got, wanted, run.tf32)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_results_take_the_layout_of_x_and_any_strides_and_maps_are_read(layout, run):
    x, weight, M, dY, geometry = case(3, 6, 10, (5, 4), (3, 3), 1, 1, 1, layout=layout)
    other = next(each for each in LAYOUTS.values() if each != layout)
    turned, expanded = weight.transpose(2, 3).contiguous().transpose(2, 3), dY[:, :1].expand_as(dY)
    Y = run(formulation.forward, x, turned, M.double(), geometry)
    for gradient in (dY.contiguous(memory_format=other), expanded):
        wanted = truth(x, weight, M, gradient, geometry)
        got = [Y, *run(formulation.backward, gradient, x, turned, M.double(), geometry, ALL)]
        for result, right in zip(got, wanted, strict=True):
            assert_rounding(result.float(), right, run.tf32)
    assert got[3].dtype == torch.float64
    assert all(images.is_contiguous(memory_format=layout) for images in got[:2])


@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[4], SHAPES[5]], ids=str)
def test_an_image_gives_the_same_bits_alone_elsewhere_and_beside_a_broken_one(shape, run):
    x, weight, M, dY, geometry = case(*shape)

    def results(images: list[int], broken: int | None = None) -> list[Tensor]:
        X = x[images].clone()
        if broken is not None:
            X[broken] = float("inf")
        dX, _, dM = run(formulation.backward, dY[images], X, weight, M[images], geometry, (True, False, True))
        return [run(formulation.forward, X, weight, M[images], geometry), dX, dM]

    alone, together, moved = results([0]), results(list(range(len(x)))), results([1, 1, 0, 1], broken=1)
    for one, many, other in zip(alone, together, moved, strict=True):
        assert torch.equal(one[0], many[0])
        assert torch.equal(one[0], other[2])


def test_pixels_that_are_no_numbers_stay_in_their_image_and_with_the_taps_that_reach_them(run):
    x, weight, M, dY, geometry = case(3, 5, 6, (4, 5), (3, 3), 1, 1, 1)

    def results(x: Tensor, dY: Tensor) -> list[Tensor]:
        dX, dW, dM = run(formulation.backward, dY, x, weight, M, geometry, ALL)
        return [run(formulation.forward, x, weight, M, geometry), dX, dM, dW]

    broken = x.clone(), dY.clone()
    broken[0][1, :, 0], broken[1][1, :, -1, -1] = float("inf"), float("nan")
    *found, dW = results(*broken)
    *clean, _ = results(x, dY)
    for got, wanted in zip(found, clean, strict=True):
        assert torch.equal(got[[0, 2]], wanted[[0, 2]])
        assert not got[1].isfinite().all()
    # The corner of dY has no pixel of x below it, nor to its right; the first row of x none of dY above.
    assert torch.equal(dW.isfinite()[0, 0], torch.tensor([[False, False, False], [False, False, False], [True] * 3]))


def _tuning(*arguments: Any) -> tuple[Tensor | None, ...]:
    """The gradients where larger tiles are preferred, after smaller ones were tried on the same memory."""
    import triton

    from shconv.ops.cuda import kernels as triton_kernels
    from shconv.ops.cuda import tuning

    timed = []

    def bench(call: Callable[[], None], quantiles: Any) -> list[float]:
        call()
        timed.append(1 / (1 + len(timed)))
        return timed[-1:] * 3

    settings = [triton.Config({"ROWS": rows, "COLUMNS": 16, "INNER": 16}) for rows in (16, 32)]
    tuned = triton_kernels.backward_input
    retuned = triton.autotune(settings, tuned.keys, reset_to_zero=tuned.reset_to_zero, do_bench=bench)(tuned.fn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_kernels, "backward_input", retuned)
        patch.setattr(triton_kernels, "_fitting", lambda configurations, named: configurations)
        patch.setattr(tuning, "measures", lambda products: True)
        gradients = formulation.backward(*arguments)
    assert retuned.best_config.kwargs["ROWS"] == 32
    return gradients


@pytest.mark.parametrize("run", places("interpreter"), indirect=True)
def test_trying_several_tiles_leaves_nothing_in_the_result(run):
    x, weight, M, dY, geometry = case(2, 5, 6, (9, 8), (3, 3), 2, 1, 1, dtype=torch.float16)
    *_, dM = run(_tuning, dY, x, weight, M, geometry, (True, False, True))
    assert_rounding(dM, truth(x, weight, M, dY, geometry)[3])


strides, dilations, sizes = st.integers(1, 4), st.integers(1, 4), st.integers(1, 9)


@given(sizes, sizes, st.integers(1, 5), strides, dilations, st.integers(0, 4))
def test_the_classes_of_pixels_hold_every_pixel_once_and_exactly_the_taps_that_reach_them(H, W, S, stride, dil, pad):
    geometry = Geometry((stride, 1), (pad, 0), (dil, 1), 1)
    step = formulation.steps(geometry)[0]
    pixels, taps = [], []
    for each in formulation.classes(H, W, torch.empty(1, 1, S, 1), geometry):
        rows = [each.first_h + stride * i for i in range(each.height)]
        reaching = [each.tap_h + step * i for i in range(each.taps_h)]
        assert reaching == [i for i in range(S) if (rows[0] + pad - i * dil) % stride == 0]
        pixels += [(h, each.first_w + w) for h in rows for w in range(each.width)]
        taps += reaching
    assert sorted(pixels) == list(itertools.product(range(H), range(W)))
    assert len(taps) == len(set(taps))


def test_what_it_cannot_serve_has_its_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, weight, _, _, geometry = case(2, 4, 4, (5, 5), (3, 3), 1, 1, 1)
    assert "CUDA" in formulation.reasons_against(x, weight, geometry)[0]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert formulation.reasons_against(x, weight, geometry) == []
    assert "float64" in formulation.reasons_against(x.double(), weight.double(), geometry)[0]
    assert "groups" in formulation.reasons_against(x, weight[:, :2], geometry._replace(groups=2))[0]
    many = torch.empty(2**27, 1, 5, 5, device="meta")
    assert "pixels" in formulation.reasons_against(many, weight, geometry)[-1]
    monkeypatch.setattr(runtime, "installed", lambda: False)
    assert "not installed" in formulation.reasons_against(x, weight, geometry)[0]
