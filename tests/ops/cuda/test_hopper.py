"""The Hopper kernels: interpreted against the reference in float64, beside images that are no numbers, and compiled for
an sm_90 that nobody has here, where what made such kernels slow or wrong on a card is looked for in what the compiler
made of them."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_toys import PLACES, Run

from shconv.errors import InputError
from shconv.ops import reference
from shconv.ops.cuda import tape
from shconv.ops.cuda.ahead import StandIn
from shconv.ops.cuda.hopper import passes, tiles
from shconv.ops.cuda.hopper.tiles import Shape, Tile
from shconv.ops.geometry import Geometry

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
IMAGES, WEIGHTS = Tile(32, 16, 16, 1, 1), Tile(16, 16, 32, 1, 1)
# each step's product scaled at once, and so in halves of a tile
IN_PARTS = {
    "a step at once": (IMAGES._replace(parts=1), WEIGHTS._replace(parts=1)),
    "in halves": (Tile(32, 16, 16, 1, 1, 2), Tile(16, 32, 32, 1, 1, 2)),
}

# N, D, C, (H, W), kernel, stride: ragged channels, lines that end beside an image, an image in one box, more than one
# tile of programs, taps beyond the next pixel
SHAPES = [
    (2, 24, 40, (2, 18), (3, 3), 1),
    (2, 32, 16, (4, 6), (3, 3), 2),
    (3, 16, 24, (3, 3), (3, 3), 1),
    (2, 16, 16, (6, 18), (5, 1), 2),
]
# The smallest that have an image in lines, in one box, and under a stride.
EDGES = [(2, 16, 16, (3, 18), (3, 3), 1), (2, 16, 16, (3, 3), (3, 3), 1), (2, 16, 16, (4, 6), (3, 3), 2)]


def case(
    N: int, D: int, C: int, size: tuple[int, int], kernel: tuple[int, int], stride: int, dtype: torch.dtype
) -> Any:
    """x, weight, M, dY; images and weight channels last."""
    last = torch.channels_last
    x, weight = torch.randn(N, D, *size), torch.randn(C, D, *kernel)
    dY = torch.randn(N, C, size[0] // stride, size[1] // stride)
    x, weight, dY = (each.to(dtype).contiguous(memory_format=last) for each in (x, weight, dY))
    return x, weight, torch.rand(N, *kernel), dY


def truth(x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, stride: int) -> dict[str, Tensor]:
    inputs = [each.double().requires_grad_() for each in (x, weight, M)]
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    Y = reference.filtered_conv2d(*inputs, None, stride, padding)
    dX, dW, dM = torch.autograd.grad(Y, inputs, dY.double())
    return {"Y": Y.detach(), "dX": dX, "dW": dW, "dM": dM.flatten(1)}


def _run(*results: Any) -> list[Tensor]:
    for each in results[-1]:
        each.run()
    return [each for each in results[:-1] if each is not None]


def _images(x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, stride: int) -> dict[str, Tensor]:
    """Y, dX, and dM beside it, in all the ways that kernels give them, in the interpreter."""
    from shconv.ops.cuda.hopper import launches

    found, arguments = dict[str, Tensor](), (dY, x, weight, M, stride)
    (found["Y"],) = _run(*launches.forward(x, weight, M, stride, IMAGES, "ieee"))
    (found["dX"],) = _run(*launches.input_gradient(*arguments, IMAGES, "ieee"))
    found["dX, dM beside"], found["dM beside dX"] = _run(*launches.input_gradient(*arguments, IMAGES, "ieee", True))
    for how, (images, _) in IN_PARTS.items():
        (found[f"Y, {how}"],) = _run(*launches.forward(x, weight, M, stride, images, "ieee"))
        (found[f"dX, {how}"],) = _run(*launches.input_gradient(*arguments, images, "ieee"))
    return found


def _weights(x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, stride: int) -> dict[str, Tensor]:
    """The same of dW alone."""
    from shconv.ops.cuda.hopper import launches

    found, arguments = dict[str, Tensor](), (dY, x, weight, M, stride)
    (found["dW"],) = _run(*launches.weight_gradient(*arguments, WEIGHTS, "ieee"))
    for how, (_, weights) in IN_PARTS.items():
        (found[f"dW, {how}"],) = _run(*launches.weight_gradient(*arguments, weights, "ieee"))
    if stride == 1:
        (found["dW, images flat"],) = _run(*launches.weight_gradient(*arguments, WEIGHTS, "ieee", flatly=True))
    return found


def _beside(x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, stride: int) -> dict[str, Tensor]:
    """dW with dM beside it."""
    from shconv.ops.cuda.hopper import launches

    dW, dM = _run(*launches.weight_gradient(dY, x, weight, M, stride, WEIGHTS, "ieee", True))
    return {"dW, dM beside": dW, "dM beside dW": dM}


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with PLACES["interpreter"]() as process:
        yield process


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [(shape, torch.float32) for shape in SHAPES]
    + [pytest.param(shape, torch.bfloat16, marks=pytest.mark.slow) for shape in SHAPES[:3]]
    + [(SHAPES[3], torch.bfloat16)],
    ids=str,
)
def test_every_kernel_equals_the_reference_and_writes_every_element(shape, dtype, run):
    x, weight, M, dY = case(*shape, dtype)
    stride = shape[-1]
    wanted = truth(x, weight, M, dY, stride)
    arguments = (x, weight, M, dY, stride)
    found = run(_images, *arguments) | run(_weights, *arguments) | run(_beside, *arguments)
    for name, got in found.items():
        right = wanted[re.match(r"\w+", name)[0]]
        rounding = 2.0**-7 if got.dtype == torch.bfloat16 else 0.0  # the interpreter cuts off
        rounding *= 2 if "flat" in name else 1  # and there also what it has scaled
        error = (got.double() - right).abs().max() / right.abs().max()
        assert error < rounding + 1e-5, name


def _joined(
    x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, stride: int, tile: Tile, seen: Tensor, dseen: Tensor
) -> Tensor:
    from shconv.ops.cuda.hopper import launches

    dX, _, launched = launches.input_gradient(dY, x, weight, M, stride, tile, "ieee", statistics=(seen, dseen))
    for each in launched:
        each.run()
    return dX


@pytest.mark.parametrize("tile", [Tile(16, 16, 16, 1, 1), Tile(32, 16, 16, 1, 1, 2)], ids=str)
@pytest.mark.parametrize("shape", [(3, 24, 40, (3, 6), (3, 3), 1), (3, 16, 16, (8, 6), (3, 3), 2)], ids=str)
def test_dx_has_the_gradient_through_the_statistics_where_it_is_asked_to(shape, tile, run):
    """Tiles of 16 pixels in images of 18 and 12: some lie in two images."""
    x, weight, M, dY = case(*shape, torch.float32)
    seen, dseen = torch.randn(2, len(x), 2, x.shape[1])
    found = run(_joined, x, weight, M, dY, shape[-1], tile, seen, dseen)
    plain = truth(x, weight, M, dY, shape[-1])["dX"]
    mu, dmu, dvariance = (each[:, :, None, None].double() for each in (seen[:, 0], dseen[:, 0], dseen[:, 1]))
    wanted = plain + (dmu + 2 * dvariance * (x - mu)) / x[0, 0].numel()
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_pixels_that_are_no_numbers_stay_in_their_image_whichever_edge_they_lie_at(shape, run):
    x, weight, M, dY = case(*shape, torch.float32)
    stride = shape[-1]
    clean = run(_images, x, weight, M, dY, stride) | run(_beside, x, weight, M, dY, stride)
    broken = (x.clone(), dY.clone())
    for images, value in zip(broken, (float("inf"), float("nan")), strict=True):
        images[1, :, 0], images[1, :, -1], images[1, :, :, 0], images[1, :, :, -1] = (value,) * 4
    arguments = (broken[0], weight, M, broken[1], stride)
    found = run(_images, *arguments) | run(_beside, *arguments)
    others = [n for n in range(len(x)) if n != 1]
    for name in (each for each in found if not each.startswith("dW")):
        assert torch.equal(found[name][others], clean[name][others]), name
        assert not found[name][1].isfinite().all(), name


def test_a_pixel_that_is_no_number_reaches_the_products_of_its_taps_only(run):
    """Boxes of dY run over the image where those of x do, so that its last row meets no zero of dY."""
    x, weight, M, dY = case(2, 16, 16, (3, 18), (3, 3), 1, torch.float32)
    x[0, :, -1, -1] = float("inf")
    found = run(_weights, x, weight, M, dY, 1) | run(_beside, x, weight, M, dY, 1)
    finite = truth(x, weight, M, dY, 1)["dW"].isfinite()
    assert 0 < int((~finite).sum()) < finite.numel()
    for name in ("dW", "dW, dM beside", *(f"dW, {how}" for how in IN_PARTS)):
        assert torch.equal(found[name].isfinite(), finite), name


def test_the_gradient_of_an_images_map_has_the_same_bits_in_any_batch(run):
    """Beside dW, where an image's products are its own. Beside dX, as in Y and dX, they are a matrix product's rows,
    whose bits do not depend on their place on a card, but do in the interpreter."""
    x, weight, M, dY = case(2, 16, 16, (3, 3), (3, 3), 1, torch.float32)
    whole = run(_beside, x, weight, M, dY, 1)
    part = run(_beside, x[1:], weight, M[1:], dY[1:], 1)
    assert torch.equal(whole["dM beside dW"][1:], part["dM beside dW"])


def shapes(purpose: str, map: bool = False, size: int = 2) -> list[Shape]:
    """Those of the residual networks that the rule was measured for."""
    table = [
        (64, 64, 56, 1),
        (128, 128, 28, 1),
        (256, 256, 14, 1),
        (512, 512, 7, 1),
        (64, 128, 28, 2),
        (256, 512, 7, 2),
    ]
    pairs = [(D, C, H, stride) if purpose == "forward" else (C, D, H, stride) for D, C, H, stride in table]
    return [Shape(purpose, K, COLS, H, H, stride, size, map) for K, COLS, H, stride in pairs]


@pytest.mark.parametrize("purpose", ["forward", "input", "weight"])
@pytest.mark.parametrize("channels", [(32, 40), (64, 64), (96, 200), (512, 256), (2048, 64)], ids=str)
@pytest.mark.parametrize("side", [1, 4, 7, 14, 56, 100])
def test_every_candidate_fits_shared_memory_and_goes_through_an_image_whole(purpose, channels, side):
    for size in (2, 4) if purpose != "weight" else (2,):
        found = tiles.candidates(Shape(purpose, *channels, side, side, 1, size, True))
        assert found
        assert len(set(found)) == len(found)
        for tile in found:
            assert tile.operands(size) < tiles.SHARED_BYTES
            assert tile.inner * size >= 32
            high, wide = tiles.box(side, side, tile.inner)
            assert high * wide == tile.inner
            boxes = -(-side // high) * -(-side // wide)
            assert boxes % tiles.pieces(boxes) == 0


@pytest.mark.parametrize("units", [1, 7, 128, 256])
@pytest.mark.parametrize(("many", "programs"), [(9, 396), (18, 264), (36, 132), (288, 132), (9, 4)])
def test_every_unit_of_a_tile_has_its_place_and_every_program_as_many_places(units, many, programs):
    each, share = tiles.places(units, many, programs)
    assert each >= units
    assert -(-many * each // share) <= max(programs, many)
    if each > units:
        assert each % share == 0, "no program has two tiles where places are left empty"
        assert each - units < share


@pytest.mark.parametrize(
    ("change", "served"),
    [
        ({}, True),
        ({"C": 40}, True),
        ({"C": 36}, False),
        ({"C": 24}, False),
        ({"D": 44}, False),
        ({"stride": (2, 2)}, True),
        ({"stride": (2, 2), "size": (9, 8)}, False),
        ({"stride": (2, 1)}, False),
        ({"stride": (3, 3)}, False),
        ({"padding": (0, 0)}, False),
        ({"dilation": (2, 2), "padding": (2, 2)}, False),
        ({"groups": 2}, False),
        ({"dtype": torch.float16}, True),
        ({"dtype": torch.float32}, True),
        ({"dtype": torch.float64}, False),
    ],
    ids=str,
)
def test_what_tma_cannot_describe_is_left_to_the_other_kernels(change: dict[str, Any], served: bool) -> None:
    known = {"C": 32, "D": 64, "size": (8, 8), "dtype": torch.bfloat16, "groups": 1,
             "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)} | change  # fmt: skip
    x = torch.empty(2, known["D"], *known["size"], dtype=known["dtype"])
    weight = torch.empty(known["C"], known["D"], 3, 3, dtype=known["dtype"])
    geometry = Geometry(known["stride"], known["padding"], known["dilation"], known["groups"])
    assert passes.describable(x, weight, geometry) == served
    assert not passes.serves(x, weight, geometry), "there is no such card here"


def test_float32_is_left_to_the_other_kernels_where_torch_does_not_let_it_be_rounded(monkeypatch):
    x, weight = torch.empty(2, 64, 8, 8), torch.empty(64, 64, 3, 3)
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)
    monkeypatch.setattr(passes.runtime, "tf32", lambda: False)
    assert not passes.describable(x, weight, geometry)
    assert not passes.weight_serves(x, weight, geometry)


def test_the_rule_serves_where_no_tile_is_left_to_measure_and_other_shapes_are_tried_once(monkeypatch):
    tried: list[str] = []

    def choose(key: str, candidates: list[Tile], *_: Any) -> Tile:
        tried.append(key)
        return candidates[-1]

    monkeypatch.setattr(passes, "_chosen", {})
    monkeypatch.setattr(passes.tuning, "choose", choose)
    device, plan = torch.device("cpu"), lambda tile: ([], [])
    known = Shape("input", 64, 64, 56, 56, 1, 2, True)
    other, little = known._replace(K=96, map=False), known._replace(K=96, H=8, W=8)
    for shape in (known, little):
        assert passes.tile_of(shape, plan, device) == tiles.rule(shape)
    with tape.collecting():
        passes.tile_of(other, plan, device)
    assert not passes._chosen, "what is collected tries nothing"
    tried.clear()
    assert passes.tile_of(other, plan, device) == passes.tile_of(other, plan, device) == tiles.candidates(other)[-1]
    assert tried == ["input 96->64 56x56/1 16 bit"]
    monkeypatch.setenv("SHCONV_TUNE", "0")
    assert passes.tile_of(other, plan, device) == tiles.rule(other)
    monkeypatch.setenv("SHCONV_TUNE", "1")
    assert passes.tile_of(known, plan, device) == tiles.candidates(known)[-1]
    assert len(tried) == 2


def test_both_passes_go_to_these_kernels_where_they_serve_and_to_the_others_once_they_fail(monkeypatch, caplog):
    from shconv.ops.cuda import launches as formulation

    x, weight, M, dY = case(2, 32, 40, (4, 4), (3, 3), 1, torch.bfloat16)
    geometry, asked = Geometry((1, 1), (1, 1), (1, 1), 1), []
    monkeypatch.setattr(passes, "_failed", [])
    monkeypatch.setattr(passes, "serves", lambda x, weight, geometry: not passes._failed)

    def forward(*arguments: Any) -> Tensor:
        asked.append("Y")
        return dY

    def input_gradient(dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, map: bool) -> Any:
        asked.append(f"dX, dM {map}")
        return x, M.flatten(1) if map else None

    def weight_gradient(
        dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, map: bool, dtype: torch.dtype
    ) -> Any:
        asked.append(f"dW, dM {map}")
        return weight, M.flatten(1) if map else None

    for which in (forward, input_gradient, weight_gradient):
        monkeypatch.setattr(passes, which.__name__, which)
    others = {"_forward": dY, "_backward_weight": weight, "_backward_input": (x, M.flatten(1))}
    for name, result in others.items():
        monkeypatch.setattr(formulation, name, lambda *_, name=name, result=result: asked.append(name) or result)

    def ask(*mask: bool) -> list[str]:
        asked.clear()
        formulation.forward(x, weight, M, geometry)
        gradients = formulation.backward(dY, x, weight, M, geometry, mask)
        assert tuple(each is not None for each in gradients) == mask
        return asked[1:]

    assert ask(True, True, True) == ["dW, dM False", "dX, dM True"], "an image of few pixels has dM beside dX"
    assert ask(False, True, True) == ["dW, dM True"]
    assert ask(True, False, True) == ["dX, dM True"]
    assert ask(True, False, False) == ["dX, dM False"]
    monkeypatch.setattr(passes, "FEW_PIXELS", 16)
    monkeypatch.setattr(passes, "MANY_PIXELS", 16)
    assert ask(True, True, True) == ["dW, dM True", "dX, dM False"]

    def broken(*arguments: Any) -> Tensor:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(passes, "forward", broken)
    assert ask(True, True, True) == ["_backward_weight", "_backward_input"]
    assert "no such instruction" in caplog.text
    monkeypatch.setattr(passes, "_failed", [])

    for others in (torch.OutOfMemoryError("a large layer"), InputError("SHCONV_TUNE is 'off'")):

        def refuses(*arguments: Any, error: Exception = others) -> Tensor:
            raise error

        monkeypatch.setattr(passes, "forward", refuses)
        with pytest.raises(type(others)):
            formulation.forward(x, weight, M, geometry)
        assert not passes._failed


class _Kernel:
    """Stands for a Triton kernel; what it compiled tells how it was called."""

    arg_names = ("x", "N", "WIDE", "HIGH")

    def __init__(self) -> None:
        self.compilations, self.calls = 0, list[Any]()

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def first(**arguments: Any) -> Any:
            self.compilations += 1
            return self

        return first if len(grid) == 1 else lambda *arguments: self.calls.append((grid, *arguments))


def test_a_second_launch_of_a_kind_goes_to_what_was_compiled_with_every_argument_in_its_place(monkeypatch):
    from triton.tools.tensor_descriptor import TensorDescriptor

    from shconv.ops.cuda import plans
    from shconv.ops.cuda.hopper import launches

    monkeypatch.setattr(plans, "_plans", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    kernel = _Kernel()
    x, other = (TensorDescriptor(torch.zeros(4, 8), [4, 8], [8, 1], [2, 4]) for _ in range(2))
    for programs, tensor in ((6, x), (8, other), (9, x)):
        launches.Launch(kernel, programs, (tensor, 7), {"HIGH": 2, "WIDE": 5}, 4, 3).run()
    assert kernel.compilations == 1
    assert [call[:1] + call[2:] for call in kernel.calls] == [((8, 1, 1), 7, 5, 2), ((9, 1, 1), 7, 5, 2)]
    assert [call[1] is tensor for call, tensor in zip(kernel.calls, (other, x), strict=True)] == [True, True]
    kinds = [
        ((TensorDescriptor(torch.zeros(4, 8).half(), [4, 8], [8, 1], [2, 4]), 7), {"HIGH": 2, "WIDE": 5}, 4, 3),
        ((TensorDescriptor(torch.zeros(4, 8), [4, 8], [8, 1], [2, 8]), 7), {"HIGH": 2, "WIDE": 5}, 4, 3),
        ((x, 16), {"HIGH": 2, "WIDE": 5}, 4, 3),
        ((x, 7), {"HIGH": 4, "WIDE": 5}, 4, 3),
        ((x, 7), {"HIGH": 2, "WIDE": 5}, 8, 3),
        ((x, 7), {"HIGH": 2, "WIDE": 5}, 4, 2),
    ]
    for count, kind in enumerate(kinds, 2):
        launches.Launch(kernel, 9, *kind).run()
        assert kernel.compilations == count


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Compiles what computes a shape with a tile: what Triton made, and what ptxas said of it."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("interpreted kernels cannot be compiled")
    import triton
    from triton.runtime import driver

    from shconv.ops.cuda.hopper import launches

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(launches, "processors", lambda device: 132)
    monkeypatch.setattr(driver, "_active", StandIn())

    def compile(shape: Shape, tile: Tile) -> tuple[Any, str]:
        dtype, stride = (torch.bfloat16, torch.float32)[shape.size == 4], shape.stride
        C, D = (shape.COLS, shape.K) if shape.purpose == "forward" else (shape.K, shape.COLS)
        images = ((4, D, shape.H * stride, shape.W * stride), (C, D, 3, 3), (4, C, shape.H, shape.W))
        x, weight, dY = (torch.empty(size, dtype=dtype, memory_format=torch.channels_last) for size in images)
        M, precision = torch.empty(4, 3, 3), "tf32" if shape.size == 4 else "ieee"
        if shape.purpose == "forward":
            launched = launches.forward(x, weight, M, stride, tile, precision)[-1]
        else:
            which = launches.input_gradient if shape.purpose == "input" else launches.weight_gradient
            launched = which(dY, x, weight, M, stride, tile, precision, shape.map)[-1]
        for each in launched[1:]:
            each.compile()
        made = launched[0].compile()
        (tmp_path / "kernel.ptx").write_text(made.asm["ptx"])
        command = [triton.knobs.nvidia.ptxas.path, "-v", "--gpu-name=sm_90a", "kernel.ptx", "-o", "kernel.cubin"]
        return made, subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr

    return compile


FEW = [shapes("forward")[1], shapes("input", True)[1], shapes("weight", True)[0], shapes("weight")[5],
       shapes("forward", size=4)[1]]  # fmt: skip
MORE = [shapes("forward")[4], shapes("input")[0], shapes("input", size=4)[2], *shapes("input", True)[3:6:2],
        *shapes("weight", True)[1:4]]  # fmt: skip


def _tiles(*some: Shape) -> list[tuple[Shape, Tile]]:
    """The rule's."""
    return [(shape, tiles.rule(shape)) for shape in some]


def _parted(purpose: str, *places: int) -> list[tuple[Shape, Tile]]:
    """Those in parts."""
    some = [shapes(purpose)[place] for place in places]
    return [(shape, tile) for shape in some for tile in tiles.candidates(shape) if tile.parts]


FEW_TILES = [*_tiles(*FEW), *_parted("forward", 1)[:2], *_parted("flat", 3)]
MORE_TILES = [
    *_tiles(*MORE),
    *_parted("forward", 1)[2:],
    *_parted("forward", 0, 2, 5),
    *_parted("input", 0, 1, 3),
    *_parted("weight", 5),
    *_parted("flat", 2),
]


@pytest.mark.parametrize(
    ("shape", "tile"), FEW_TILES + [pytest.param(*each, marks=pytest.mark.slow) for each in MORE_TILES], ids=str
)
def test_a_tile_spills_next_to_nothing_keeps_wgmma_going_and_its_operands_are_never_changed(shape, tile, compiled):
    made, said = compiled(shape, tile)
    assert (
        int(re.search(r"(\d+) bytes spill stores", said)[1]) <= 32
    )  # a few are the compiler's, and differ by its version
    assert "serialized" not in said
    assert made.metadata.shared <= tiles.SHARED_BYTES
    assert "wgmma" in made.asm["ptx"]
    assert "cp.async.bulk" in made.asm["ptx"]
    # Operands in registers are changed while wgmma reads them, unless it is waited for at once.
    if re.search(r"warp_group_dot .*dot_op", made.asm["ttgir"]):
        assert set(re.findall(r"wgmma.wait_group.sync.aligned (\d)", made.asm["ptx"])) == {"0"}
