"""An SHC network as an ONNX file: the ops of shconv written in plain convolution, slices and means, for any number of
images. torch.export and torch.compile take the networks as they are and need nothing from here."""

import inspect
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from shconv.arguments import checked
from shconv.copying import copied
from shconv.errors import InputError
from shconv.ops.geometry import Geometry
from shconv.ops.statistics import at_least_float32


@checked
def to_onnx(model: nn.Module, path: str | Path, example: Tensor, **options: Any) -> None:
    """Write the network, in eval mode, to an ONNX file with input "images" and output "logits".

    Args:
        model: from images (N, D, H, W) to one tensor, wrapped or not (DataParallel, torch.compile, AveragedModel, or
            one of yours); a copy of it on the CPU is exported, so it stays what it is.
        path: the file; beyond 2 GB of weights they are stored beside it (torch.onnx.export's external_data=True).
        example: images (N, D, H, W). The file takes any number of images of their size and dtype.
        options: torch.onnx.export's, such as opset_version and dynamic_shapes (the batch alone unless given).

    Raises:
        InputError: example is not a batch of images, onnx or onnxscript is missing, or the network cannot be copied.
    """
    if example.dim() != 4 or example.numel() == 0:
        raise InputError(f"example must be images (N, D, H, W), at least one, got {tuple(example.shape)}")
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise InputError(f"an ONNX file needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    given: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "external_data": False}
    program = plain_program(model, example, options.pop("dynamic_shapes", None))
    torch.onnx.export(program, (), path, dynamo=True, verbose=False, **{**given, **options})


@checked
def plain_program(model: nn.Module, example: Tensor, dynamic_shapes: Any = None) -> torch.export.ExportedProgram:
    """The network in eval mode, on the CPU, as a program of torch's own operations: none of shconv's ops is left.

    What other back ends that know ATen only can start from. Arguments as in to_onnx.
    """
    network = (
        _of_one_tensor(copied(_unwrapped(model), "to_onnx works on a copy: leave that out of the network before"))
        .cpu()
        .eval()
    )
    images = example.detach().cpu()
    pair = torch.cat([images, images])[:2]  # of a batch of one torch.export would make a constant
    shapes = ({0: torch.export.Dim("N")},) if dynamic_shapes is None else dynamic_shapes
    with torch.no_grad():
        program = torch.export.export(network, (pair,), dynamic_shapes=shapes)
        plain: torch.export.ExportedProgram = program.run_decompositions(_plain_forms())
    return plain


class _OfOneTensor(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images)


def _of_one_tensor(network: nn.Module) -> nn.Module:
    """With a forward whose first argument is the images: torch.export takes shapes argument by argument, and wrappers
    often have *args."""
    parameters = list(inspect.signature(network.forward).parameters.values())
    named = parameters and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return network if named else _OfOneTensor(network)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Without the wrappers of torch that say where or how a network runs, and not what it computes."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):  # torch.compile's
            model = inner
        else:
            return model


def _plain_forms() -> dict[Any, Callable[..., Any]]:
    """On the CPU the layers call these two ops of shconv and no other."""
    ops = torch.ops.shconv
    return {ops.filtered_conv2d.default: _filtered_conv2d, ops.channel_mean_variance.default: _channel_mean_variance}


def _filtered_conv2d(
    x: Tensor, weight: Tensor, M: Tensor,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int, *_: Any,
) -> Tensor:  # fmt: skip
    """conv(X_n, W * M_n) as the 1x1 convolution, with W, of X_n's taps, each scaled by M_n: no kernel per image."""
    (pad_h, pad_w), (step_h, step_w) = padding, stride
    X = F.pad(x, (pad_w, pad_w, pad_h, pad_h))
    geometry = Geometry((step_h, step_w), (pad_h, pad_w), (dilation[0], dilation[1]), groups)
    height, width = geometry.output_size(x, weight)
    taps = []
    for a, b in product(range(weight.shape[2]), range(weight.shape[3])):
        top, left = a * dilation[0], b * dilation[1]
        bottom, right = top + (height - 1) * step_h + 1, left + (width - 1) * step_w + 1
        taps.append(X[:, :, top:bottom:step_h, left:right:step_w])
    scaled = torch.stack(taps, 2) * M.flatten(1)[:, None, :, None, None]  # (N, D, T, H', W')
    columns = scaled.to(x.dtype).flatten(1, 2)  # the taps of a channel side by side
    return F.conv2d(columns, weight.reshape(len(weight), -1, 1, 1), groups=groups)


def _channel_mean_variance(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    x = at_least_float32(x)
    mean = x.mean((2, 3))
    return mean, (x - mean[:, :, None, None]).square().mean((2, 3))
