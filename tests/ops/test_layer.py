"""A layer as one op: equal to its definition in every setting, differentiable like it, and seen by whoever has to see
it. What SHConv2d makes of it is in tests/test_layers.py, when it may be used at all in tests/test_untouched.py."""

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shconv import SHConv2d
from shconv.errors import InputError
from shconv.ops import hypernetwork, registration
from shconv.ops import layer as op
from shconv.ops.cpu import library
from shconv.ops.geometry import Geometry

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# D, C, (H, W), and the layer's options: every way of the compiled kernels, and what they leave to others
CASES: list[tuple[int, int, tuple[int, int], dict[str, Any]]] = [
    (4, 6, (7, 6), {"padding": 1}),
    (16, 8, (9, 9), {"padding": 1, "stride": 2, "bias": False}),
    (3, 20, (12, 5), {"kernel_size": (3, 2), "padding": (1, 0)}),
    (33, 17, (4, 4), {"padding": 1, "statistics": ("std", "mean")}),
    (5, 4, (6, 6), {"dilation": 2, "padding": 2, "statistics": ("std",), "hidden_features": 9}),
    (4, 4, (1, 1), {"padding": 1, "statistics": ("mean",)}),
    (40, 40, (3, 3), {"padding": 1}),
    (6, 6, (5, 5), {"groups": 2, "padding": 1}),
    (260, 5, (2, 2), {"padding": 1}),
]


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(library, "kernels", lambda: "turned off")
    elif isinstance(reason := library.kernels(), str):
        pytest.skip(reason)


def build(case: Any, dtype: torch.dtype = torch.float32) -> tuple[SHConv2d, Tensor]:
    D, C, size, options = case
    layer = SHConv2d(D, C, **{"kernel_size": 3, "dtype": dtype, **options})
    return layer, (torch.randn(3, D, *size) * torch.rand(3, D, 1, 1) + 0.3).to(dtype)


def by_definition(layer: SHConv2d, x: Tensor) -> Tensor:
    """What the layer computes when somebody looks in: a hook that does nothing keeps the op away."""
    handle = layer.hyper.register_forward_hook(lambda *_: None)
    try:
        Y: Tensor = layer(x)
        return Y
    finally:
        handle.remove()


def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every call of the op."""
    calls: list[int] = []
    whole = op.shc_conv2d
    monkeypatch.setattr(op, "shc_conv2d", lambda *arguments: calls.append(1) or whole(*arguments))
    return calls


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_all_gradients_are_the_definitions(case, layout, monkeypatch):
    layer, x = build(case)
    calls = used(monkeypatch)
    exact, X = build(case)[0].double(), x.double().requires_grad_()
    exact.load_state_dict(layer.state_dict())
    layer, x = layer.to(memory_format=layout), x.contiguous(memory_format=layout).requires_grad_()
    Y, wanted = layer(x), by_definition(exact, X)
    assert calls == [1]
    assert Y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(Y, wanted.float(), rtol=1e-5, atol=1e-5)
    dY = torch.randn(Y.shape)
    right = torch.autograd.grad(wanted, [X, *exact.parameters()], dY.double())
    for given in (
        dY,
        dY.contiguous(memory_format=torch.channels_last),
        dY.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        found = torch.autograd.grad(Y, [x, *layer.parameters()], given, retain_graph=True)
        for gradient, of in zip(found, right, strict=True):
            torch.testing.assert_close(gradient, of.float(), rtol=1e-4, atol=1e-4 * float(of.abs().max().clamp(min=1)))
    with torch.no_grad():
        assert torch.equal(layer(x), Y)


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3], CASES[7]], ids=str)
def test_every_subset_of_the_gradients_is_that_of_all(case):
    layer, x = build(case)
    leaves = [x, *layer.parameters()]
    everything = None
    for asked in itertools.product((True, False), repeat=4):  # x, weight, bias, theta
        groups = [[x], [layer.weight], [] if layer.bias is None else [layer.bias], list(layer.hyper.parameters())]
        wanted = [leaf for group, ask in zip(groups, asked, strict=True) if ask for leaf in group]
        for leaf in leaves:
            leaf.requires_grad_(any(leaf is each for each in wanted))
        if not wanted:
            assert not layer(x).requires_grad
            continue
        found = torch.autograd.grad(layer(x).square().sum(), wanted)
        everything = everything or {id(leaf): gradient for leaf, gradient in zip(wanted, found, strict=True)}
        for leaf, gradient in zip(wanted, found, strict=True):
            torch.testing.assert_close(gradient, everything[id(leaf)], rtol=1e-5, atol=1e-5)


def test_an_image_has_the_same_bits_alone_and_in_any_batch_beside_a_broken_one(request):
    if request.node.callspec.params["route"] == "torch":
        pytest.skip("torch's matrix products promise no bits")
    layer, x = build((260, 16, (3, 3), {"padding": 1}))
    x = torch.cat([x, torch.full_like(x[:1], float("nan"))])
    for layout in LAYOUTS.values():
        many = layer(x.contiguous(memory_format=layout))
        assert torch.equal(layer(x[1:2].contiguous(memory_format=layout))[0], many[1])
        assert many[3].isnan().all()


@pytest.mark.parametrize(("route", "case"), [("compiled", CASES[0]), ("torch", CASES[1])], indirect=["route"], ids=str)
def test_opcheck_passes_in_both_directions(case):
    layer, x = build(case)
    theta = [parameter.detach() for parameter in layer.hyper.parameters()]
    numbers = (layer.stride, layer.padding, layer.dilation, layer.groups, (0, 1), 1e-5)
    inputs = [x, layer.weight, *theta, layer.bias]
    leaves = [None if each is None else each.detach().requires_grad_() for each in inputs]
    torch.library.opcheck(torch.ops.shconv.layer.default, (*leaves, *numbers))
    tensors = [None if each is None else each.detach() for each in inputs]
    told = functools.partial(registration.tell, (Geometry(*numbers[:4]), *numbers[4:]))
    for keep in (False, True):
        torch.library.opcheck(torch.ops.shconv.layer_forward.default, (*tensors, told(keep)))
    Y, *kept = torch.ops.shconv.layer_forward.default(*tensors, told(True))
    count = len(tensors) - tensors.count(None)
    for mask in ((True,) * 7, (True, *[False] * 6), (False, *[True] * 5, False)):
        arguments = (torch.randn_like(Y), *tensors, *kept, told(mask[:count]))
        torch.library.opcheck(torch.ops.shconv.layer_backward.default, arguments)


def test_third_derivatives_are_the_definitions():
    layer, x = build((2, 3, (4, 3), {"padding": 1}), torch.float64)

    def third(forward: Any) -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_(), *layer.parameters()]
        value = forward(leaves[0]).sin().square().sum()
        for _ in range(2):
            found = torch.autograd.grad(value, leaves, create_graph=True)
            value = sum((each / 8).sin().sum() for each in found)
        return torch.autograd.grad(value, leaves)

    torch.testing.assert_close(third(layer), third(lambda x: by_definition(layer, x)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32])
def test_under_autocast_it_is_the_definition(given):
    layer, x = build(CASES[1])
    x = x.to(given).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        Y, wanted = layer(x), by_definition(layer, x)
    assert Y.dtype == torch.bfloat16
    torch.testing.assert_close(Y, wanted)
    leaves = [x, *layer.parameters()]
    found, right = (torch.autograd.grad(each.float().square().sum(), leaves) for each in (Y, wanted))
    for gradient, of in zip(found, right, strict=True):
        assert gradient.dtype == of.dtype
        torch.testing.assert_close(gradient, of, rtol=0.05, atol=0.02 * float(of.abs().max()))


@pytest.mark.parametrize("grad", [True, False])
def test_a_tensor_kept_after_its_transform_has_ended_is_computed_as_any_other(grad):
    layer, x = build(CASES[0])
    kept: list[Tensor] = []

    def loss(x: Tensor) -> Tensor:
        kept.append(x)
        Y: Tensor = layer(x)
        return Y.square().sum()

    torch.func.grad(loss)(x)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(layer(kept[0]), layer(x))


def test_it_is_one_node_of_a_compiled_graph_in_each_direction():
    layer, x = build(CASES[0])
    graphs: list[str] = []

    def record(graph: Any, _: Any) -> Any:
        graphs.append(graph.code)
        return graph

    from torch._dynamo.backends.common import aot_autograd

    torch._dynamo.reset()
    whole = torch.compile(layer, fullgraph=True, backend=aot_autograd(fw_compiler=record))
    x = x.requires_grad_()
    Y = whole(x)
    found = torch.autograd.grad(Y.square().sum(), [x, *layer.parameters()])
    torch._dynamo.reset()
    assert [code.count("torch.ops.shconv.") for code in graphs] == [1, 1]
    torch.testing.assert_close(found, torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()]))


def test_a_profiler_and_a_dispatch_mode_see_it_in_both_directions():
    layer, x = build(CASES[0])
    with torch.profiler.profile() as seen:
        layer(x).sum().backward()
    assert {"shconv::layer", "shconv::layer_backward"} <= {event.key for event in seen.key_averages()}


def test_saved_tensors_are_those_of_the_hooks_in_force():
    layer, x = build(CASES[0])
    packed: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.shape) or t, lambda t: t):
        Y = layer(x.requires_grad_())
    assert x.shape in packed
    Y.sum().backward()
    assert x.grad is not None


def test_a_changed_number_of_threads_and_of_features_makes_a_plan_of_its_own():
    layer, x = build(CASES[0])
    expected = layer(x)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)
    finally:
        torch.set_num_threads(threads)
    layer.hyper.hidden, layer.hyper.output = nn.Linear(8, 7), nn.Linear(7, 9)
    torch.testing.assert_close(layer(x), by_definition(layer, x))


def _change(layer: SHConv2d, what: str) -> None:
    """As an own module, or a tool that prunes, leaves a layer whose parts do not fit."""
    hyper, zeros = layer.hyper, lambda size: nn.Parameter(torch.zeros(size))
    changes: dict[str, Any] = {
        "fewer statistics": lambda: setattr(hyper, "hidden", nn.Linear(6, 2)),
        "more statistics": lambda: setattr(hyper, "hidden", nn.Linear(64, 2)),
        "more neurons": lambda: setattr(hyper, "output", nn.Linear(30, 9)),
        "more taps": lambda: setattr(hyper, "output", nn.Linear(2, 18)),
        "a short bias of the hidden layer": lambda: setattr(hyper.hidden, "bias", zeros(1)),
        "a short bias of the output layer": lambda: setattr(hyper.output, "bias", zeros(3)),
        "a short bias": lambda: setattr(layer, "bias", zeros(3)),
        "other channels": lambda: setattr(layer, "weight", zeros((6, 40, 3, 3))),
    }
    changes[what]()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("fewer statistics", r"\(2, 8\).*4, 7, 6.*9 taps.*\(2, 6\)"),
        ("more statistics", r"\(2, 64\)"),
        ("more neurons", r"\(9, 2\).*\(9, 30\)"),
        ("more taps", r"\(18, 2\)"),
        ("a short bias of the hidden layer", r"\(1,\)"),
        ("a short bias of the output layer", r"\(3,\)"),
        ("a short bias", r"bias must be .*\(6,\).*\(3,\)"),
        ("other channels", "4 channels, the weight wants 40"),
    ],
)
@pytest.mark.parametrize("called", [False, True], ids=["at once", "after a call that fits"])
def test_a_layer_whose_parts_do_not_fit_is_refused_and_no_memory_beside_them_read(what, said, called):
    layer, x = build(CASES[0])
    if called:
        layer(x)
    _change(layer, what)
    with pytest.raises(InputError, match=said):
        layer(x)


def test_a_map_of_a_hypernetwork_that_does_not_fit_is_refused_too():
    layer, x = build(CASES[0])
    _change(layer, "more statistics")
    with pytest.raises(InputError, match=r"\(2, 8\).*\(2, 64\)"):
        hypernetwork.filter_map(x, layer.hyper.theta(), (0, 1), 1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("route", "options"),
    [("compiled", {"dilation": (9, 9)}), ("torch", {"stride": (0, 0)}), ("torch", {"groups": 3})],
    indirect=["route"],
    ids=str,
)
def test_a_call_that_does_not_fit_is_refused_in_the_same_words_compiled(options):
    layer, x = build(CASES[0])
    for name, value in options.items():
        setattr(layer, name, value)
    torch._dynamo.reset()
    refusals = []
    for call in (layer, torch.compile(layer, backend="aot_eager")):
        with pytest.raises(InputError) as refusal:
            call(x)
        refusals.append(str(refusal.value))
    torch._dynamo.reset()
    assert refusals[0] == refusals[1]
