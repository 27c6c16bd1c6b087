"""Channel statistics and the hypernetwork on a GPU: their Triton kernels, interpreted and with a CUDA device on it too,
against torch in float64; the op that holds them in a layer; and the kernels compiled for cards nobody has here."""

import copy
import importlib.util
import logging
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from triton_toys import Run, compiled_for, places

from shconv import SHConv2d, frozen_kernels, gradient_route
from shconv.layers import Hypernetwork
from shconv.ops import hypernetwork
from shconv.ops.cpu import layer as cpu_layer
from shconv.ops.cuda import runtime, tape

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
LAYOUTS = [torch.contiguous_format, torch.channels_last]
ORDERS: list[tuple[str, ...]] = [("mean", "std"), ("std", "mean"), ("mean",), ("std",)]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])

# N, D, H, W: tiles of 64 elements under the interpreter, so that some have several tiles, shares and loops
SHAPES = [(1, 1, 1, 1), (2, 9, 1, 3), (3, 3, 7, 5), (2, 10, 13, 12)]


@pytest.fixture(scope="module", params=places("interpreter", "cuda-float32"))
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    with request.param() as place:
        yield place


def images(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, mean: float = 0.5) -> Tensor:
    return (torch.randn(shape, dtype=torch.float64) + mean).to(dtype).contiguous(memory_format=layout)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x.double(), dim=(2, 3), correction=0)
    return mean, variance


def _mean_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    from shconv.ops.cuda import statistics as triton_statistics

    return triton_statistics.mean_variance(x)


def _input_gradient(*arguments: Tensor) -> Tensor:
    from shconv.ops.cuda import statistics as triton_statistics

    return triton_statistics.input_gradient(*arguments)


@needs_triton
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@layouts
@dtypes
def test_mean_variance_and_their_gradient_are_torchs(shape, layout, dtype, run):
    x = images(shape, dtype, layout)
    got, wanted = run(_mean_variance, x), moments(x)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)
    dmean, dvariance = torch.randn(2, *shape[:2])
    dX, beside = run(_input_gradient, x, got[0], dmean, dvariance), torch.ones_like(x)
    both = run(_input_gradient, x, got[0], dmean, dvariance, beside)
    rounding = 2 * torch.finfo(dtype).eps * float(1 + dX.abs().max())
    torch.testing.assert_close(both.double(), dX.double() + 1, rtol=0, atol=rounding)
    leaf = x.double().requires_grad_()
    torch.autograd.backward(moments(leaf), (dmean.double(), dvariance.double()))
    assert dX.dtype == dtype
    assert dX.stride() == x.stride()
    torch.testing.assert_close(dX.double(), leaf.grad, rtol=max(1e-5, torch.finfo(dtype).eps), atol=1e-6)


@needs_triton
@layouts
def test_a_large_mean_costs_the_variance_no_digits(layout, run):
    x = images((2, 5, 13, 12), torch.float32, layout, mean=1e3)
    for ours, theirs in zip(run(_mean_variance, x), moments(x), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=3e-5, atol=0)  # squares alone would leave one digit


@needs_triton
@layouts
def test_a_constant_channel_has_variance_zero(layout, run):
    x = torch.full((2, 3, 13, 12), 0.3).contiguous(memory_format=layout)
    assert run(_mean_variance, x)[1].abs().max() < 1e-12


def _map_and_gradients(network: Hypernetwork, x: Tensor, dM: Tensor, x_only: bool = False) -> tuple[Tensor, ...]:
    """M, and the gradients of x and of the network's parameters."""
    network.requires_grad_(not x_only)
    leaf = x.detach().requires_grad_()
    leaves = [leaf, *(p for p in network.parameters() if p.requires_grad)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypernetwork, "_FUSED_ON", (x.device.type,))
        M = hypernetwork.filter_map(leaf, tuple(network.parameters()), network.order, network.eps)
        return (M.detach(), *torch.autograd.grad(M, leaves, dM))


def by_definition(network: Hypernetwork, x: Tensor, dM: Tensor) -> tuple[Tensor, ...]:
    """The same by the layer's own definition in float64."""
    exact, leaf = copy.deepcopy(network).double(), x.double().requires_grad_()
    M = exact(leaf).flatten(1)
    return (M.detach(), *torch.autograd.grad(M, (leaf, *exact.parameters()), dM.double()))


def network_for(
    D: int, hidden: int, order: tuple[str, ...], dtype: torch.dtype = torch.float32, taps: tuple[int, int] = (3, 3)
) -> Hypernetwork:
    network = Hypernetwork(D, taps, hidden, 0.01, order, dtype=dtype)  # type: ignore[arg-type]
    nn.init.normal_(network.output.weight)
    nn.init.constant_(network.hidden.bias[:1], 2)  # one neuron lives
    return network


def assert_near(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    """Rounding errors of float32, and one of each result's own dtype."""
    for ours, exact in zip(got, wanted, strict=True):
        allowed = 2e-5 + (0 if ours.dtype == torch.float32 else torch.finfo(ours.dtype).eps)
        assert (ours.double() - exact).abs().max() <= allowed * exact.abs().max()


@needs_triton
@pytest.mark.parametrize(
    ("order", "D", "hidden"),
    [(order, *size) for order in ORDERS for size in ((1, 1), (5, 7))]
    + [(ORDERS[0], 20, 17)]
    + [pytest.param(order, 20, 17, marks=pytest.mark.slow) for order in ORDERS[1:]],
    ids=str,
)
def test_the_map_and_every_gradient_are_the_definitions(order, D, hidden, run):
    network, x, dM = (
        network_for(D, hidden, order),
        images((3, D, 6, 7), torch.float32, LAYOUTS[D % 2]),
        torch.randn(3, 9),
    )
    got, wanted = run(_map_and_gradients, network, x, dM), by_definition(network, x, dM)
    assert wanted[1].any()
    assert_near(got, wanted)
    assert_near(run(_map_and_gradients, network, x, dM, True), wanted[:2])


@needs_triton
def test_taps_for_several_tiles_have_every_gradient_of_the_definition(run):
    network, x = network_for(20, 17, ORDERS[0], taps=(5, 7)), images((3, 20, 6, 7), torch.float32, LAYOUTS[0])
    dM = torch.randn(3, 35)
    wanted = by_definition(network, x, dM)
    assert_near(run(_map_and_gradients, network, x, dM), wanted)
    assert_near(run(_map_and_gradients, network, x, dM, True), wanted[:2])


def _by_torch(network: Hypernetwork, x: Tensor, dM: Tensor) -> tuple[Tensor, ...]:
    """As where the hypernetwork is too large for its kernels, and the statistics have theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypernetwork, "_HIDDEN", 1)
        patch.setattr(runtime, "statistics_serve", lambda x: True)
        return _map_and_gradients(network, x, dM)


@needs_triton
def test_a_hypernetwork_too_large_for_its_kernels_has_the_gradients_of_the_definition_for_every_image(run):
    network, x, dM = network_for(5, 7, ORDERS[0]), images((3, 5, 6, 7), torch.float32, LAYOUTS[0]), torch.randn(3, 9)
    assert_near(run(_by_torch, network, x, dM), by_definition(network, x, dM))


@needs_triton
@layouts
def test_low_precision_is_rounded_once_where_results_are_stored(layout, run):
    network, x = network_for(10, 6, ORDERS[0], torch.bfloat16), images((17, 10, 2, 3), torch.bfloat16, layout)
    dM = torch.randn(17, 9)
    got = run(_map_and_gradients, network, x, dM)
    assert [each.dtype for each in got] == [torch.float32, *[torch.bfloat16] * 5]
    assert got[1].is_contiguous(memory_format=layout)
    assert_near(got, by_definition(network, x, dM))


@needs_triton
@layouts
def test_an_image_has_the_same_bits_alone_and_at_any_place_of_any_batch(layout, run):
    network, x, dM = network_for(20, 18, ORDERS[0]), images((3, 20, 1, 3), torch.float32, layout), torch.randn(3, 9)
    which = [1, 1, 0, 2, *[1] * 12, 1, 0]  # the first image twice, in different tiles of images
    many = x[which].contiguous(memory_format=layout)
    alone = run(_map_and_gradients, network, x[:1].contiguous(memory_format=layout), dM[:1], True)
    few, moved = (run(_map_and_gradients, network, *given, True) for given in ((x, dM), (many, dM[which])))
    for one, some, all_ in zip(alone, few, moved, strict=True):
        assert torch.equal(one[0], some[0])
        assert torch.equal(some[which], all_)


@needs_triton
@layouts
def test_what_is_no_number_in_an_image_stays_in_it(layout, run):
    network, x, dM = network_for(20, 6, ORDERS[0]), images((18, 20, 1, 3), torch.float32, layout), torch.ones(18, 9)
    wanted = run(_map_and_gradients, network, x, dM, True)
    x[3, 4, 0, 1], x[16, 19], dM[7, 8] = float("nan"), float("inf"), float("nan")
    M, dX = run(_map_and_gradients, network, x, dM, True)
    others = [n for n in range(18) if n not in (3, 7, 16)]
    assert torch.equal(M[[*others, 7]], wanted[0][[*others, 7]])
    assert torch.equal(dX[others], wanted[1][others])
    assert M[[3, 16]].isnan().all()
    assert all(dX[n].isnan().any() for n in (3, 7, 16))


@needs_triton
@pytest.mark.parametrize("D", [1, 64, 512])
def test_no_tile_depends_on_the_number_of_images(D):
    from shconv.ops.cuda import hypernetwork as kernels
    from shconv.ops.cuda import statistics

    def launches(N: int) -> list[Any]:
        x, theta = torch.zeros(N, D, 2, 2), tuple(network_for(D, max(1, D // 2), ORDERS[0]).parameters())
        with tape.collecting() as found:
            states = hypernetwork.states(x, theta[0], theta[2])
            M, seen, hidden = kernels.forward(x, *theta, (0, 1), 1e-5, states)
            kernels.backward(M, M, seen, hidden, theta, (0, 1), True, True)
        return [(each, {name: n for name, n in given.items() if not isinstance(n, Tensor)}) for each, given in found]

    one, many = launches(1), launches(300)
    assert [each for each, _ in one] == [statistics.moments, kernels._forward, kernels._backward, kernels._theta]
    assert [(each, given | {"N": 300} if "N" in given else given) for each, given in one] == many


@needs_triton
def test_no_images_give_no_maps_and_no_gradient(run):
    M, dX, *theta = run(_map_and_gradients, network_for(4, 3, ORDERS[0]), torch.empty(0, 4, 5, 5), torch.empty(0, 9))
    assert (M.shape, dX.shape) == ((0, 9), (0, 4, 5, 5))
    assert not any(each.any() for each in theta)


# in a layer


def layer_and_images(dtype: torch.dtype) -> tuple[SHConv2d, Tensor]:
    torch.manual_seed(0)
    layer = SHConv2d(4, 6, 3, padding=1, dtype=torch.float64)
    nn.init.normal_(layer.hyper.output.weight)
    return layer.to(dtype), torch.randn(2, 4, 5, 6, dtype=torch.float64).to(dtype)


def gradient_of(layer: Any, x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(layer(leaf).square().sum(), leaf)[0]


def _fused(layer: SHConv2d, x: Tensor, compiled: bool = False) -> dict[str, Tensor]:
    """The layer's output and the gradient of its input by route, its maps fused wherever x is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypernetwork, "_FUSED_ON", (x.device.type,))
        patch.setattr(cpu_layer, "plan", lambda *_: None)
        return results(layer, x, compiled)


def results(layer: SHConv2d, x: Tensor, compiled: bool = False) -> dict[str, Tensor]:
    called: Any = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
    found = {"Y": called(x).detach(), "dX": gradient_of(called, x)}
    layer.zero_grad()
    called(x).square().sum().backward()
    found |= {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    if compiled:
        return found
    for route, weight in (("convolution", 1.0), ("hypernetwork", 1.0), ("both", 0.25)):
        with gradient_route(layer, route, weight):
            found[route] = gradient_of(layer, x)
    with frozen_kernels(layer, x):
        found["frozen"] = layer(x.flip(0)).detach()
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(layer(leaf).square().sum(), leaf, create_graph=True)
    return found | {"twice": torch.autograd.grad(first.square().sum(), leaf)[0]}


@needs_triton
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_layer_computes_the_same_by_every_route_with_its_map_from_the_kernels(compiled, run):
    layer, x = layer_and_images(torch.float32)
    got, wanted = run(_fused, layer, x, compiled), results(copy.deepcopy(layer).double(), x.double())
    assert len(got) == (8 if compiled else 13)
    for name, ours in got.items():
        torch.testing.assert_close(ours.double(), wanted[name], rtol=1e-4, atol=1e-5 * float(wanted[name].abs().max()))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_what_the_kernels_cannot_serve_the_op_computes_in_plain_torch(compiled):
    got, wanted = (function(*layer_and_images(torch.float64), compiled) for function in (_fused, results))
    for name, ours in got.items():
        torch.testing.assert_close(ours, wanted[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [ORDERS[1], ORDERS[3]], ids=str)
def test_the_op_passes_gradcheck_twice_and_opcheck(order):
    network, x = network_for(3, 4, order, torch.float64), torch.randn(2, 3, 3, 2, dtype=torch.float64)
    theta = [each.detach().requires_grad_() for each in network.parameters()]
    places = [("mean", "std").index(name) for name in order]
    arguments = (x.requires_grad_(), *theta, places, network.eps)
    op = torch.ops.shconv.filter_map.default

    def filter_map(*inputs: Tensor) -> Tensor:
        M: Tensor = op(*inputs, places, network.eps)
        return M

    assert torch.autograd.gradcheck(filter_map, arguments[:5])
    assert torch.autograd.gradgradcheck(filter_map, arguments[:5])
    torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_faketensor", "test_autograd_registration"))


def test_the_reason_for_plain_torch_is_logged_once(caplog):
    runtime.log_once.cache_clear()
    layer, x = layer_and_images(torch.float64)
    wide = SHConv2d(4, 6, 3, hidden_features=4096)
    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypernetwork, "_FUSED_ON", ("cpu",))
        patch.setattr(cpu_layer, "plan", lambda *_: None)
        for _ in range(2):
            layer(x)
            wide(x.float())
    assert [record.getMessage().split(":")[1][:30] for record in caplog.records] == [
        " x and the hypernetwork must b",
        " 4096 hidden neurons for 9 tap",
    ]


def test_a_device_triton_cannot_use_is_tried_once_and_says_why(caplog, monkeypatch):
    tried: list[int] = []

    def fails(*size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        tried.append(device.index)
        raise RuntimeError("no C compiler,\n anywhere")

    monkeypatch.setattr(runtime, "installed", lambda: True)
    monkeypatch.setattr(runtime.torch, "ones", fails)
    runtime.reason_against.cache_clear()
    reasons = {runtime.reason_against(3) for _ in range(2)}
    runtime.reason_against.cache_clear()
    assert reasons == {"Triton's kernels do not run: RuntimeError: no C compiler, anywhere"}
    assert tried == [3]
    assert len(caplog.records) == 1
    monkeypatch.setattr(runtime, "installed", lambda: False)
    assert runtime.reason_against(4) == "triton is not installed"
    runtime.reason_against.cache_clear()


# compiled for sm_90 and sm_80


@pytest.fixture(scope="module")
def kernels() -> tuple[ModuleType, ModuleType]:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("interpreted kernels cannot be compiled")
    from shconv.ops.cuda import hypernetwork as triton_hypernetwork
    from shconv.ops.cuda import statistics as triton_statistics

    return triton_statistics, triton_hypernetwork


FEW = 32  # bytes: a few registers more or less are the compiler's, and differ by its version
TYPES = (
    dict.fromkeys(("partials", "mean", "variance", "dmean", "dvariance", "seen", "hidden", "s", "M", "dM"), "*fp32")
    | dict.fromkeys(("dlogits", "dz", "dseen", "W1", "b1", "W2", "b2", "dW1", "db1", "dW2", "db2"), "*fp32")
    | dict.fromkeys(("D", "K", "S", "P", "share"), "i32/16")
    | {"x": "*bf16", "dX": "*bf16", "eps": "fp32"}
)


@needs_triton
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
class TestCompiled:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))

    @pytest.mark.parametrize("name", ["moments", "gradient"])
    @pytest.mark.parametrize(("last", "tile"), [(True, (64, 64)), (False, (4, 1024))])
    def test_statistics_spill_no_register_and_read_x_in_words_of_sixteen_bytes(
        self, name, last, tile, kernels, tmp_path
    ):
        known = {"LAST": last, "CHANNELS": tile[0], "PIXELS": tile[1]}
        registers, stack, made = compiled_for(90, getattr(kernels[0], name), TYPES, known, 8, 3, tmp_path)
        assert (registers <= 128, stack) == (True, 0)  # two blocks on a multiprocessor
        assert "ld.global.v4.b32" in made.asm["ptx"]

    @pytest.mark.parametrize("D", [1, 64, 512])
    def test_the_hypernetwork_spills_next_to_nothing(self, D, kernels, tmp_path):
        K = max(1, D // 2)
        tile = kernels[1]._tile(D, K, 9)
        known = {"F": 2, "MEAN_AT": 0, "STD_AT": 1, "SHARES": 16, **tile}
        if D == 1:  # Triton takes a size of one for a constant
            known |= dict.fromkeys(("D", "K", "P", "share", "shares"), 1)
        _, stack, made = compiled_for(90, kernels[1]._forward, TYPES, known, tile["num_warps"], 3, tmp_path)
        assert stack <= FEW
        assert made.metadata.shared <= 48 * 1024

    @pytest.mark.parametrize(
        ("capability", "D", "taps", "weights"),
        [(90, 1, 9, "fp32"), (90, 100, 9, "fp32"), (90, 512, 9, "bf16"), (80, 512, 49, "fp32")]
        + [
            pytest.param(*each, marks=pytest.mark.slow)
            for each in ((90, 512, 49, "fp32"), (80, 1, 9, "fp32"), (80, 100, 9, "fp32"), (80, 512, 9, "bf16"))
        ],
    )
    def test_the_way_back_to_the_statistics_spills_no_register(self, capability, D, taps, weights, kernels, tmp_path):
        K = max(1, D // 2)
        tile = kernels[1]._backward_tile(D, K, taps)
        known = {"F": 2, "STD_AT": 1, "NEEDS_X": True, **tile}
        types = TYPES | {"W1": f"*{weights}", "W2": f"*{weights}"}
        if D == 1:
            known |= {"D": 1, "K": 1}
        elif D % 16:
            types |= {"D": "i32", "K": "i32"}
        options = tile["num_warps"], tile["num_stages"]
        _, stack, made = compiled_for(capability, kernels[1]._backward, types, known, *options, tmp_path)
        assert stack == 0
        assert made.metadata.shared <= 48 * 1024

    @pytest.mark.parametrize(
        ("capability", "K"), [(90, 256), (80, 256), *(pytest.param(n, 32, marks=pytest.mark.slow) for n in (90, 80))]
    )
    def test_the_gradients_of_theta_spill_no_register(self, capability, K, kernels, tmp_path):
        tile = kernels[1]._theta_tile(K)
        options = tile["num_warps"], tile["num_stages"]
        _, stack, _ = compiled_for(capability, kernels[1]._theta, TYPES, tile, *options, tmp_path)
        assert stack == 0
