"""Maps held at those of some images (the quasi decision boundary of section 4.1) or at one value, or recorded."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shconv.arguments import checked
from shconv.errors import InputError
from shconv.eval_mode import eval_mode
from shconv.routes.record import FrozenMaps, changed, shc_layers


@checked
@contextmanager
def frozen_kernels(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Hold every SHC layer's kernels at those of the images x (N, D, H, W), in eval mode and without gradient.

    Inside, the network is the sub-network F_H of section 4.1. What it predicts for other images shows its quasi
    decision boundary. Only batches of N images are accepted.

    Example:
        ```python
        with shconv.frozen_kernels(model, images):
            adversarial = attack(model, images, labels)
        ```

    Raises:
        InputError: the network has no SHC layer; inside, a batch of another size.
    """
    layers = shc_layers(model)
    if not layers:
        raise InputError(f"{type(model).__name__} has no SHC layer, so it has no kernels to freeze")
    maps: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers.values()}
    recording = {layer: {"recorder": maps[layer].append, "frozen": None} for layer in maps}
    with changed(recording), eval_mode(model), torch.no_grad():
        model(x)
    frozen = {layer: FrozenMaps(maps[layer]) for layer in maps if maps[layer]}

    def rewind(*_: Any) -> None:
        for each in frozen.values():
            each.rewind()

    with model.register_forward_pre_hook(rewind), changed({layer: {"frozen": each} for layer, each in frozen.items()}):
        yield


@checked
@contextmanager
def constant_maps(model: nn.Module, maps: Mapping[str, Tensor]) -> Iterator[None]:
    """Hold the maps of some SHC layers at one value for all images, without gradient; `maps` by the layers' names.

    Each M (S_h, S_w), or with map groups (G, S_h, S_w): such as a layer's mean map, so that what changes is what the
    dependence on the image does. Batches of any size can pass.

    Raises:
        InputError: a name of no SHC layer.
    """
    layers = shc_layers(model)
    if unknown := [name for name in maps if name not in layers]:
        known = ", ".join(layers) or "none"
        raise InputError(f"{type(model).__name__} has no SHC layer {unknown[0]!r}; it has {known}")
    held = {name: M.detach() for name, M in maps.items()}
    with changed({layers[name]: {"frozen": _constant(M)} for name, M in held.items()}):
        yield


def holds_a_batch(model: object) -> bool:
    """Whether no part of a batch can pass alone: kernels are frozen for it, or a module has `holds_a_batch = True`."""
    if not isinstance(model, nn.Module):
        return False
    frozen = (layer.routes.frozen for layer in shc_layers(model).values())
    named = (getattr(part, "holds_a_batch", False) for part in model.modules())
    return any(named) or any(isinstance(each, FrozenMaps) for each in frozen)


@checked
@contextmanager
def record_filter_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that every forward pass fills: layer name -> M (N, S_h, S_w) of its last call, detached.

    Raises:
        InputError: the network has no SHC layer.
    """
    layers = shc_layers(model)
    if not layers:
        raise InputError(f"{type(model).__name__} has no SHC layer, so it has no filter maps to record")
    maps: dict[str, Tensor] = {}

    def recorder(name: str, then: Callable[[Tensor], None] | None) -> Callable[[Tensor], None]:
        def record(M: Tensor) -> None:
            maps[name] = M
            if then is not None:
                then(M)

        return record

    with changed({layer: {"recorder": recorder(name, layer.routes.recorder)} for name, layer in layers.items()}):
        yield maps


def _constant(M: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: M.to(x.device).expand(len(x), *M.shape).contiguous()
