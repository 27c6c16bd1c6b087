"""Which convolutions to convert: by kernel, by name, or by a predicate of one's own."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from shconv.errors import InputError, few, near
from shconv.layers import SHConv2d

Predicate = Callable[[str, nn.Module], bool]
Where = Predicate | str | int | tuple[int, int] | Sequence["Where"]


def check_network(model: object) -> None:
    """Raise InputError for what is no network."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got {type(model).__name__}; want a torch.nn.Module, such as create_model gives")


def is_3x3(name: str, module: nn.Module) -> bool:
    """True for a 3x3 convolution that is not yet an SHC: the paper's choice of layers (section 3.2)."""
    return _vanilla(module) and tuple(module.kernel_size) == (3, 3)  # type: ignore[arg-type]


def pick(model: nn.Module, where: Where) -> dict[nn.Module, str]:
    """The modules where= picks, each with the first of its names, in the order of model.named_modules().

    where: a predicate (name, module); a kernel, 3 or (3, 1); a name or a pattern, "layer1.*"; or a list of these. A
    name in full picks that module whatever it is, kernels and patterns only convolutions that are no SHC yet.

    Raises:
        InputError: a kernel, name or pattern that picks nothing (near names are offered); where is none of these.
    """
    if isinstance(where, list | tuple) and not _is_a_kernel(where):
        chosen = {module for each in where for module in pick(model, each)}
        return {module: name for name, module in model.named_modules() if module in chosen}
    accepts = where if callable(where) else _predicate(where)
    picked: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):  # any name of a shared module will do
        if module not in picked and accepts(name, module):
            picked[module] = name
    if not picked and not callable(where):
        names = [name for name, module in model.named_modules() if _vanilla(module)]
        hint = near(where, names, otherwise=f"it has {few(names)}")
        raise InputError(f"where={where!r} picks no convolution of {type(model).__name__}; {hint}")
    return picked


def _predicate(where: object) -> Predicate:
    if isinstance(where, str):
        pattern = where
        return lambda name, module: name == pattern or (fnmatchcase(name, pattern) and _vanilla(module))
    kernel = (where, where) if isinstance(where, int) else where
    if not isinstance(kernel, tuple):
        raise InputError(f"where must be a predicate, a kernel, a name, a pattern or a list of them, got {where!r}")
    return lambda name, module: _vanilla(module) and tuple(module.kernel_size) == kernel  # type: ignore[arg-type]


def _is_a_kernel(where: list[Where] | tuple[Where, ...]) -> bool:
    return isinstance(where, tuple) and len(where) == 2 and all(isinstance(each, int) for each in where)


def _vanilla(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and not isinstance(module, SHConv2d)
