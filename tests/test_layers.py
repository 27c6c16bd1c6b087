"""SHConv2d against section 2.2 written out in numpy, and what makes it a drop-in for nn.Conv2d."""

import copy
import inspect
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layer_toys import images, make
from shconv import SHConv2d, to_shc
from shconv.errors import InputError
from shconv.layers import channel_statistics
from shconv.ops import reference
from toys import words

CASES: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": (2, 1), "bias": False},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": (1, 2)},
    {"dilation": (2, 1), "padding": (2, 0)},
    {"kernel_size": (2, 3), "padding": "same"},
    {"kernel_size": (2, 4), "padding": "same", "padding_mode": "replicate"},
    {"padding": "valid", "dilation": 2},
    {"padding": (1, 2), "padding_mode": "reflect"},
    {"padding": 2, "padding_mode": "circular", "stride": 2},
    {"padding": 1, "padding_mode": "replicate", "groups": 2},
    {"statistics": ("mean",), "padding": 1},
    {"statistics": ("std",), "padding": 1},
    {"statistics": ("std", "mean"), "padding": 1},
    {"hidden_features": 5, "eps": 0.3},
    {"statistics": ("max", "kurtosis", "mean"), "padding": 1},
    {"statistics": ("skew", "min", "std"), "groups": 2},
    {"activation": "softplus", "stride": 2},
    {"activation": "identity+1", "gain": 0.7},
    {"activation": torch.tanh, "statistics": ("std", "max")},
    {"map_groups": 2, "padding": 1},
    {"map_groups": 4, "groups": 2, "stride": 2},
    {"map_groups": 2, "groups": 4, "bias": False},
    {"map_groups": 4, "groups": 4, "padding": "same", "gain": 2.0},
    {"groups": 4, "padding": 1},
]
ACTIVATIONS: dict[Any, Any] = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "identity+1": lambda z: 1 + z,
    torch.tanh: np.tanh,
}


def filter_map_by_hand(layer: SHConv2d, X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """M of one image X (D, H, W)."""
    hyper = layer.hyper
    W1, b1, W2, b2 = (tensor.detach().numpy() for tensor in hyper.parameters())
    mu = X.sum((1, 2)) / X[0].size
    sigma = np.sqrt(((X - mu[:, None, None]) ** 2).sum((1, 2)) / X[0].size + hyper.eps)
    z = (X - mu[:, None, None]) / sigma[:, None, None]
    moments = {"skew": (z**3).sum((1, 2)) / X[0].size, "kurtosis": (z**4).sum((1, 2)) / X[0].size}
    values = {"mean": mu, "std": sigma, "max": X.max((1, 2)), "min": X.min((1, 2)), **moments}
    s = np.concatenate([values[name] for name in hyper.statistics])
    logits = W2 @ np.maximum(W1 @ s + b1, 0) + b2
    size = layer.kernel_size if hyper.map_groups == 1 else (hyper.map_groups, *layer.kernel_size)
    M: np.ndarray[Any, Any] = ACTIVATIONS[hyper.activation](logits.reshape(size))
    return M if hyper.gain is None else M * float(hyper.gain)


def output_by_hand(layer: SHConv2d, X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Y of one image: every output the sum over its own kernel's taps."""
    H, M = layer.weight.detach().numpy().copy(), filter_map_by_hand(layer, X)
    for c, d in np.ndindex(*H.shape[:2]):  # M itself, or that of the input channel's group
        number = c // (layer.out_channels // layer.groups) * H.shape[1] + d
        H[c, d] *= M if M.ndim == 2 else M[number * len(M) // layer.in_channels]
    taps, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if layer.padding == "same":
        total = [dilation[a] * (taps[a] - 1) for a in (0, 1)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(0, 0)] * 2 if layer.padding == "valid" else [(int(p), int(p)) for p in layer.padding]
    mode: Any = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[layer.padding_mode]
    P = np.pad(X, [(0, 0), *pads], mode=mode)
    height, width = ((P.shape[1 + a] - dilation[a] * (taps[a] - 1) - 1) // stride[a] + 1 for a in (0, 1))
    Y = np.zeros((layer.out_channels, height, width))
    per_group = layer.out_channels // layer.groups
    for c, d, i, j in np.ndindex(*H.shape):
        channel = P[c // per_group * H.shape[1] + d, i * dilation[0] :, j * dilation[1] :]
        Y[c] += H[c, d, i, j] * channel[:: stride[0], :: stride[1]][:height, :width]
    return Y if layer.bias is None else Y + layer.bias.detach().numpy()[:, None, None]


# section 2.2


@pytest.mark.parametrize("arguments", CASES, ids=words)
def test_output_and_map_are_the_formula_written_by_hand(arguments: dict[str, Any]) -> None:
    layer, x = make(**arguments), images()
    maps = np.stack([filter_map_by_hand(layer, X) for X in x.numpy()])
    torch.testing.assert_close(layer.filter_map(x), torch.from_numpy(maps), rtol=1e-12, atol=1e-12)
    Y = np.stack([output_by_hand(layer, X) for X in x.numpy()])
    torch.testing.assert_close(layer(x), torch.from_numpy(Y), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("D", "added"), [(64, 4_425), (128, 17_033), (256, 66_825), (512, 264_713)])
def test_the_hypernetwork_adds_the_papers_number_of_parameters(D: int, added: int) -> None:
    layer = SHConv2d(D, 2 * D, 3, device="meta")
    assert sum(p.numel() for p in layer.hyper.parameters()) == added
    assert sum(p.numel() for p in layer.parameters()) == added + 2 * D * (D * 9 + 1)
    assert layer.hyper.hidden.weight.shape == (D // 2, 2 * D)


def test_one_input_channel_still_has_a_hidden_neuron() -> None:
    assert SHConv2d(1, 2, 3).hyper.hidden.weight.shape == (1, 2)


def test_the_map_starts_near_one_half_and_lies_between_0_and_1() -> None:
    M = SHConv2d(64, 8, 3).filter_map(torch.rand(4, 64, 5, 5))
    assert (M - 0.5).abs().max() < 0.3
    extreme = make().filter_map(1e3 * images())
    assert extreme.min() >= 0
    assert extreme.max() <= 1


def test_sigma_is_the_population_standard_deviation_with_eps_under_the_root() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64).view(1, 1, 2, 2)
    torch.testing.assert_close(channel_statistics(x), torch.tensor([[3.0, (3.5 + 1e-5) ** 0.5]], dtype=torch.float64))


# gradients


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"groups": 2, "stride": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"statistics": ("max", "skew", "kurtosis"), "activation": "softplus"},
        {"map_groups": 2, "gain": 2.0},
        {"map_groups": 2, "groups": 2},
    ],
)
def test_gradcheck_passes_for_input_and_every_parameter(arguments: dict[str, Any]) -> None:
    layer = make(in_channels=2, out_channels=2, kernel_size=2, **arguments)
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def output(x: Tensor, *parameters: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        return result

    assert torch.autograd.gradcheck(output, (x, *layer.parameters()))


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 4, 5, 5), torch.full((2, 4, 5, 5), 7.0), torch.randn(2, 4, 1, 1)], ids=["dead", "flat", "1x1"]
)
@pytest.mark.parametrize("statistics", [("mean", "std"), ("mean",), ("std",)])
def test_constant_channels_and_1x1_maps_have_finite_gradients(x: Tensor, statistics: Any) -> None:
    layer = make(torch.float32, padding=1, statistics=statistics)
    x = x.clone().requires_grad_()
    layer(x).square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in (x, *layer.parameters()))


def test_every_parameter_of_the_hypernetwork_gets_a_gradient() -> None:
    layer = make()
    layer(images(8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("arguments", CASES[:6], ids=words)
def test_full_gradient_is_convolution_route_plus_hypernetwork_route(arguments: dict[str, Any]) -> None:
    layer, x = make(**arguments), images().requires_grad_()
    geometry = (layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    M = layer.filter_map(x)
    convolution = reference.filtered_conv2d(x, layer.weight, M.detach(), *geometry)
    hypernetwork = reference.filtered_conv2d(x.detach(), layer.weight, M, *geometry)
    dY = torch.randn_like(convolution)
    full, *routes = (torch.autograd.grad(Y, x, dY)[0] for Y in (layer(x), convolution, hypernetwork))
    assert all(route.any() for route in routes)
    torch.testing.assert_close(full, routes[0] + routes[1], rtol=1e-12, atol=1e-12)


# precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_low_precision_model_computes_its_map_in_float32(dtype: torch.dtype) -> None:
    layer, x = make(dtype), images(dtype=dtype)
    M = layer.filter_map(x)
    assert M.dtype == torch.float32
    torch.testing.assert_close(M, copy.deepcopy(layer).float().filter_map(x.float()), rtol=1e-6, atol=1e-6)
    assert layer(x).dtype == dtype
    layer(x).float().sum().backward()
    assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} == {dtype}


def test_autocast_leaves_the_map_in_float32() -> None:
    layer, x = make(torch.float32), images(dtype=torch.float32)
    M = layer.filter_map(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert torch.equal(layer.filter_map(x), M)


# a layer like any other


@pytest.mark.parametrize("arguments", [{"padding": 1}, {"groups": 4, "stride": 2}, {"kernel_size": 1}])
def test_an_images_output_does_not_depend_on_its_batch(arguments: dict[str, Any]) -> None:
    layer, x = make(**arguments), images(5)
    whole = layer(x)
    for n in range(5):
        torch.testing.assert_close(whole[n : n + 1], layer(x[n : n + 1]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x.flip(0)), whole.flip(0), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.filterwarnings("ignore:var_mean")  # torch's remark on the variance of no images
@pytest.mark.parametrize("arguments", CASES[:12], ids=words)
def test_unbatched_and_empty_inputs_have_conv2ds_shapes(arguments: dict[str, Any]) -> None:
    layer, x = make(**arguments), images()
    conv = nn.Conv2d(**{"in_channels": 4, "out_channels": 8, "kernel_size": 3, "dtype": torch.float64, **arguments})
    torch.testing.assert_close(layer(x[0]), layer(x)[0], rtol=1e-12, atol=1e-12)
    assert layer(x).shape == conv(x).shape
    if layer.padding_mode == "zeros":  # torch pads no empty batch in the other modes
        assert layer(x[:0]).shape == conv(x[:0]).shape


def test_its_arguments_begin_with_exactly_those_of_conv2d() -> None:
    ours, torchs = (list(inspect.signature(cls).parameters.values()) for cls in (SHConv2d, nn.Conv2d))
    assert [(p.name, p.default, p.kind) for p in ours[: len(torchs)]] == [(p.name, p.default, p.kind) for p in torchs]
    assert {p.kind for p in ours[len(torchs) :]} == {inspect.Parameter.KEYWORD_ONLY}


def test_a_conv2d_state_dict_loads_with_only_the_hypernetwork_missing() -> None:
    layer, conv = make(groups=2), nn.Conv2d(4, 8, 3, groups=2, dtype=torch.float64)
    missing, unexpected = layer.load_state_dict(conv.state_dict(), strict=False)
    assert unexpected == []
    assert set(missing) == {f"hyper.{linear}.{part}" for linear in ("hidden", "output") for part in ("weight", "bias")}
    assert torch.equal(layer.weight, conv.weight)


def test_copies_pickles_and_state_dicts_compute_the_same() -> None:
    layer, x = make(padding=1, statistics=("std",), hidden_features=3), images()
    expected = layer(x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    loaded = make(padding=1, statistics=("std",), hidden_features=3)
    loaded.load_state_dict(layer.state_dict())
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False), loaded]
    with torch.no_grad():
        layer.hyper.output.bias.add_(1), layer.weight.add_(1)
    for other in copies:
        assert torch.equal(other(x), expected)


def test_it_is_one_compiled_graph() -> None:
    layer, x = make(padding=1), images().requires_grad_()
    Y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(Y, layer(x))
    torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in (Y, layer(x))))


def test_a_channels_last_input_gives_a_channels_last_output() -> None:
    layer, x = make(padding=1), images()
    Y = layer(x.contiguous(memory_format=torch.channels_last))
    assert Y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(Y, layer(x))


def test_a_map_of_one_half_makes_it_half_a_convolution() -> None:
    layer, x = make(padding=1), images()
    for parameter in layer.hyper.output.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight / 2, layer.bias, padding=1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"statistics": ()}, r"statistics.*\(\)"),
        ({"statistics": ("mean", "mean")}, "each once"),
        ({"statistics": ("median",)}, "median"),
        ({"statistics": (torch.sum, torch.sum)}, "each once"),
        ({"activation": "relu"}, r"activation must be sigmoid, softplus, identity\+1 or a function, got 'relu'"),
        ({"map_groups": 3}, "map_groups must divide the 4 input channels.*got 3"),
        ({"map_groups": 0}, "map_groups.*got 0"),
        ({"in_channels": 12, "out_channels": 12, "map_groups": 3, "groups": 2}, "groups=2 or be a multiple.*got 3"),
        ({"statistics": "mean"}, "'mean'"),
        ({"hidden_features": 0}, "hidden_features.*0"),
        ({"hidden_features": 2.5}, "hidden_features: got 2.5; want an integer or None"),
        ({"eps": -1.0}, "eps.*-1"),
        ({"eps": float("nan")}, "eps.*nan"),
    ],
)
def test_arguments_it_cannot_use_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make(**arguments)


def test_its_numbers_may_be_numpys() -> None:
    conv = nn.Conv2d(4, np.int64(8), np.int64(3), stride=np.int64(2), padding=np.int32(1))
    layer, x = to_shc(conv, where=3), images(dtype=torch.float32)
    torch.testing.assert_close(layer(x), conv(x))


@pytest.mark.filterwarnings("ignore:var_mean")
def test_no_entries_of_vmap_give_none() -> None:
    x = images()[None, :0]
    assert torch.func.vmap(make(padding=1))(x[:0]).shape == (0, 0, 8, 7, 6)


@pytest.mark.parametrize("change", [{"stride": 1}, {"stride": [1, 2]}, {"padding": 1, "dilation": [2, 1]}], ids=str)
def test_numbers_set_later_may_be_of_any_kind_that_torchs_own_layer_takes(change: dict[str, Any]) -> None:
    layer, x = make(stride=2, padding=1), images()
    pairs = make(stride=2, padding=1)
    pairs.load_state_dict(layer.state_dict())
    for name, value in change.items():
        setattr(layer, name, value)
        setattr(pairs, name, (value, value) if isinstance(value, int) else tuple(value))
    torch.testing.assert_close(layer(x), pairs(x))


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (4, 5), (3, 5, 5), (1, 2, 4, 5, 5)])
def test_an_input_of_another_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\(N, 4, H, W\).*" + ", ".join(map(str, shape[-3:]))):
        make()(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_depthwise_layer_in_float32_agrees_with_float64_forward_and_backward(multiplier: int, stride: int) -> None:
    depthwise = {"in_channels": 24, "out_channels": 24 * multiplier, "groups": 24, "stride": stride, "padding": 1}
    layer, x = make(torch.float32, **depthwise), images(D=24, dtype=torch.float32).requires_grad_()
    exact, X = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    Y, expected = layer(x), exact(X)
    torch.testing.assert_close(Y, expected.float(), rtol=1e-4, atol=1e-4)
    dY = torch.randn_like(Y)
    found = torch.autograd.grad(Y, [x, *layer.parameters()], dY)
    right = torch.autograd.grad(expected, [X, *exact.parameters()], dY.double())
    for gradient, of in zip(found, right, strict=True):
        torch.testing.assert_close(gradient, of.float(), rtol=1e-3, atol=1e-3)


LATER = [(1,), [1], [2, 1], (1, 1, 1), (), (-1,), (-1, 1), (0, 0), 0, 1.5, (1.5, 1), None, 2]


@pytest.mark.parametrize("value", LATER, ids=str)
@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
def test_numbers_set_later_are_taken_or_refused_as_by_a_convolution(name: str, value: Any) -> None:
    conv, layer = nn.Conv2d(4, 6, 3, padding=1), SHConv2d(4, 6, 3, padding=1)
    setattr(conv, name, value)
    setattr(layer, name, value)
    x = torch.randn(2, 4, 6, 6)
    try:
        size = conv(x).shape
    except (RuntimeError, TypeError):
        with pytest.raises(InputError, match=f"{name} must be"):
            layer(x)
    else:
        assert layer(x).shape == size
