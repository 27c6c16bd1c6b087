"""Every relative: its slow reference's numbers, right gradients, and what any drop-in of nn.Conv2d should do."""

import copy
from typing import Any

import pytest
import torch
from references import REFERENCES
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

import shconv
from shconv import flops
from shconv.errors import InputError
from shconv.relatives import RELATIVES, KernelGenerator, Relative

kinds = pytest.mark.parametrize("kind", RELATIVES.values(), ids=RELATIVES)

GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "padding": {"padding": 1},
    "stride": {"stride": 2, "padding": (0, 1)},
    "groups": {"groups": 2, "padding": 1},
    "dilation": {"dilation": (2, 1), "padding": 1, "bias": False},
    "same": {"padding": "same", "kernel_size": (3, 1)},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
}


def make(kind: type[Relative], seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Relative:
    """Every parameter with a value that matters."""
    torch.manual_seed(seed)
    arguments = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "dtype": dtype, **options}
    if kind.suffix == "hypernet":
        arguments = {"tile": 3, "embedding": 2, "hidden": 3, **arguments}  # several tiles, the last ones cut
    layer = kind(**arguments)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer


def images(N: int = 2, D: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(N, D, 5, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_every_relative_has_a_reference() -> None:
    assert set(REFERENCES) == set(RELATIVES) == set(shconv.relatives.list_relatives())


@torch.no_grad()
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@kinds
def test_the_output_is_the_references(kind: type[Relative], geometry: dict[str, Any]) -> None:
    layer = make(kind, **geometry)
    torch.testing.assert_close(layer(images()), REFERENCES[kind.suffix](layer, images()))


@kinds
def test_gradients_of_the_input_and_of_every_parameter_are_those_of_finite_differences(kind: type[Relative]) -> None:
    layer = make(kind, in_channels=2, out_channels=2, kernel_size=2)
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))  # type: ignore[no-any-return]

    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, *layer.parameters()))


@kinds
def test_an_images_output_does_not_depend_on_its_batch_and_one_may_come_alone(kind: type[Relative]) -> None:
    layer, x = make(kind, padding=1), images(3)
    whole = layer(x)
    torch.testing.assert_close(layer(x[1:2])[0], whole[1])
    torch.testing.assert_close(layer(x[2]), whole[2])
    none = layer(x[:0])
    assert none.shape == (0, *whole.shape[1:])
    none.sum().backward()
    assert not any(parameter.grad.any() for parameter in layer.parameters() if parameter.grad is not None)


@kinds
def test_only_the_static_hypernetwork_is_the_same_for_all_images(kind: type[Relative]) -> None:
    """A linear layer has f(2 x) = 2 f(x) without a bias."""
    layer = make(kind, padding=1, bias=False)
    linear = torch.allclose(layer(2 * images()), 2 * layer(images()))
    assert linear == (kind.suffix == "hypernet")


@kinds
def test_the_arguments_are_conv2ds_and_so_are_shape_dtype_and_what_is_said_of_it(kind: type[Relative]) -> None:
    arguments = (8, 4, (3, 5), (2, 1), (1, 2), (1, 2), 4, False, "circular", "cpu", torch.float32)
    layer, conv = kind(*arguments), nn.Conv2d(*arguments)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 9, 12)
    assert (layer(x).shape, layer(x).dtype) == (conv(x).shape, conv(x).dtype)
    assert layer.bias is None
    assert layer.extra_repr() == conv.extra_repr()
    with pytest.raises(InputError, match=f"{kind.__name__} wants \\(N, 8, H, W\\), got \\(2, 3, 9, 9\\)"):
        layer(torch.randn(2, 3, 9, 9))


@kinds
def test_a_fresh_layers_output_is_about_as_large_as_conv2ds(kind: type[Relative]) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 32, 8, 8)
    own, conv = (float(each(32, 32, 3, padding=1, bias=False)(x).detach().std()) for each in (kind, nn.Conv2d))
    assert 0.3 < own / conv < 3


@kinds
def test_the_state_dict_goes_round_and_so_do_copies(kind: type[Relative]) -> None:
    layer, other = make(kind), make(kind, seed=1)
    assert not torch.equal(other(images()), layer(images()))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(images()), layer(images()))
    assert torch.equal(copy.deepcopy(layer)(images()), layer(images()))


@kinds
def test_channels_last_bfloat16_and_autocast_give_the_same_but_for_rounding(kind: type[Relative]) -> None:
    layer, x = make(kind, dtype=torch.float32, padding=1), images(dtype=torch.float32)
    wanted = layer(x).detach()
    last = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x.contiguous(memory_format=torch.channels_last)), wanted)
    scale = float(wanted.abs().max())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert float((layer(x).float() - wanted).abs().max()) < 0.1 * scale
    low = copy.deepcopy(layer).bfloat16()(x.bfloat16()).detach()
    assert low.dtype == torch.bfloat16
    assert float((low.float() - wanted).abs().max()) < 0.1 * scale


@kinds
def test_a_layer_made_on_meta_is_made_real_by_reset_parameters(kind: type[Relative]) -> None:
    layer = kind(4, 4, 3, device="meta")
    assert all(tensor.is_meta for tensor in layer.state_dict().values())
    for module in layer.modules():
        module.to_empty(device="cpu", recurse=False)
        for tensor in module.parameters(recurse=False):
            nn.init.constant_(tensor, float("nan"))
    for module in layer.modules():
        module.reset_parameters()  # type: ignore[operator]
    assert layer(torch.randn(2, 4, 5, 5)).isfinite().all()
    assert all(float(p.detach().std()) > 0 for p in layer.parameters() if p.numel() > 1 and p.any())


@kinds
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 2}], ids=str)
def test_its_multiply_adds_are_what_torchs_counter_counts(kind: type[Relative], options: dict[str, Any]) -> None:
    layer, x = make(kind, dtype=torch.float32, padding=1, **options), images(3, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        Y = layer(x)
    assert 2 * flops.macs(layer, x, Y) == counter.get_total_flops()
    assert kind in flops.thop()


@kinds
def test_to_torch_fx_it_is_one_node(kind: type[Relative]) -> None:
    network = nn.Sequential(make(kind), nn.ReLU())
    traced = fx.symbolic_trace(network)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]
    torch.testing.assert_close(traced(images()), network(images()))


def test_options_that_make_no_sense_are_refused() -> None:
    wrong = {"hypernet": {"tile": 0}, "dfn": {"hidden_features": 0}, "dfn_local": {"hidden_features": 0}}
    wrong |= {"se": {"reduction": 0}, "condconv": {"experts": 0}, "odconv_spatial": {"reduction": 0}}
    assert set(wrong) == set(RELATIVES)
    for name, option in wrong.items():
        with pytest.raises(InputError, match=f"{next(iter(option))} must be at least 1, got 0"):
            RELATIVES[name](4, 4, 3, **option)
    with pytest.raises(InputError, match=r"the generator makes kernels of \(1, 1\), the layer has \(3, 3\)"):
        RELATIVES["hypernet"](4, 4, 3, generator=KernelGenerator((1, 1)))
