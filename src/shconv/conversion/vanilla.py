"""Back to a vanilla network, and vanilla weights into an SHC network."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from shconv.arguments import checked
from shconv.conversion.convert import Start
from shconv.conversion.layers import become, to_convolution
from shconv.conversion.start import resting_level, start_at_identity
from shconv.conversion.where import check_network
from shconv.copying import copied
from shconv.errors import InputError, few
from shconv.eval_mode import eval_mode
from shconv.layers import SHConv2d
from shconv.variants import maps_by_sub_kernel

ModelT = TypeVar("ModelT", bound=nn.Module)


@torch.no_grad()
@checked
def to_vanilla(model: ModelT, images: Tensor | None = None, inplace: bool = False) -> ModelT:
    """Replace every SHC layer by a convolution of its original class, filtered by one constant map.

    Args:
        model: a network with SHC layers; it is not changed unless inplace.
        images: (N, D, H, W). Each layer's constant is the mean of its maps over them, in eval mode. The result is the
            trained network with kernels that no longer depend on the image. None: the map is 1/2 (with the sigmoid).
            This exactly undoes an identity start; what the hypernetworks have learnt is lost.
        inplace: convert model itself.

    Raises:
        InputError: no SHC layer; images that do not reach a layer; a kernel that is computed, or that layers with
            different mean maps share, so that it cannot include a map.
    """
    check_network(model)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SHConv2d)}
    if not layers:
        raise InputError(f"{type(model).__name__} has no SHC layer: nothing to undo")
    maps = _mean_maps(model, layers, images) if images is not None else _resting_maps(layers)
    if not inplace:
        model = copied(model, "inplace=True converts the network itself")
        layers = {name: cast(SHConv2d, model.get_submodule(name)) for name in layers}
    _check_foldable(model, layers, maps)
    folded: set[Tensor] = set()
    for name, layer in layers.items():
        M = maps[name]
        if (M == 1).all() or layer._parameters.get("weight") in folded:
            continue
        layer.weight.mul_(maps_by_sub_kernel(M, layer.weight, layer.groups).to(layer.weight))
        folded.add(layer.weight)
    for layer in layers.values():
        become(layer, to_convolution(layer))
    return model


@checked
def load_vanilla(model: nn.Module, state: Mapping[str, Tensor], start: Start = "identity") -> None:
    """Load a vanilla network's weights into an SHC network of the same module names: timm's or torchvision's ResNet-18
    into create_model("resnet18_shc"), say.

    Args:
        state: the vanilla state_dict; only hypernetworks may be missing in it.
        start: "identity": the hypernetworks start as in to_shc, so that the network computes what the vanilla one did.
            "random": the weights are taken as they are and the hypernetworks stay.

    Raises:
        InputError: keys that are missing or too many, shapes that do not fit, an SHC network's weights; nothing is
            loaded then.
    """
    if start not in ("identity", "random"):
        raise InputError(f'start must be "identity" or "random", got {start!r}')
    own = model.state_dict()
    if theirs := [key for key in state if key in own and ".hyper." in f".{key}"]:
        raise InputError(f"these weights are an SHC network's ({few(theirs, 1)}): model.load_state_dict takes them")
    missing = [key for key in own if key not in state and ".hyper." not in f".{key}"]
    unexpected = [key for key in state if key not in own]
    others = [key for key in state if key in own and state[key].shape != own[key].shape]
    for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (others, "of another shape")):
        if keys:
            raise InputError(f"these weights do not fit {type(model).__name__}, {what}: {few(keys, 5)}")
    model.load_state_dict(state, strict=False)
    if start == "identity":
        start_at_identity(module for module in model.modules() if isinstance(module, SHConv2d))


def _resting_maps(layers: Mapping[str, SHConv2d]) -> dict[str, Tensor]:
    return {name: torch.full(layer.kernel_size, resting_level(layer)) for name, layer in layers.items()}


def _mean_maps(model: nn.Module, layers: Mapping[str, SHConv2d], images: Tensor) -> dict[str, Tensor]:
    """By layer, its maps' mean over the images and, where it is called more than once, the calls."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    with ExitStack() as hooks, eval_mode(model):
        for name, layer in layers.items():
            note = layer.hyper.register_forward_hook(lambda _, __, M, into=seen[name]: into.append(M))
            hooks.enter_context(note)
        model(images)
    if silent := [name for name, maps in seen.items() if not maps]:
        raise InputError(f"the images do not reach {', '.join(silent)}: no map to put there")
    return {name: torch.cat(maps).mean(0) for name, maps in seen.items()}


def _check_foldable(model: nn.Module, layers: Mapping[str, SHConv2d], maps: Mapping[str, Tensor]) -> None:
    elsewhere = {p for m in model.modules() if not isinstance(m, SHConv2d) for p in m.parameters(recurse=False)}
    first: dict[Tensor, Tensor] = {}
    for name, layer in layers.items():
        if (maps[name] == 1).all():
            continue
        weight = layer._parameters.get("weight")
        if weight is None or type(layer).kernel is not SHConv2d.kernel:
            raise InputError(f"the kernel of {name} is computed from its weight: it cannot take a map in")
        if weight in elsewhere:
            raise InputError(f"{name} shares its weight with a module that has no map: it cannot take a map in")
        if not torch.equal(first.setdefault(weight, maps[name]), maps[name]):
            raise InputError(f"{name} shares its weight with a layer of another mean map: it cannot take both in")
