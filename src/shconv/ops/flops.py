"""FLOP counts of our ops, for torch.utils.flop_counter: what it counts for torch's convolution and linear layers.

A filtered convolution counts as the convolution it takes the place of, the hypernetwork as its two matrix products.
Statistics, scales and sigmoids count nothing, as elementwise work counts nothing there. The gradient of the map comes
with that of x or of the weight; alone it costs one of them.
"""

import importlib.abc
import importlib.machinery
import math
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from shconv.ops import layer as _defines_the_ops  # noqa: F401
from shconv.ops.registration import told

Shape = Sequence[int]
_COUNTER = "torch.utils.flop_counter"


def convolution(x: Shape, weight: Shape, Y: Shape) -> int:
    """Of Y (N, C, H', W') = conv(x, weight (C, D / groups, S_h, S_w)): two for every product."""
    return 2 * x[0] * math.prod(weight) * math.prod(Y[2:])


def hypernetwork(images: int, W1: Shape, W2: Shape) -> int:
    """Of the two linear layers, W1 (K, F) and W2 (T, K)."""
    return 2 * images * (math.prod(W1) + math.prod(W2))


def _gradients(dY: Shape, x: Shape, weight: Shape, of_x: bool, of_weight: bool, of_map: bool) -> int:
    once = convolution(x, weight, dY)
    whole = 2 * x[1] * math.prod(dY) * math.prod(weight[2:])  # torch counts dW as if all channels met: groups or not
    return of_x * once + of_weight * whole + (of_map and not (of_x or of_weight)) * once


def _theta_gradients(images: int, W1: Shape, W2: Shape, of_s: bool, of_theta: bool) -> int:
    products = of_s * math.prod(W1) + math.prod(W2) + of_theta * (math.prod(W1) + math.prod(W2))
    return 2 * images * products * (of_s or of_theta)


def _filtered_conv2d(x: Shape, weight: Shape, *_: Any, out_shape: Any, **__: Any) -> int:
    return convolution(x, weight, _first(out_shape))


def _filtered_conv2d_backward(dY: Shape, x: Shape, weight: Shape, *others: Any, **_: Any) -> int:
    return _gradients(dY, x, weight, *told(others[-1]))


def _filter_map(x: Shape, W1: Shape, b1: Shape, W2: Shape, *_: Any, **__: Any) -> int:
    return hypernetwork(x[0], W1, W2)


def _filter_map_backward(dM: Shape, x: Shape, W1: Shape, b1: Shape, W2: Shape, *others: Any, **_: Any) -> int:
    of_x, *of_theta = told(others[-1])
    return _theta_gradients(dM[0], W1, W2, of_x, any(of_theta))


def _layer(x: Shape, weight: Shape, W1: Shape, b1: Shape, W2: Shape, *_: Any, out_shape: Any, **__: Any) -> int:
    return convolution(x, weight, _first(out_shape)) + hypernetwork(x[0], W1, W2)


def _layer_backward(dY: Shape, x: Shape, weight: Shape, W1: Shape, b1: Shape, W2: Shape, *others: Any, **_: Any) -> int:
    of_x, of_weight, *of_others = told(others[-1])
    of_theta = any(of_others[:4])
    through = _theta_gradients(x[0], W1, W2, of_x, of_theta)
    return _gradients(dY, x, weight, of_x, of_weight, of_x or of_theta) + through


def _first(out_shape: Any) -> Shape:
    """Of a tensor, or of the first of several."""
    shape: Shape = out_shape if isinstance(out_shape[0], int) else out_shape[0]
    return shape


def _register(counter: ModuleType) -> None:
    ops = torch.ops.shconv
    formulas = {
        "filtered_conv2d": (_filtered_conv2d, _filtered_conv2d_backward),
        "filter_map": (_filter_map, _filter_map_backward),
        "layer": (_layer, _layer_backward),
    }
    for name, (forward, backward) in formulas.items():
        every = {name: forward, f"{name}_forward": forward, f"{name}_backward": backward}
        for each, formula in every.items():
            if (op := getattr(ops, each)) not in counter.flop_registry:
                counter.register_flop_formula(op)(formula)


class _WhenImported(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Registers as soon as somebody imports torch's counter: importing it here would import triton."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != _COUNTER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        sys.meta_path.remove(self)
        self.loader.exec_module(module)
        _register(module)


if _COUNTER in sys.modules:
    _register(sys.modules[_COUNTER])
else:
    sys.meta_path.insert(0, _WhenImported())
