"""Recording what a layer does on a GPU and doing it again: interpreted, against the layer's own way, with tensors of
the same kind and other numbers; and what can't be recorded."""

import copy
import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_toys import NO_DEVICE, PLACES, Run

from shconv import SHConv2d
from shconv.ops import choice, hypernetwork, kept, layer
from shconv.ops.cuda import replay, tape
from shconv.ops.cuda.hopper import passes
from shconv.ops.cuda.hopper.tiles import Tile
from shconv.ops.geometry import Geometry
from shconv.ops.seen import Seen

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
BOTH = (0, 1)
LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format
MASK = (True, True, False, True)  # all gradients of a layer without a bias


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with PLACES["interpreter"]() as process:
        yield process


def inputs(seed: int, dtype: torch.dtype, layout: torch.memory_format, bias: bool) -> list[Tensor]:
    """x, weight, theta and where there is one the bias of a layer of 16 channels."""
    make = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=make)

    x, weight = (normal(*size).to(dtype).contiguous(memory_format=layout) for size in ((2, 16, 4, 4), (16, 16, 3, 3)))
    theta = normal(8, 32) / 6, normal(8), normal(9, 8), normal(9)
    return [x, weight, *theta, *([normal(16).to(dtype)] if bias else [])]


def _interpreted(launches: Sequence[tape.Launched], device: int) -> Any:
    """In place of the launcher: Triton's interpreter, on what was recorded."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    from shconv.ops.cuda import plans

    def run(roots: Sequence[Tensor | None], known: Sequence[int]) -> None:
        def given(value: Any) -> Any:
            if isinstance(value, tape.Ref):
                return replay.tensor(roots, value)
            if isinstance(value, tape.Described):
                return TensorDescriptor(replay.tensor(roots, value.base), *map(list, value[1:4]))
            return value

        for each in launches:
            plans.run(each.kernel, each.grid, {name: given(value) for name, value in each.arguments.items()})

    return run


@contextmanager
def _as_on_a_card(hopper: bool, joined: bool = False) -> Iterator[None]:
    """The layer goes the way of CUDA tensors, with tiles that fit small images. joined: as that of large ones."""
    changed = [
        (hypernetwork, "_FUSED_ON", ("cuda", "cpu")),
        (choice, "choose", lambda *_: "triton"),
        (passes, "serves", lambda *_: hopper),
        (passes, "rule", lambda shape: Tile(16, 16, 16, 1, 1)),
        (passes, "_precision", lambda x: "ieee"),
        (layer, "_rounds", lambda x, weight: weight.dtype != x.dtype),
        *((passes, name, 16) for name in ("FEW_PIXELS", "MANY_PIXELS") if joined),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for place, name, value in changed:
            patch.setattr(place, name, value)
        patch.setenv("SHCONV_TUNE", "0")
        yield


Both = list[tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]]


def _both_ways(
    first: list[Tensor], second: list[Tensor], mask: Any, stride: int, hopper: bool
) -> tuple[Both, list[int], list[int]]:
    """Of Y and of the gradients, for the second tensors: what the layer gives, and what the record of the first gives.
    Then how many operations of torch's were in each record, and how large the scratch was."""
    numbers = Geometry((stride, stride), (1, 1), (1, 1), 1), BOTH
    found, operations, scratch = [], [], []

    def again(function: Any, recorded: list[Tensor], given: list[Tensor], *rest: Any) -> Any:
        _, record = tape.record(lambda *tensors: function(tensors, *rest), recorded)
        assert isinstance(record, tape.Tape), record
        player = replay.Player(record, -1, _interpreted)
        direct, played = function(given, *rest), player.play(given)
        found.append((direct, played))
        operations.append(sum(isinstance(each, tape.Computed) for each in record.steps))
        scratch.append(player.bytes)
        return direct

    with _as_on_a_card(hopper):
        again(layer._forward, first, second, *numbers, 1e-5, False)
        _, kept = layer._forward(first, *numbers, 1e-5, True)
        Y, other = again(layer._forward, first, second, *numbers, 1e-5, True)
        dY = torch.randn_like(Y)
        again(layer._backward, [dY * 2, *first, kept], [dY, *second, other], *numbers, 1e-5, mask)
    return found, operations, scratch


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "layout", "bias", "mask", "stride", "hopper"),
    [
        (torch.bfloat16, LAST, False, (True, True, False, True), 1, True),
        (torch.float32, CONTIGUOUS, True, (True, True, True, True), 2, False),
        pytest.param(torch.bfloat16, LAST, False, (False, True, False, True), 2, True, marks=pytest.mark.slow),
        pytest.param(torch.float32, LAST, True, (True, True, True, True), 1, True, marks=pytest.mark.slow),
        pytest.param(torch.bfloat16, CONTIGUOUS, True, (True, False, False, False), 1, True, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_what_is_done_again_gives_the_layers_own_bits_in_its_layouts(dtype, layout, bias, mask, stride, hopper, run):
    first, second = (inputs(seed, dtype, layout, bias) for seed in (1, 2))
    found, operations, scratch = run(_both_ways, first, second, mask, stride, hopper)
    for direct, played in found:
        assert len(direct) == len(played)
        for wanted, got in zip(direct, played, strict=True):
            assert (wanted is None) == (got is None)
            if wanted is not None:
                assert torch.equal(got, wanted)
                assert got.stride() == wanted.stride()
    assert scratch[0] > scratch[1] > 0  # maps are returned in the second
    if dtype == torch.bfloat16 and layout == LAST:
        assert operations[:2] == [0, 0]


def _of_a_wide_weight(
    given: list[Tensor], hopper: bool
) -> list[tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...], list[str]]]:
    """Y, and the gradients, of a float32 weight and of the same weight rounded before; and the operations of torch's
    that the first took."""
    numbers = Geometry((1, 1), (1, 1), (1, 1), 1), BOTH
    rounded = [given[0], given[1].half(), *given[2:]]

    def recorded(function: Any, given: Sequence[Tensor], *rest: Any) -> tuple[tuple[Tensor | None, ...], list[str]]:
        results, record = tape.record(lambda *tensors: function(tensors, *rest), given)
        assert isinstance(record, tape.Tape), record
        return results, [str(each.operation) for each in record.steps if isinstance(each, tape.Computed)]

    with _as_on_a_card(hopper):
        (Y, whole), first = recorded(layer._forward, given, *numbers, 1e-5, True)
        other, before = layer._forward(rounded, *numbers, 1e-5, True)
        assert Y is not None
        assert whole is not None
        own, its = (kept.parts(each, *of[:3], of[4], _wide(of)) for each, of in ((whole, given), (before, rounded)))
        torch.manual_seed(3)
        dY = torch.randn_like(Y)
        found, second = recorded(layer._backward, [dY, *given, whole], *numbers, 1e-5, MASK)
        wanted = layer._backward([dY, *rounded, before], *numbers, 1e-5, MASK)
    return [((Y, *own), (other, *its[:3], rounded[1].contiguous(memory_format=LAST)), first), (found, wanted, second)]


def _wide(given: Sequence[Tensor]) -> bool:
    return given[1].dtype != given[0].dtype


@needs_triton
@pytest.mark.parametrize(("hopper", "layout"), [(True, LAST), (False, CONTIGUOUS)], ids=str)
def test_a_float32_weight_is_rounded_as_autocast_does_and_its_gradient_is_not(hopper, layout, run):
    given = inputs(1, torch.float16, layout, False)  # the interpreter cuts bfloat16 off
    given[1] = inputs(1, torch.float32, layout, False)[1]
    for own, wanted, operations in run(_of_a_wide_weight, given, hopper):
        for each, other in zip(own, wanted, strict=True):
            assert (each is None) == (other is None)
            if each is not None:
                wide = each.dtype != other.dtype
                assert torch.equal(each.to(other.dtype), other)
                assert each.stride() == other.stride()
                assert not wide or (each.dtype == torch.float32 and not torch.equal(each, other.float()))
        if layout == LAST:
            assert operations == [], "launches alone, which are replayed by one call"
    assert own[1].dtype == torch.float32


def _rounded(weights: list[Tensor]) -> list[Tensor]:
    from shconv.ops.cuda import rounding

    return [rounding.rounded(each, torch.float16) for each in weights]


@needs_triton
def test_a_weight_of_any_layout_is_rounded_to_channels_last(run):
    sizes = (5, 3, 3, 3), (4, 6, 3, 1), (4, 1, 3, 3), (1, 7, 1, 1), (40, 20, 5, 5)
    dense = [torch.randn(size).contiguous(memory_format=layout) for size in sizes for layout in (LAST, CONTIGUOUS)]
    odd = torch.randn(4, 6, 3, 5)[..., ::5], torch.randn(8, 6, 3, 3)[::2], torch.randn(3, 3, 6, 4).permute(3, 2, 0, 1)
    weights = [*dense, *odd]
    for weight, found in zip(weights, run(_rounded, weights), strict=True):
        wanted = weight.half().contiguous(memory_format=LAST)
        assert torch.equal(found, wanted)
        assert found.is_contiguous(memory_format=LAST)


@pytest.mark.gpu
@NO_DEVICE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_on_a_card_a_layer_has_the_same_bits_at_every_call_and_with_a_weight_that_was_rounded_before(dtype):
    wide = SHConv2d(64, 64, 3, padding=1, bias=False).cuda().to(memory_format=LAST)
    narrow = copy.deepcopy(wide)
    narrow.weight = torch.nn.Parameter(wide.weight.detach().to(dtype))
    x = torch.randn(4, 64, 20, 20, device="cuda").to(dtype).contiguous(memory_format=LAST).requires_grad_()

    def called(layer: SHConv2d) -> list[Tensor]:
        with torch.autocast("cuda", dtype):
            Y = layer(x)
        return [Y, *torch.autograd.grad(Y.float().square().sum(), [x, *layer.parameters()])]

    first, *others = (called(wide) for _ in range(4))  # as it is, recorded, replayed twice
    assert first[2].dtype == torch.float32
    for again in (*others, called(narrow)):
        for wanted, found in zip(first, again, strict=True):
            assert torch.equal(wanted.to(found.dtype), found)


def _gradients(given: list[Tensor], joined: bool) -> tuple[tuple[Tensor | None, ...], list[str]]:
    """Of a layer's tensors, and which kernels gave them."""
    numbers = Geometry((1, 1), (1, 1), (1, 1), 1), BOTH
    found: list[Tensor | None] = []

    def gradients(*tensors: Tensor) -> tuple[Tensor | None, ...]:
        found.extend(layer._backward(tensors, *numbers, 1e-5, (True,) * 4))
        return tuple(found)

    with _as_on_a_card(True, joined):
        Y, whole = layer._forward(given, *numbers, 1e-5, True)
        torch.manual_seed(3)
        _, record = tape.record(gradients, [torch.randn_like(Y), *given, whole])
    assert isinstance(record, tape.Tape), record
    names = [each.kernel.__name__ for each in record.steps if isinstance(each, tape.Launched)]
    return tuple(found), names


@needs_triton
def test_dx_is_the_same_where_it_has_the_gradient_through_the_statistics_in_it(run):
    given = inputs(1, torch.bfloat16, LAST, False)
    apart, order = run(_gradients, given, False)
    joined, joined_order = run(_gradients, given, True)
    assert (order.count("gradient"), joined_order.count("gradient")) == (1, 0)
    assert joined_order.index("products") > joined_order.index("_backward"), "dX is had last"
    for one, other in zip(apart, joined, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one.double() - other.double()).abs().max() <= 2.0**-5 * one.double().abs().max()


def _operations(x: Tensor, scale: Tensor | None) -> tuple[Tensor | None, ...]:
    """Views, copies, results in place, two results, and one that is part of another."""
    turned = x.t().contiguous()
    both = turned.view(-1).sort()
    turned.add_(x.new_ones(1))
    return turned if scale is None else turned * scale, both.values[1:], both.indices, None


def test_operations_of_torch_are_done_again_with_views_copies_and_places():
    one, two = torch.randn(2, 3), torch.randn(2, 3)
    for scale in (None, torch.randn(1)):
        _, found = tape.record(_operations, [one, scale])
        assert isinstance(found, tape.Tape)
        played, direct = replay.Player(found, -1, _interpreted).play([two, scale]), _operations(two, scale)
        for got, wanted in zip(played, direct, strict=True):
            assert (got is None and wanted is None) or torch.equal(got, wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "given", "said", "later"),
    [
        (lambda x: (x * float(x.sum()),), 1, "gives no tensor", False),
        (lambda x: (torch._foreach_neg_([y := x + 1]), (y,))[1], 1, "gives no tensor", False),
        (lambda x: (x + torch.ones(1)[:0].new_tensor([1.0]),), 1, "neither given nor made", False),
        (lambda x, y: (x + y,), 2, "share memory", True),
        (lambda x: (tape.refuse_for_now("tiles are tried"), (x + 1,))[1], 1, "tiles are tried", True),
    ],
    ids=["a number", "nothing", "a constant", "shared", "tuning"],
)
def test_what_would_not_be_right_for_other_tensors_is_refused_and_computed_all_the_same(function, given, said, later):
    x = torch.arange(4.0)
    results, refusal = tape.record(function, [x[:3], x[1:]][:given])
    assert torch.equal(results[0], function(*[x[:3], x[1:]][:given])[0])
    assert isinstance(refusal, tape.UnrecordableError)
    assert said in str(refusal)
    assert refusal.later == later
    assert tape.recorder() is None


def test_a_call_for_which_memory_is_short_while_it_is_recorded_is_made_without(calls):
    def function(tensors: Sequence[Tensor]) -> tuple[Tensor]:
        (x,) = tensors
        calls.append("itself")
        if tape.recorder() and len(calls) < 4:
            raise torch.OutOfMemoryError("what a recorder keeps is too much")
        return (x + 1,)

    x = torch.ones(4)
    for _ in range(5):
        (got,) = replay.call(function, [x])
        assert torch.equal(got, x + 1)
    assert len(calls) == 4, "itself, in vain and itself, recorded; then only replayed"


def test_buffers_share_the_scratch_when_they_are_not_used_at_the_same_time():
    ref = [tape.Ref(root, 0, torch.float32, (64,), (1,)) for root in range(5)]
    roots = tuple(tape.Root(torch.float32, (64,), (1,), 256, False) for _ in range(4))
    pairs = itertools.pairwise(ref)
    launches = tuple(tape.Launched(None, (1,), {"from": one, "to": two}, None) for one, two in pairs)
    offsets, total = replay._layout(tape.Tape(1, roots, launches, (ref[4],)))
    assert offsets == {1: 0, 2: 256, 3: 0}
    assert total == 512


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often the function was called itself; CPU tensors are taken for those of the current device."""
    monkeypatch.setattr(replay, "_known", {})
    monkeypatch.setattr(replay, "_near", Seen())
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: -1)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return []


def test_a_kind_of_call_runs_once_is_recorded_and_then_only_replayed(calls):
    def function(tensors: Sequence[Tensor], power: int) -> tuple[Tensor]:
        calls.append("itself")
        x, *scale = tensors
        return ((x * scale[0] if scale else x) ** power,)

    def count(*tensors: Tensor, power: int = 2) -> int:
        before = len(calls)
        (got,) = replay.call(function, tensors, power)
        x, *scale = tensors
        assert torch.equal(got, (x * scale[0] if scale else x) ** power)
        return len(calls) - before

    def four(*tensors: Tensor, **options: Any) -> list[int]:
        return [count(*tensors, **options) for _ in range(4)]

    once = [1, 1, 0, 0]
    x, scale = torch.randn(4, 8), torch.randn(8)
    assert four(x, scale) == once
    assert four(torch.randn(4, 8), torch.randn(8)) == [0] * 4
    assert four(x) == once
    assert four(x[:3], scale) == once
    assert four(torch.randn(8, 4).t(), scale) == once
    assert four(x.double(), scale) == once
    assert four(x, scale, power=3) == once
    assert four(torch.randn(33)[1:].view(4, 8), scale) == [1] * 4  # begins where kernels were not compiled for
    assert four(x[:0], scale) == [1] * 4
    torch.use_deterministic_algorithms(True)
    try:
        assert four(x, scale) == once
    finally:
        torch.use_deterministic_algorithms(False)
    assert four(x, scale) == [0] * 4


def test_kinds_that_share_what_is_told_quickly_are_not_taken_for_each_other(calls):
    def function(tensors: Sequence[Tensor]) -> tuple[Tensor]:
        calls.append("itself")
        x, other = tensors
        return (x @ other + other.stride(0),)  # a number that only other's kind tells

    x = torch.randn(4, 4)
    others = [torch.randn(4, 4), torch.randn(4, 4).t(), torch.randn(4, 8)[:, :4], torch.randn(4, 4)]
    for _ in range(4):
        for other in others:
            (got,) = replay.call(function, [x, other])
            assert torch.equal(got, x @ other + other.stride(0))
    assert len(calls) == 6, "three kinds, each once as it is and once recorded"
    (found,) = replay._near.values()
    assert len(found) == 3


def test_a_call_that_tries_tiles_is_not_the_one_that_is_replayed_and_one_that_cannot_be_says_why_once(calls, caplog):
    def tries(tensors: Sequence[Tensor]) -> tuple[Tensor]:
        (x,) = tensors
        calls.append("itself")
        if len(calls) < 4:
            tape.refuse_for_now("tiles are tried")
        return (x + 1,)

    def reads(tensors: Sequence[Tensor]) -> tuple[Tensor]:
        (x,) = tensors
        calls.append("itself")
        return (x + float(x.sum()),)

    x = torch.ones(4)
    with caplog.at_level("INFO"):
        for function, times in ((tries, 4), (reads, 6)):
            calls.clear()
            for _ in range(6):
                (got,) = replay.call(function, [x])
                assert torch.equal(got, x + 1 if function is tries else x + 4)
            assert len(calls) == times
    assert caplog.text.count("gives no tensor") == 1


def test_nothing_is_recorded_while_a_graph_is_captured_and_what_was_is_replayed(calls, monkeypatch):
    def function(tensors: Sequence[Tensor]) -> tuple[Tensor]:
        (x,) = tensors
        calls.append("itself")
        return (x + 1,)

    x = torch.ones(4)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for _ in range(3):
        replay.call(function, [x])
    assert len(calls) == 3
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    for _ in range(3):
        replay.call(function, [x])
    assert len(calls) == 5
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    replay.call(function, [x])
    assert len(calls) == 5
