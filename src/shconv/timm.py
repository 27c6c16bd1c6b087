"""`import shconv.timm` puts the paper's networks into timm's registry: timm.create_model("resnet18_shc") builds one.
The ResNets are timm's own, converted; Plain-10 follows its conventions: features_only and the rest work as ever."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from timm.layers.classifier import create_classifier
from timm.models import (
    build_model_with_cfg,
    checkpoint_seq,
    generate_default_cfgs,
    is_model,
    register_model,
)
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from shconv.conversion import is_3x3, to_shc
from shconv.errors import InputError
from shconv.models import create_model
from shconv.models.normalize import Normalization
from shconv.models.plain import Plain10
from shconv.models.shapes import shapes_only

__all__ = ["plain10", "plain10_shc", "resnet18_shc", "resnet50_shc"]

_PAPERS = {  # images in [0, 1]; there are no weights to download
    "input_size": (3, 256, 256),
    "pool_size": (8, 8),
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "interpolation": "bilinear",
    "first_conv": "conv1",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs({f"{name}.": dict(_PAPERS) for name in __all__})
_STAGES = ("layer1", "layer2", "layer3", "layer4")
_NEUTRAL: dict[str, tuple[object, ...]] = {"output_stride": (32,)}  # beside None, False, "" and zero


def plain10(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Plain-10 (section 3.2); num_classes, in_chans, global_pool, drop_rate, features_only, and shconv.create_model's
    stem, width and normalize."""
    return _plain("plain10", pretrained, **arguments)


def plain10_shc(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Plain-10-SHC; arguments as plain10's."""
    return _plain("plain10_shc", pretrained, **arguments)


def resnet18_shc(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """ResNet-18-SHC: timm's resnet18, with its arguments, and an SHC in every 3x3 but the stem."""
    return _resnet("resnet18", pretrained, **arguments)


def resnet50_shc(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """ResNet-50-SHC: timm's resnet50, with its arguments, and an SHC in every 3x3 but the stem."""
    return _resnet("resnet50", pretrained, **arguments)


def _resnet(
    name: str, pretrained: bool, start: Literal["identity", "random"] | None = None, **arguments: Any
) -> nn.Module:
    """start: to_shc's; the identity where the vanilla network's pretrained weights are loaded, random otherwise."""
    start = start or ("identity" if pretrained else "random")
    model: Any = timm.create_model(name, pretrained=pretrained, **arguments)
    model = to_shc(model, where=_behind_the_stem, start=start, inplace=True)
    model.pretrained_cfg = model.default_cfg = {**model.pretrained_cfg, "architecture": f"{name}_shc"}
    return model  # type: ignore[no-any-return]


def _plain(name: str, pretrained: bool, **arguments: Any) -> nn.Module:
    if pretrained and not (arguments.get("pretrained_cfg") or arguments.get("pretrained_cfg_overlay")):
        raise InputError(f"there are no pretrained weights for {name}; give checkpoint_path= a file of your own")
    features = {"out_indices": (0, 1, 2, 3, 4)}
    model: nn.Module = build_model_with_cfg(
        partial(_built, name), name, pretrained, feature_cfg=features, kwargs_filter=("img_size",), **arguments
    )
    return model


def _built(name: str, **arguments: Any) -> nn.Module:
    model = TimmPlain10(**arguments)
    return to_shc(model, where=_behind_the_stem, start="random", inplace=True) if name.endswith("_shc") else model


class TimmPlain10(Plain10):
    """Plain-10 with timm's interface; its weights are those of shconv.create_model("plain10") by their names.

    num_classes 0: features (N, num_features) and no classifier; global_pool "" with it: (N, num_features, H, W).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        stem: str = "imagenet",
        width: int = 64,
        normalize: Normalization = None,
        **others: Any,
    ) -> None:
        if refused := [name for name, value in others.items() if value and value not in _NEUTRAL.get(name, ())]:
            raise InputError(
                "plain10 takes num_classes, in_chans, global_pool, drop_rate, features_only, stem, width and "
                f"normalize, not {', '.join(f'{name}={others[name]!r}' for name in refused)}"
            )
        _check(num_classes, in_chans, stem, width, normalize)
        super().__init__(max(1, num_classes), in_chans, stem, width, normalize)
        del self.avgpool
        self.num_classes, self.drop_rate, self.grad_checkpointing = num_classes, drop_rate, False
        self.num_features = 8 * width
        first = 1 if stem == "small" else 2
        taps = zip(("relu", *_STAGES), (1, 1, 2, 4, 8), (1, first, 2 * first, 4 * first, 8 * first), strict=True)
        self.feature_info = [{"num_chs": n * width, "reduction": first * r, "module": m} for m, n, r in taps]
        with torch.random.fork_rng():  # the hypernetworks are drawn after this, as in shconv.create_model
            self.global_pool, classifier = create_classifier(self.num_features, num_classes, pool_type=global_pool)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        if num_classes == 0 or self.head_hidden_size != self.num_features:
            self.fc = classifier
        order = ("normalize", "conv1", "bn1", "relu", "maxpool", *_STAGES, "global_pool", "fc")  # as they are called
        self._modules = {name: self._modules[name] for name in order}

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"stem": r"^conv1|bn1|maxpool", "blocks": r"^layer(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def get_classifier(self, name_only: bool = False) -> str | nn.Module:
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        some = next(self.parameters())
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=pool)
        self.fc.to(some.device, some.dtype)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.global_pool.train(self.training)
        self.fc.train(self.training)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt must be NCHW, got {output_fmt!r}")
        wanted, last = feature_take_indices(len(_STAGES) + 1, indices)
        x = self.relu(self.bn1(self.conv1(self.normalize(x))))
        found = [x] if 0 in wanted else []
        x = self.maxpool(x)
        for place, stage in enumerate(self._stages()[: last if stop_early else None], 1):
            x = self._through([stage], x)
            found += [x] if place in wanted else []
        return found if intermediates_only else (x, found)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        wanted, last = feature_take_indices(len(_STAGES) + 1, indices)
        for name in _STAGES[last:]:
            setattr(self, name, nn.Identity())
        if last < len(_STAGES):
            self.num_features = int(self.feature_info[last]["num_chs"])  # type: ignore[call-overload]
        if prune_head or last < len(_STAGES):
            self.reset_classifier(0, "")
        return list(wanted)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(x)))))
        return self._through(self._stages(), x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if self.drop_rate:
            x = F.dropout(x, p=float(self.drop_rate), training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def _stages(self) -> list[nn.Module]:
        return [getattr(self, name) for name in _STAGES]

    def _through(self, stages: Sequence[nn.Module], x: Tensor) -> Tensor:
        if self.grad_checkpointing:
            return checkpoint_seq(stages, x)  # type: ignore[no-any-return]
        for stage in stages:
            x = stage(x)
        return x


def _check(num_classes: int, in_chans: int, stem: str, width: int, normalize: Normalization) -> None:
    """What shconv.create_model refuses, in its words; zero classes are timm's way to ask for features."""
    if num_classes < 0:
        raise InputError(f"num_classes must be at least 0, got {num_classes}")
    with shapes_only():
        create_model("plain10", max(1, num_classes), in_chans, stem, width, normalize)


def _behind_the_stem(name: str, module: nn.Module) -> bool:
    return is_3x3(name, module) and not name.removeprefix("model.").startswith("conv1")


for _entry in (plain10, plain10_shc, resnet18_shc, resnet50_shc):
    if not is_model(_entry.__name__):
        register_model(_entry)
