"""Networks leave PyTorch as they are: torch.export, torch.compile and ONNX files give what they give, for any number
of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import shconv
from shconv.export import plain_program, to_onnx

DEPTHS = ["plain10_shc", pytest.param("resnet18_shc", marks=pytest.mark.slow)]


def network(name: str) -> nn.Module:
    """Slim, in eval mode, with batch norm's statistics of some images: without them the logits are nearly constant."""
    model = shconv.create_model(name, num_classes=4, stem="small", width=4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.rand(16, 3, 8, 8))
    return model.eval()


class Layers(nn.Module):
    """What SHC layers can be, side by side; a second an export each."""

    def __init__(self, one_by_one: bool) -> None:
        super().__init__()
        at_a_time = [
            shconv.SHConv2d(
                4, 6, (1, 2), stride=(1, 3), padding_mode="reflect", padding=1, map_groups=2, dilation=2, bias=False
            ),
            shconv.SHConv2d(4, 8, (2, 4), padding="same", groups=4, statistics=("std", "max"), activation="softplus"),
        ]
        apart = [
            shconv.SHConv2d(4, 6, 3, stride=2, padding=1, bias=False),
            shconv.SHConv2d(4, 8, (2, 4), padding="same", groups=4),
            shconv.SHConv2d(4, 6, (1, 2), stride=(1, 3), padding_mode="reflect", padding=1, map_groups=2),
            shconv.SHConv2d(
                4, 6, 3, padding=(0, 2), dilation=2, groups=2, statistics=("std", "max"), activation="softplus"
            ),
        ]
        self.layers = nn.ModuleList(apart if one_by_one else at_a_time)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x).flatten(1) for layer in self.layers], 1)


def check(
    exported: Callable[[Tensor], Tensor], model: nn.Module, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    for n in sizes:
        x = torch.rand(n, *shape)
        with torch.no_grad():
            expected = model(x)
        assert n == 1 or (expected[0] - expected[1]).abs().max() > 1e-3  # the images do matter
        torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-5)


def onnx_runtime(path: Path) -> Callable[[Tensor], Tensor]:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # more of them spin
    session = runtime.InferenceSession(str(path), options)
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


@pytest.mark.parametrize("name", DEPTHS)
def test_an_exported_network_takes_any_number_of_images(name: str) -> None:
    model = network(name)
    program = torch.export.export(model, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("N")},))
    check(program.module(), model, (3, 8, 8), (1, 2, 5))


@pytest.mark.slow  # what is ours in it is tests/test_layers.py's: a layer is one compiled graph
@pytest.mark.parametrize("name", ["plain10_shc", "resnet18_shc"])
def test_a_network_compiles_without_graph_breaks(name: str) -> None:
    torch._dynamo.reset()
    model = network(name)
    with torch.no_grad():
        check(torch.compile(model, fullgraph=True, dynamic=True, backend="eager"), model, (3, 8, 8), (3, 5))


def test_a_plain_program_holds_no_op_of_ours() -> None:
    model = shconv.SHConv2d(4, 6, 3, stride=2)
    program = plain_program(model, torch.rand(1, 4, 9, 10))
    assert not [node for node in program.graph.nodes if "shconv" in str(node.target)]
    check(program.module(), model, (4, 9, 10), (1, 3))


@pytest.mark.parametrize("one_by_one", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_onnx_file_of_every_kind_of_layer_gives_their_outputs(tmp_path: Path, one_by_one: bool) -> None:
    pytest.importorskip("onnxscript")
    model = Layers(one_by_one)
    to_onnx(model, tmp_path / "layers.onnx", torch.rand(1, 4, 9, 10))
    check(onnx_runtime(tmp_path / "layers.onnx"), model, (4, 9, 10), (1, 3, 8))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain10_shc", "resnet18_shc"])
def test_an_onnx_file_of_a_network_gives_its_logits(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = network(name).train()
    to_onnx(model, tmp_path / "network.onnx", torch.rand(1, 3, 8, 8))
    assert model.training
    check(onnx_runtime(tmp_path / "network.onnx"), model.eval(), (3, 8, 8), (1, 3, 8))


def test_an_example_that_is_no_batch_of_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(shconv.InputError, match=r"images \(N, D, H, W\)"):
        to_onnx(nn.Flatten(), tmp_path / "layers.onnx", torch.rand(4, 9, 10))


class Wrapper(nn.Module):
    """A user's own, whose forward does not say what it takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def replaced(model: nn.Module) -> nn.Module:
    """What accelerate and others do to a network: a forward on the instance."""
    forward = model.forward
    model.forward = lambda *args, **kwargs: forward(*args, **kwargs)
    return model


def within(model: nn.Module) -> nn.Module:
    return nn.Sequential(nn.DataParallel(model), nn.Identity())


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "AveragedModel": AveragedModel,
    "one of the user's": Wrapper,
    "a forward of its own": replaced,
    "inside": within,
    "several": lambda model: nn.DataParallel(torch.compile(Wrapper(within(AveragedModel(model))), backend="eager")),
}


QUICK = ("a forward of its own", "several")  # the others are in "several"


@pytest.mark.parametrize(
    "wrap",
    [pytest.param(wrap, id=name, marks=[] if name in QUICK else [pytest.mark.slow]) for name, wrap in WRAPPERS.items()],
)
def test_a_wrapped_network_is_exported(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = shconv.SHConv2d(4, 6, (1, 2))
    program = plain_program(wrap(model), torch.rand(1, 4, 6, 5))
    assert not [node for node in program.graph.nodes if "shconv" in str(node.target)]
    check(program.module(), model, (4, 6, 5), (1, 3))
