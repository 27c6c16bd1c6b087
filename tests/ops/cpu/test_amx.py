"""The bfloat16 formulation on matrix tiles: all of its routes against the reference in float64, independence of batch,
layout and threads, memory it must not read or leave unwritten."""

import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.ops import filtered_conv2d, reference
from shconv.ops.choice import choose
from shconv.ops.cpu import amx, library
from shconv.ops.geometry import Geometry

pytestmark = pytest.mark.skipif(
    not library.has_bfloat16(), reason="the processor (or its compiler) has no bfloat16 tiles (AMX)"
)
LAYOUTS = {"contiguous": torch.contiguous_format, "last": torch.channels_last}
MASKS = [mask for mask in itertools.product((False, True), repeat=3) if any(mask)]

# N, D, C, (H, W), kernel, stride, padding, dilation
SHAPES = [
    (2, 1, 1, (1, 1), (1, 1), 1, 0, 1),
    (3, 16, 16, (8, 8), (3, 3), 1, 1, 1),
    (5, 17, 33, (7, 9), (3, 3), 2, 1, 1),
    (2, 40, 33, (5, 17), (3, 3), 1, 1, 1),
    (7, 32, 64, (4, 4), (3, 3), 2, 1, 1),
    (3, 5, 3, (9, 5), (5, 2), (2, 1), (2, 1), 1),
    (2, 3, 17, (8, 9), (3, 3), 3, (1, 0), 1),
    (2, 5, 49, (9, 9), (3, 3), (1, 2), 2, 2),
    (4, 1, 3, (5, 7), (2, 2), 1, 0, (2, 3)),
    (3, 16, 5, (8, 8), (1, 1), 2, 0, 1),
    (1, 3, 3, (3, 4), (5, 5), 1, 3, 1),
    (2, 70, 20, (34, 31), (3, 3), 1, 1, 1),
]


def case(N, D, C, size, kernel, stride, padding, dilation):
    """x, weight, M, dY in bfloat16 (M in float32) and the geometry of a shape."""
    generator = torch.Generator().manual_seed(N + 7 * D + 31 * C)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    x, weight = normal(N, D, *size), normal(C, D, *kernel)
    M = torch.rand(N, *kernel, generator=generator)
    pairs = ((a, a) if isinstance(a, int) else a for a in (stride, padding, dilation))
    geometry = Geometry(*pairs, groups=1)
    return x, weight, M, normal(N, C, *geometry.output_size(x, weight)), geometry


def truth(x, weight, M, dY, geometry):
    inputs = [t.double().requires_grad_() for t in (x, weight, M)]
    Y = reference.filtered_conv2d(*inputs, None, *geometry)
    return Y.detach(), torch.autograd.grad(Y, inputs, dY.double())


def assert_close(got: Tensor, wanted: Tensor) -> None:
    """Within a rounding of the scaled operand and one of the result: 2^-9 each, of the largest element."""
    assert got.shape == wanted.shape
    assert (got.double() - wanted).abs().max() <= 2**-8 * 1.5 * wanted.abs().max()


@pytest.fixture(params=[(False, False), (True, False), (True, True)], ids=["taps", "images", "dM_with_dW"])
def routes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx, "_routes", lambda *_: request.param)


@pytest.fixture
def keep_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_every_subset_of_gradients_equal_the_reference(shape, routes):
    x, weight, M, dY, geometry = case(*shape)
    Y, gradients = truth(x, weight, M, dY, geometry)
    for x_layout, y_layout, w_layout in itertools.product(LAYOUTS.values(), repeat=3):
        x, dY = x.contiguous(memory_format=x_layout), dY.contiguous(memory_format=y_layout)
        weight = weight.contiguous(memory_format=w_layout)
        assert_close(amx.forward(x, weight, M, geometry), Y)
        for mask in MASKS if x_layout == y_layout == w_layout else MASKS[-1:]:
            got = amx.backward(dY, x, weight, M, geometry, mask)
            for gradient, wanted, asked in zip(got, gradients, mask, strict=True):
                assert (gradient is not None) == asked
                if gradient is not None:
                    assert_close(gradient, wanted)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_element_of_the_results_is_written(layout, routes, monkeypatch):
    """Results are made of NaN: one that stays was never written. dX has pixels that no tap reaches: zero."""
    monkeypatch.setattr(torch, "empty", lambda *a, **k: torch.full(*a[:1], torch.nan, dtype=k["dtype"]).contiguous(
        memory_format=k["memory_format"]))  # fmt: skip
    plain = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: plain(*a, **k).fill_(torch.nan))
    x, weight, M, dY, geometry = case(3, 20, 36, (9, 7), (1, 1), 2, 0, 1)
    x, dY = x.contiguous(memory_format=layout), dY.contiguous(memory_format=layout)
    assert amx.forward(x, weight, M, geometry).isfinite().all()
    dX, dW, dM = amx.backward(dY, x, weight, M, geometry, (True, True, True))
    assert dX is not None
    assert dW is not None
    assert dM is not None
    assert dX.isfinite().all()
    assert dW.isfinite().all()
    assert dM.isfinite().all()
    assert not dX[:, :, 1::2].any()
    assert not dX[..., 1::2].any()
    assert dX.any()


@pytest.mark.parametrize("size", [(8, 8), (33, 20)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_an_image_has_the_same_bits_in_any_batch_and_on_any_number_of_threads(size, layout, keep_threads):
    x, weight, M, dY, geometry = case(9, 40, 24, size, (3, 3), 1, 1, 1)
    x, dY = x.contiguous(memory_format=layout), dY.contiguous(memory_format=layout)
    inputs = (True, False, True)
    whole = (amx.forward(x, weight, M, geometry), *amx.backward(dY, x, weight, M, geometry, inputs))
    torch.set_num_threads(3)
    part = slice(4, 6)
    alone = (
        amx.forward(x[part], weight, M[part], geometry),
        *amx.backward(dY[part], x[part], weight, M[part], geometry, inputs),
    )
    for all_images, two_images in zip(whole, alone, strict=True):
        if two_images is not None:
            assert torch.equal(all_images[part], two_images)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_nan_in_an_image_stays_in_its_image(layout):
    x, weight, M, dY, geometry = case(4, 17, 33, (6, 6), (3, 3), 1, 1, 1)
    x, dY = x.contiguous(memory_format=layout), dY.contiguous(memory_format=layout)
    x[1], dY[1] = torch.nan, torch.nan
    Y = amx.forward(x, weight, M, geometry)
    dX, _, dM = amx.backward(dY, x, weight, M, geometry, (True, False, True))
    assert dX is not None
    assert dM is not None
    others = [0, 2, 3]
    assert Y[others].isfinite().all()
    assert dX[others].isfinite().all()
    assert dM[others].isfinite().all()
    assert Y[1].isnan().any()
    assert dX[1].isnan().any()
    assert dM[1].isnan().any()


def test_a_map_of_ones_gives_torchs_own_convolution_after_torch_has_used_the_tiles():
    """torch's kernels configure the same tiles: neither side may find the other's configuration."""
    x, weight, M, _, geometry = case(4, 64, 64, (16, 16), (3, 3), 1, 1, 1)
    for _ in range(3):
        Y = F.conv2d(x, weight, None, 1, 1)
        assert_close(amx.forward(x, weight, torch.ones_like(M), geometry), Y.double())
        assert torch.equal(F.conv2d(x, weight, None, 1, 1), Y)


def test_auto_takes_the_tiles_for_bfloat16_and_others_say_why_they_cannot():
    x, weight, M, _, geometry = case(2, 8, 8, (5, 5), (3, 3), 1, 1, 1)
    assert choose(x, weight, geometry, x.device) == "amx"
    assert "bfloat16" in amx.reasons_against(x.float(), weight.float(), geometry)[0]
    Y = filtered_conv2d(x, weight, M, None, 1, 1, formulation="amx")
    assert torch.equal(Y, filtered_conv2d(x, weight, M, None, 1, 1))
