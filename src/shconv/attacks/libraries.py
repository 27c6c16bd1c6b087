"""How foolbox, torchattacks and the Adversarial Robustness Toolbox (ART) are called, and what budget they state.
None of them is imported before an object of theirs is met."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shconv.attacks.budget import Budget
from shconv.errors import InputError

Call = Callable[[nn.Module, Tensor, Tensor], Tensor]  # the model, images (N, C, H, W), labels (N,) -> images


class Library(NamedTuple):
    """budget(attack): what the object itself states, or None. caller(attack, epsilon): how to run it."""

    budget: Callable[[Any], Budget | None]
    caller: Callable[[Any, float | None], Call]


def library_of(attack: object) -> Library | None:
    """The library whose attack this is; None for anything else."""
    homes = {cls.__module__.partition(".")[0] for cls in type(attack).__mro__}
    return next((library for name, library in LIBRARIES.items() if name in homes), None)


def _foolbox(attack: Any, epsilon: float | None) -> Call:
    """Without an epsilon its minimal attacks return the nearest example they find."""
    from foolbox.attacks.base import FixedEpsilonAttack
    from foolbox.models.pytorch import PyTorchModel

    if epsilon is None and isinstance(attack, FixedEpsilonAttack):
        name = type(attack).__name__
        raise InputError(f'foolbox\'s {name} needs a budget: shconv.attacks.Foreign({name}(), epsilon="8/255")')

    def call(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        network = PyTorchModel(model, bounds=(0, 1), device=x.device)
        _, clipped, _ = attack(network, x, y, epsilons=epsilon)
        found: Tensor = x if clipped is None else clipped
        return found

    return call


def _torchattacks_budget(attack: Any) -> Budget | None:
    eps = getattr(attack, "eps", None)
    if not isinstance(eps, int | float):
        return None
    norm = str(getattr(attack, "norm", "L2" if "L2" in type(attack).__name__ else "Linf"))
    return {"Linf": Budget("linf", float(eps)), "L2": Budget("l2", float(eps))}.get(norm)


def _torchattacks(attack: Any, epsilon: float | None) -> Call:
    def call(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        before, device = attack.model, attack.device
        attack.set_model(model)
        attack.set_device(x.device)
        try:
            found: Tensor = attack(x, y)
        finally:
            attack.set_model(before)
            attack.set_device(device)
        return found

    return call


def _art_budget(attack: Any) -> Budget | None:
    eps, norm = getattr(attack, "eps", None), getattr(attack, "norm", math.inf)
    if not isinstance(eps, int | float):
        return None
    if norm in (math.inf, "inf"):
        return Budget("linf", float(eps))
    return Budget("l2", float(eps)) if norm == 2 else None


def _art(attack: Any, epsilon: float | None) -> Call:
    from art.estimators.classification import PyTorchClassifier

    def call(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        place = "gpu" if x.is_cuda else "cpu"
        estimator = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0.0, 1.0), device_type=place
        )
        with _estimator_of(attack, estimator):
            found = attack.generate(x.cpu().numpy(), y.cpu().numpy())
        return torch.from_numpy(found).to(x)

    return call


@contextmanager
def _estimator_of(attack: Any, estimator: Any) -> Iterator[None]:
    """The attack, and those inside it, with another estimator; afterwards with their own."""
    inner = [value for value in vars(attack).values() if hasattr(value, "_estimator")]
    inner += [each for value in vars(attack).values() if isinstance(value, list | tuple) for each in value]
    parts = [attack, *(each for each in inner if hasattr(each, "_estimator"))]
    before = [part._estimator for part in parts]
    try:
        for part in parts:
            part._estimator = estimator
        yield
    finally:
        for part, own in zip(parts, before, strict=True):
            with suppress(AttributeError):
                part._estimator = own


LIBRARIES = {
    "foolbox": Library(lambda attack: None, _foolbox),  # which is told its epsilon at the call
    "torchattacks": Library(_torchattacks_budget, _torchattacks),
    "art": Library(_art_budget, _art),
}
