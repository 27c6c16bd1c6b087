"""The checks at an attack's door: images, labels, places, what the model returned, hyper-parameters.
Every failure is an InputError that says what was given and what is wanted."""

import math
from collections.abc import Sequence
from operator import index as as_integer
from typing import Any, SupportsIndex, get_args

import numpy as np
import torch
from torch import Tensor

from shconv.errors import InputError

IN_PLACE = (
    "model: it changes the images that it is given, by an operation in place; want one that leaves them as they are, "
    "such as lambda x: model(x.clone())"
)
Index = Tensor | np.ndarray | Sequence[SupportsIndex]


def check_inputs(
    images: Tensor, labels: Tensor, index: Index | None, seed: SupportsIndex
) -> tuple[Tensor, Tensor, list[int]]:
    """Copies of the images, clamped to [0, 1], and of the labels, on the images' device, and each image's place.

    `index` None means places 0, 1, ..., N - 1. Raises InputError for anything but float images (N, C, H, W) in [0, 1]
    up to rounding, int64 labels (N,), N places >= 0 and a seed >= 0.
    """
    check_images(images)
    n = images.shape[0]
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or tuple(labels.shape) != (n,):
        raise InputError(
            f"labels: got {_describe(labels)}; want an int64 tensor of shape ({n},), one class for each image"
        )
    if int(labels.min()) < 0:
        raise InputError(f"labels: got {int(labels.min())}; want classes numbered from 0")
    check_count("seed", seed, 0)
    return images.detach().clamp(0.0, 1.0), labels.detach().to(images.device, copy=True), _check_index(index, n)


def check_targets(targeted: Tensor, labels: Tensor) -> Tensor:
    """Classes to aim at, int64 (N,), on the device of the labels. Raises InputError unless none is an image's label."""
    if not isinstance(targeted, Tensor) or targeted.dtype != torch.int64 or targeted.shape != labels.shape:
        raise InputError(f"targeted: got {_describe(targeted)}; want an int64 tensor of shape {tuple(labels.shape)}")
    aims = targeted.detach().to(labels.device, copy=True)
    if int(aims.min()) < 0:
        raise InputError(f"targeted: got {int(aims.min())}; want classes numbered from 0")
    if bool((aims == labels).any()):
        place = int((aims == labels).nonzero()[0])
        raise InputError(f"targeted: image {place} has the label {int(labels[place])} itself; want another class")
    return aims


def check_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """The model's output (N, K) in at least float32, once it is known to be finite logits that `labels` (N,) fit."""
    logits = check_logits_shape(logits, len(labels))
    finite, largest = torch.stack([logits.isfinite().all().long(), labels.max()]).tolist()  # a GPU is waited for once
    if not finite:
        raise InputError("model: returned logits with NaN or infinity; want finite logits")
    if largest >= logits.shape[1]:
        raise InputError(f"labels: got class {largest}; want classes below {logits.shape[1]}, as many as logits")
    return logits


def check_logits_shape(logits: Any, n: int) -> Tensor:
    """What `check_logits` checks without looking at the values, which would make a GPU wait."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.dim() != 2 or len(logits) != n:
        inside = hasattr(logits, "logits") or (isinstance(logits, dict) and "logits" in logits)
        hint = "; they are its .logits: wrap the network in a module that returns these" if inside else ""
        raise InputError(f"model: returned {_describe(logits)}; want float logits of shape ({n}, classes){hint}")
    if logits.shape[1] < 2:
        raise InputError("model: returned one logit an image; want at least 2 classes")
    kept: Tensor = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    return kept


def check_count(name: str, value: object, low: int) -> None:
    """Raise InputError unless `value` is an integer of at least `low`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or as_integer(value) < low:
        raise InputError(f"{name}: got {value!r}; want an integer of at least {low}")


def check_choice(name: str, value: object, allowed: object) -> None:
    """Raise InputError unless `value` is one of the strings of the Literal type `allowed`."""
    if value not in get_args(allowed):
        raise InputError(f"{name}: got {value!r}; want {' or '.join(map(repr, get_args(allowed)))}")


def check_flag(name: str, value: object) -> None:
    """Raise InputError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}: got {value!r}; want True or False")


def channels_last(shape: Sequence[int]) -> str:
    """What else to say of images (..., H, W, C), which a network refuses; "" of others."""
    return "; channels come second: images.permute(0, 3, 1, 2)" if shape[-1] in (1, 3) and shape[-3] > 4 else ""


def check_images(images: Tensor) -> None:
    """Raise InputError for anything but float images (N, C, H, W) in [0, 1] up to rounding, at least one."""
    wanted = "want float images of shape (N, C, H, W) in [0, 1]"
    if not isinstance(images, Tensor):
        raise InputError(f"images: got {_describe(images)}; {wanted}")
    if not images.is_floating_point():
        raise InputError(f"images: got {images.dtype}; {wanted}: use images.float() / 255 for 8-bit images")
    if images.dim() != 4 or images.numel() == 0:
        raise InputError(f"images: got shape {tuple(images.shape)}; {wanted}, none of the four empty")
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if math.isnan(low) or math.isnan(high):
        raise InputError(f"images: got NaN; {wanted}")
    slack = max(1e-6, 2 * torch.finfo(images.dtype).eps)
    if low < -slack or high > 1 + slack:
        raise InputError(
            f"images: got values from {low:g} to {high:g}; {wanted}: normalisation belongs inside the network"
        )


def _check_index(index: Index | None, n: int) -> list[int]:
    if index is None:
        return list(range(n))
    wanted = f"want {n} integers >= 0, the place of each image in its data set"
    try:
        # Element by element through __index__, so that neither 1.0 nor a wrapped-around unsigned number passes.
        places = [as_integer(i) for i in (index.tolist() if isinstance(index, Tensor | np.ndarray) else index)]
    except TypeError as error:
        raise InputError(f"index: got {_describe(index)}; {wanted}") from error
    if len(places) != n or min(places) < 0:
        raise InputError(f"index: got {len(places)} numbers, the smallest {min(places, default='none')}; {wanted}")
    return places


def _describe(value: object) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} {value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__
