"""Other people's attacks as ours: a function, or an object of foolbox, torchattacks, ART or pyautoattack.
Whatever they return counts only inside the box and inside the budget that was stated."""

import dis
import hashlib
import inspect
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import index as as_integer
from typing import Any, SupportsIndex, cast

import numpy as np
import torch
from torch import Tensor, nn

from shconv.attacks.base import Attack, AttackResult, Model, borrowed
from shconv.attacks.budget import ANY_CHANGE, Budget, Norm, distances
from shconv.attacks.checks import Index, check_choice
from shconv.attacks.libraries import library_of
from shconv.attacks.presets import create_attack
from shconv.attacks.search import own_randomness
from shconv.attacks.spelling import other_names
from shconv.attacks.standard import Standard
from shconv.errors import InputError, is_short_of_memory, raised
from shconv.numbers import read_budgets

STREAM = 15
MOST = 10**6  # values of an array that is told from others


@dataclass(frozen=True, eq=False)
class ForeignResult(AttackResult):
    """An attack's result, and which images came back outside the box or the budget: bool (N,)."""

    outside: Tensor


@other_names
@dataclass(frozen=True, eq=False, repr=False)
class Foreign(Attack):
    """Makes any attack usable as an attack of shconv.

    Example:
        ```python
        mine = Foreign(my_function, eps="8/255")
        adversarial = mine(model, images, labels)
        ```

    Args:
        attack: a function f(model, images, labels) -> adversarial images, or an attack object of foolbox, torchattacks
            or ART. The object's model is replaced by the given one during the call.
        epsilon, norm: the budget. None: the object's own (`eps`) if it has one; otherwise any change counts.

    An image that is returned outside the budget or [0, 1], or with NaN, does not count; the clean image is used
    instead. Global random numbers are seeded by (seed, the first image's place) and restored afterwards. Queries are
    forward passes for each image, averaged over the batch if the attack divides it.
    """

    attack: Any
    epsilon: float | None = None
    norm: Norm = "linf"
    _call: Callable[[nn.Module, Tensor, Tensor], Tensor] = field(init=False)

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, Norm)
        read_budgets(self, "epsilon", norm=self.norm)
        library = library_of(self.attack)
        if library is not None:
            stated = library.budget(self.attack)
            if self.epsilon is None and stated is not None:
                object.__setattr__(self, "epsilon", stated.radius)
                object.__setattr__(self, "norm", stated.norm)
            call = library.caller(self.attack, self.epsilon)
        elif callable(self.attack):
            call = self.attack
        else:
            raise InputError(
                f"attack: got {type(self.attack).__name__}; want an attack of shconv, foolbox, torchattacks, ART or "
                "pyautoattack, or a function f(model, images, labels) -> adversarial images"
            )
        object.__setattr__(self, "_call", call)

    @property
    def budget(self) -> Budget:
        return ANY_CHANGE if self.epsilon is None else Budget(self.norm, float(self.epsilon))

    def about(self) -> dict[str, Any]:
        return {"attack": _words(self.attack), "epsilon": self.epsilon, "norm": self.norm}

    def __repr__(self) -> str:
        """The same in every process, so that a stopped run knows its attack again."""
        return f"Foreign({_words(self.attack)}, epsilon={self.epsilon}, norm={self.norm!r})"

    def run(
        self, model: Model, images: Tensor, labels: Tensor, *, index: Index | None = None, seed: SupportsIndex = 0
    ) -> ForeignResult:
        with borrowed(model):
            x, y, places = self.checked(images, labels, index, seed)
            counted = _Counted(model)
            own = np.random.SeedSequence([as_integer(seed), STREAM, places[0]]).generate_state(1)
            with own_randomness(x.device, int(own[0])), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._called(counted, x, y)
            found = self._checked(found, x)
        held = self.budget.holds(found, x)
        kept = torch.where(held[:, None, None, None], found, x).clamp(0.0, 1.0)
        queries = torch.full_like(y, round(counted.passes / len(x)))
        return ForeignResult(kept, None, queries, distances(kept, x), ~held)

    def _called(self, model: nn.Module, x: Tensor, y: Tensor) -> object:
        """What the attack returns. Raises InputError, with the place, for an error in the attack's own code."""
        try:
            return self._call(model, x.clone(), y.clone())
        except InputError:
            raise
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError) as e:
            if is_short_of_memory(e):
                raise
            name = _words(self.attack).partition("@")[0].partition("(")[0]
            raise InputError(f"the attack {name} raised {raised(e)}") from e

    def _checked(self, found: object, x: Tensor) -> Tensor:
        if not isinstance(found, Tensor) or found.shape != x.shape:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"{_words(self.attack)} returned {got}; want images of shape {tuple(x.shape)}")
        return found.detach().to(x)


def as_attack(attack: Any) -> Attack:
    """An attack of ours as it is or by name, AutoAttack as `Standard`, anything else as `Foreign` with its own budget.

    Raises InputError for what is no attack.
    """
    if isinstance(attack, Attack):
        return attack
    if isinstance(attack, str):
        return create_attack(attack)
    if isinstance(attack, type):
        raise InputError(f"attack: got the class {attack.__name__}; want an attack object or a function")
    if type(attack).__module__.startswith("pyautoattack.") and hasattr(attack, "attacks_to_run"):
        norms = {"Linf": "linf", "L2": "l2"}
        if attack.norm not in norms:
            raise InputError(f"AutoAttack in {attack.norm}: want Linf or L2")
        return Standard(float(attack.epsilon), cast(Norm, norms[attack.norm]), tuple(attack.attacks_to_run))
    return Foreign(attack)


class _Counted(nn.Module):
    """The model as a module, whatever it was, with its forward passes counted image by image."""

    steady = False  # Python runs at every call, which a replayed graph would leave out

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.passes = model, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        return self.model(x)


def _words(attack: Any) -> str:
    """The attack's name and all plain values that it goes by, the same in every process."""
    if isinstance(attack, partial):
        args = [_value(each) for each in attack.args] + [f"{k}={_value(v)}" for k, v in sorted(attack.keywords.items())]
        return f"partial({', '.join([_words(attack.func), *args])})"
    if inspect.ismethod(attack):
        return f"{_function_words(attack.__func__)} of {_words(attack.__self__)}"
    if inspect.isroutine(attack):
        return _function_words(attack)
    cls = type(attack)
    held = sorted((name, value) for name, value in getattr(attack, "__dict__", {}).items() if _is_plain(value))
    return f"{cls.__module__}.{cls.__qualname__}({', '.join(f'{name}={_value(value)}' for name, value in held)})"


def _function_words(function: Any) -> str:
    """Its name, a digest of its source, and what it takes from outside: defaults, enclosing and global values, but for
    those that it sets itself, such as a count of its calls."""
    name = f"{function.__module__}.{function.__qualname__}"
    with suppress(OSError, TypeError):  # a function without a source file goes by its name
        name += f"@{hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:8]}"
    outside: dict[str, Any] = {}
    with suppress(TypeError, ValueError):  # one that is not written in Python
        names = inspect.getclosurevars(function)
        given = {key: each.default for key, each in inspect.signature(function).parameters.items()}
        outside = {**names.globals, **names.nonlocals, **given}
        for each in dis.get_instructions(function):
            if each.opname in ("STORE_DEREF", "STORE_GLOBAL"):
                outside.pop(each.argval, None)
    held = [f"{key}={_value(value)}" for key, value in sorted(outside.items()) if _is_plain(value)]
    return f"{name}({', '.join(held)})" if held else name


def _is_plain(value: object) -> bool:
    """Does it say the same in every process, and does not change? Numbers, text, arrays, and tuples of these."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Tensor | np.ndarray):
        return math.prod(value.shape) <= MOST
    return isinstance(value, str | int | float | bool | np.generic) and not (
        isinstance(value, float) and math.isnan(value)
    )


def _value(value: Any) -> str:
    """A number as Python has it, more of them as a digest; a function by its name."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.ndim == 0:
            return repr(array.item())
        return f"{array.dtype}{array.shape}@{hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:8]}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value) if _is_plain(value) else _words(value)
