"""A network's copy, also where copy.deepcopy refuses: tensors that are computed from others (pruning, weight norm)."""

import copy
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shconv.errors import InputError

ModelT = TypeVar("ModelT", bound=nn.Module)


def copied(model: ModelT, instead: str) -> ModelT:
    """A deep copy. Tensors in the middle of a graph, which are computed anew in the next pass, are copied as values.

    Raises:
        InputError: something else cannot be copied: says what and in which module, and `instead`.
    """
    try:
        return _deepcopy(model)
    except Exception as error:
        name, culprit = _where(model)
        what = f"{type(model).__name__} cannot be copied"
        place = f"the {type(culprit).__name__} {name or 'that it is'}"
        raise InputError(f"{what}, because of {place} ({type(error).__name__}: {error}); {instead}") from error


class _Values(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return function(*args, **(kwargs or {}))


def _deepcopy(model: ModelT) -> ModelT:
    with _Values():
        return copy.deepcopy(model)


def _where(model: nn.Module) -> tuple[str, nn.Module]:
    """The innermost module that cannot be copied, with its name."""
    for name, child in model.named_children():
        try:
            _deepcopy(child)
        except Exception:
            inner, culprit = _where(child)
            return f"{name}.{inner}" if inner else name, culprit
    return "", model
