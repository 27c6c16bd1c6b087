"""Each relative once more, slowly: image by image, tap by tap, in float64, from the papers' formulas."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_convolution(layer: Any, x: Tensor, kernel_at: Callable[[int, int, int], Tensor]) -> Tensor:
    """Loops over images n and places (i, j) of the output; kernel_at(n, i, j) is (C, D / groups, S_h, S_w)."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    X = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    size = [
        (X.shape[2 + axis] - layer.dilation[axis] * (layer.kernel_size[axis] - 1) - 1) // layer.stride[axis] + 1
        for axis in (0, 1)
    ]
    C, groups = layer.out_channels, layer.groups
    Y = X.new_zeros(len(X), C, *size)
    for n in range(len(X)):
        for i in range(size[0]):
            for j in range(size[1]):
                K = kernel_at(n, i, j)
                for c in range(C):
                    first = c // (C // groups) * K.shape[1]
                    for p in range(layer.kernel_size[0]):
                        for q in range(layer.kernel_size[1]):
                            row = i * layer.stride[0] + p * layer.dilation[0]
                            column = j * layer.stride[1] + q * layer.dilation[1]
                            Y[n, c, i, j] += X[n, first : first + K.shape[1], row, column] @ K[c, :, p, q]
    return Y if layer.bias is None else Y + layer.bias[:, None, None]


def linear(module: Any, s: Tensor) -> Tensor:
    rows = [sum(w * v for w, v in zip(row, s, strict=True)) for row in module.weight]
    return torch.stack(rows) + module.bias


def mean(image: Tensor) -> Tensor:
    return torch.stack([channel.sum() / channel.numel() for channel in image])


def hypernet(layer: Any, x: Tensor) -> Tensor:
    made, (C, D, height, width) = layer.generator, layer.kernel_shape
    kernel = x.new_zeros(C, D, height, width)
    for c in range(C):
        for d in range(D):
            z = layer.embeddings[c // made.tile, d // made.tile]
            a = linear(made.first, z).view(made.tile, made.hidden)[d % made.tile]
            kernel[c, d] = linear(made.second, a).view(made.tile, height, width)[c % made.tile]
    return plain_convolution(layer, x, lambda n, i, j: kernel)


def dfn(layer: Any, x: Tensor) -> Tensor:
    kernels = []
    for image in x:
        h = linear(layer.hidden, mean(image)).clamp(min=0)
        kernels.append(layer.weight + sum(w * f.view_as(layer.weight) for w, f in zip(h, layer.filters, strict=True)))
    return plain_convolution(layer, x, lambda n, i, j: kernels[n])


def dfn_local(layer: Any, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    X = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    h = F.conv2d(X, layer.hidden.weight, layer.hidden.bias, layer.stride, 0, layer.dilation).clamp(min=0)

    def kernel_at(n: int, i: int, j: int) -> Tensor:
        taps = layer.output.weight[:, :, 0, 0] @ h[n, :, i, j] + layer.output.bias
        return layer.weight * (1 + taps.view(layer.kernel_size))

    return plain_convolution(layer, x, kernel_at)


def se(layer: Any, x: Tensor) -> Tensor:
    U = plain_convolution(layer, x, lambda n, i, j: layer.weight)
    gates = [torch.sigmoid(linear(layer.output, linear(layer.hidden, mean(image)).clamp(min=0))) for image in U]
    return torch.stack([u * gate[:, None, None] for u, gate in zip(U, gates, strict=True)])


def condconv(layer: Any, x: Tensor) -> Tensor:
    kernels = []
    for image in x:
        r = [1 / (1 + math.exp(-float(z))) for z in linear(layer.routing, mean(image))]
        kernels.append(sum(w * expert for w, expert in zip(r, layer.experts, strict=True)).view(layer.kernel_shape))
    return plain_convolution(layer, x, lambda n, i, j: kernels[n])


def odconv_spatial(layer: Any, x: Tensor) -> Tensor:
    maps = [torch.sigmoid(linear(layer.output, linear(layer.hidden, mean(image)).clamp(min=0))) for image in x]
    return plain_convolution(layer, x, lambda n, i, j: layer.weight * maps[n].view(layer.kernel_size))


REFERENCES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    each.__name__: each for each in (hypernet, dfn, dfn_local, se, condconv, odconv_spatial)
}
