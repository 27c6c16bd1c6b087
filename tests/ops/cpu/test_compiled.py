"""The compiled formulation: both of its routes against the reference in float64, independence of the batch, memory that
it must not read or leave unwritten."""

import ctypes
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cpu_toys import case, needs_kernels
from torch import Tensor

from shconv.ops import reference
from shconv.ops.cpu import compiled, library

MASKS = [mask for mask in itertools.product((False, True), repeat=3) if any(mask)]
ALL = (True, True, True)

# N, D, C, (H, W), kernel, stride, padding, dilation
SHAPES = [
    (2, 1, 1, (1, 1), (1, 1), 1, 0, 1),
    (3, 3, 5, (6, 6), (3, 3), 1, 1, 1),
    (5, 17, 33, (7, 9), (3, 3), 2, 1, 1),
    (2, 33, 17, (9, 8), (3, 3), 1, 1, 1),
    (7, 16, 24, (4, 4), (3, 3), 1, 1, 1),
    (5, 18, 20, (8, 8), (3, 3), 1, 1, 1),
    (3, 5, 3, (9, 5), (5, 2), (2, 1), (2, 1), 1),
    (2, 3, 17, (8, 9), (3, 3), 3, (1, 0), 1),
    (2, 5, 1, (9, 9), (3, 3), (1, 2), 2, 2),
    (4, 1, 3, (5, 7), (2, 2), 1, 0, (2, 3)),
    (3, 17, 5, (2, 1), (1, 3), 1, (0, 3), 1),
    (2, 33, 8, (6, 6), (1, 1), 2, 0, 1),
    (1, 3, 3, (3, 4), (5, 5), 1, 3, 1),
    (4, 9, 7, (6, 5), (6, 5), 1, 0, 1),  # the kernel spans the image: dY has one pixel
    (1, 70, 75, (17, 33), (3, 3), 1, 1, 1),
    (2, 20, 9, (34, 31), (3, 3), 2, 1, 1),
    (2, 3, 64, (15, 14), (7, 7), 2, 3, 1),
    (3, 18, 35, (6, 5), (1, 1), 1, 0, 1),
    (2, 16, 49, (9, 8), (3, 3), 1, 0, 1),
    (9, 24, 16, (1, 1), (3, 3), 1, 1, 1),
]
LAYOUTS = {"contiguous": torch.contiguous_format, "last": torch.channels_last}
in_both_layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def truth(x, weight, M, dY, geometry):
    """Y and the gradients of x, weight and M by the reference, in float64."""
    inputs = [t.double().requires_grad_() for t in (x, weight, M)]
    Y = reference.filtered_conv2d(*inputs, None, *geometry)
    return Y.detach(), torch.autograd.grad(Y, inputs, dY.double())


def assert_rounding(got: Tensor, wanted: Tensor, terms: int) -> None:
    assert got.shape == wanted.shape
    error = (got.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3)
    assert error < 2**-24 * 4 * max(terms, 4) ** 0.5


@pytest.fixture(params=[False, True], ids=["images", "taps"])
def by_taps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(compiled, "_routes", lambda *_: (request.param, request.param))
    return request.param


@pytest.fixture
def keep_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@needs_kernels
@in_both_layouts
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_every_subset_of_gradients_equal_the_reference(shape, layout, by_taps):
    x, weight, M, dY, geometry = case(*shape, layout=layout)
    Y, gradients = truth(x, weight, M, dY, geometry)
    terms = (weight[0].numel(), weight[:, 0].numel(), dY[:, 0].numel(), weight[:, :, 0, 0].numel() * dY[0, 0].numel())
    assert_rounding(compiled.forward(x, weight, M, geometry), Y, terms[0])
    for mask in MASKS:
        got = compiled.backward(dY, x, weight, M, geometry, mask)
        for gradient, wanted, asked, count in zip(got, gradients, mask, terms[1:], strict=True):
            assert (gradient is not None) == asked
            if gradient is not None:
                assert_rounding(gradient, wanted, count)


@needs_kernels
@in_both_layouts
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_element_of_the_results_is_written_and_nothing_beside_them(shape, layout, by_taps, monkeypatch):
    written = []

    def within_margins(
        shape: tuple[int, ...], memory_format: torch.memory_format = torch.preserve_format, **_: Any
    ) -> Tensor:
        written.append(torch.full((math.prod(shape) + 128,), 7.0))
        inner = written[-1][64:-64].fill_(float("nan"))
        if memory_format != torch.channels_last:
            return inner.view(shape)
        return inner.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)

    x, weight, M, dY, geometry = case(*shape, layout=layout)
    monkeypatch.setattr(torch, "empty", within_margins)
    monkeypatch.setattr(torch, "empty_like", lambda of, **layout: within_margins(of.shape, **layout))
    results = [compiled.forward(x, weight, M, geometry), *compiled.backward(dY, x, weight, M, geometry, ALL)]
    assert len(written) == len(results)
    assert all(result.isfinite().all() for result in results)
    assert all((memory[:64] == 7).all() and (memory[-64:] == 7).all() for memory in written)


@needs_kernels
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 1], ids=str)
@pytest.mark.parametrize("mask", [ALL, (True, False, True)], ids=["all", "no dW"])
@in_both_layouts
def test_an_image_gives_the_same_bits_alone_elsewhere_and_beside_a_broken_one(shape, mask, layout, by_taps):
    x, weight, M, dY, geometry = case(*shape, layout=layout)

    def results(images: list[int], broken: int | None = None) -> list[Tensor]:
        X = x[images].clone()
        if broken is not None:
            X[broken] = float("inf")
        dX, _, dM = compiled.backward(dY[images], X, weight, M[images], geometry, mask)
        return [compiled.forward(X, weight, M[images], geometry), dX, dM]

    alone = results([0])
    together = results(list(range(len(x))))
    moved = results([1, 1, 0, 1], broken=1)
    for one, many, other in zip(alone, together, moved, strict=True):
        assert torch.equal(one[0], many[0])
        assert torch.equal(one[0], other[2])


@needs_kernels
@in_both_layouts
@pytest.mark.parametrize("mask", [ALL, (True, False, True)], ids=["all", "no dW"])
def test_what_is_infinite_reaches_only_the_outputs_and_the_taps_that_see_it(mask, layout, by_taps):
    """A corner of x under a padded 3x3 kernel is seen by four outputs, through the four taps up and left."""
    x, weight, M, dY, geometry = case(3, 18, 35, (7, 6), (3, 3), 1, 1, 1, layout=layout)
    x[1, :, 0, 0] = float("inf")
    Y, (dX, _, dM) = compiled.forward(x, weight, M, geometry), compiled.backward(dY, x, weight, M, geometry, mask)
    seen, through = torch.zeros(3, 7, 6, dtype=torch.bool), torch.zeros(3, 3, 3, dtype=torch.bool)
    seen[1, :2, :2] = through[1, :2, :2] = True
    assert torch.equal(~Y.isfinite().all(dim=1), seen)
    assert dX.isfinite().all()
    assert torch.equal(~dM.isfinite(), through)


@needs_kernels
@pytest.mark.usefixtures("keep_threads")
@in_both_layouts
@pytest.mark.parametrize("shape", [*SHAPES[2:7], *SHAPES[13:16]], ids=str)
def test_neither_the_number_of_threads_nor_whose_they_are_changes_a_bit_of_what_belongs_to_one_image(
    shape, layout, by_taps, monkeypatch
):
    x, weight, M, dY, geometry = case(*shape, layout=layout)
    runs = []
    for threads, pool in ((1, library.torch_threads()), (2, library.torch_threads()), (2, ctypes.c_void_p(None))):
        torch.set_num_threads(threads)
        monkeypatch.setattr(library, "torch_threads", lambda pool=pool: pool)
        dX, dW, dM = compiled.backward(dY, x, weight, M, geometry, ALL)
        runs.append((compiled.forward(x, weight, M, geometry), dX, dM, dW))
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(runs[0][:3], run[:3], strict=True))
        assert_rounding(run[3], runs[0][3].double(), dY[:, 0].numel())


@needs_kernels
def test_the_results_take_the_layout_of_x_and_any_strides_are_read(by_taps):
    x, weight, M, dY, geometry = case(3, 6, 10, (8, 8), (3, 3), 1, 1, 1)
    Y, (dX, dW, dM) = truth(x, weight, M, dY, geometry)
    wide, turned = torch.zeros(3, 6, 8, 16), weight.transpose(2, 3).contiguous().transpose(2, 3)
    wide[..., ::2] = x
    last = dY.to(memory_format=torch.channels_last)
    assert_rounding(compiled.forward(wide[..., ::2], turned, M.double(), geometry), Y, 54)
    got = compiled.backward(last, wide[..., ::2], turned, M.double(), geometry, ALL)
    for gradient, wanted in zip(got, (dX, dW, dM), strict=True):
        assert_rounding(gradient, wanted, 640)
    assert got[2].dtype == torch.float64
    got = compiled.backward(dY, x.to(memory_format=torch.channels_last), turned, M, geometry, (True, False, True))
    assert_rounding(got[0], dX, 90)
    assert_rounding(got[2], dM, 640)
    assert got[0].is_contiguous(memory_format=torch.channels_last)
    assert compiled.forward(last, weight.transpose(0, 1), M, geometry).is_contiguous(memory_format=torch.channels_last)


@needs_kernels
@in_both_layouts
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_layout_of_the_weight_changes_no_bit_and_its_gradient_takes_it(shape, layout, by_taps):
    x, weight, M, dY, geometry = case(*shape, layout=layout)
    turned = weight.contiguous(memory_format=torch.channels_last)
    runs = [
        (compiled.forward(x, W, M, geometry), *compiled.backward(dY, x, W, M, geometry, ALL)) for W in (weight, turned)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
    assert runs[1][2].is_contiguous(memory_format=torch.channels_last)


@needs_kernels
def test_what_it_cannot_serve_has_its_reason():
    x, weight, _, _, geometry = case(2, 4, 4, (5, 5), (3, 3), 1, 1, 1)
    assert compiled.reasons_against(x, weight, geometry) == []
    assert "groups" in compiled.reasons_against(x, weight[:, :2], geometry._replace(groups=2))[0]
    assert "float32" in compiled.reasons_against(x.double(), weight.double(), geometry)[0]
    assert "CPU" in compiled.reasons_against(x.to("meta"), weight.to("meta"), geometry)[0]


@needs_kernels
def test_bfloat16_is_computed_in_float32_and_rounded_once():
    x, weight, M, dY, geometry = case(*SHAPES[2])
    low = [t.bfloat16() for t in (x, weight, dY)]
    x, weight, dY = (t.float() for t in low)
    assert torch.equal(compiled.forward(*low[:2], M, geometry), compiled.forward(x, weight, M, geometry).bfloat16())
    dX, dW, dM = compiled.backward(low[2], *low[:2], M, geometry, ALL)
    exact = compiled.backward(dY, x, weight, M, geometry, ALL)
    assert torch.equal(dX, exact[0].bfloat16())
    assert torch.equal(dW, exact[1].bfloat16())
    assert torch.equal(dM, exact[2])
