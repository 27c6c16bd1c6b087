"""AutoAttack's standard set (Croce and Hein 2020) through pyautoattack, for any number of classes."""

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from shconv.attacks.ball import Ball
from shconv.attacks.base import Model
from shconv.attacks.budget import Norm
from shconv.attacks.checks import check_choice
from shconv.attacks.cost import Cost
from shconv.attacks.search import SearchAttack, Strongest, own_randomness
from shconv.attacks.spelling import other_names
from shconv.errors import InputError
from shconv.numbers import read_budgets

WHOLE_SET = ("apgd-ce", "apgd-t", "fab-t", "square")
STEPS, TARGETS, QUERIES = 100, 9, 5000  # AutoAttack's own
CLASSES_NEEDED = {"apgd-ce": 2, "apgd-dlr": 3, "apgd-t": 4, "fab-t": 2, "square": 2}


@other_names
@dataclass(frozen=True)
class Standard(SearchAttack):
    """AutoAttack (Croce and Hein 2020): apgd-ce, apgd-t, fab-t and square, each on the images that survived so far.

    Args:
        attacks: None is this "standard" version; or a tuple of some of these names.

    The targeted attacks aim at min(9, K - 1) of K classes. Attacks whose loss needs more classes are left out; `runs`
    and `notes` say which. All images get the same random numbers, drawn from the seed alone, so no image depends on
    others. pyautoattack, which is needed, computes in float32 and drops broken images, so kernels frozen for a batch
    cannot be used.
    """

    epsilon: float
    norm: Norm = "linf"
    attacks: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, Norm)
        read_budgets(self, "epsilon", norm=self.norm)
        if self.attacks is not None and not (self.attacks and set(self.attacks) <= set(CLASSES_NEEDED)):
            raise InputError(f"attacks: got {self.attacks!r}; want some of {', '.join(CLASSES_NEEDED)}")

    def runs(self, classes: int) -> tuple[str, ...]:
        """The attacks that run against a network of so many classes."""
        return tuple(name for name in self._wanted if classes >= CLASSES_NEEDED[name])

    def notes(self, classes: int) -> tuple[str, ...]:
        """What is different for a network of so many classes, in sentences; nothing from 10 classes on."""
        said = [
            f"AutoAttack's {name} is left out: its loss needs {CLASSES_NEEDED[name]} classes, there are {classes}."
            for name in self._wanted
            if name not in self.runs(classes)
        ]
        said += [
            f"AutoAttack's {name} aims at all {classes - 1} wrong classes instead of {TARGETS}."
            for name in self.runs(classes)
            if name.endswith("-t") and classes <= TARGETS
        ]
        return tuple(said)

    @property
    def cost(self) -> Cost:
        each = [_passes(name, TARGETS) for name in self._wanted]
        return Cost(1 + sum(1 + cost.forwards for cost in each), sum(cost.backwards for cost in each))

    @property
    def _wanted(self) -> tuple[str, ...]:
        return self.attacks or WHOLE_SET

    def search(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        ball, strongest = Ball(x, self.epsilon, self.norm), Strongest(model, x, y, hold=True)
        classes = strongest.look(x).shape[1]
        targets = min(TARGETS, classes - 1)
        network = _Network(model, x.dtype)
        with _quiet(), own_randomness(x.device, seed), torch.no_grad(), _default_dtype(torch.float32):
            perturb = _autoattack(network, self.epsilon, self.norm, x.device, targets, seed)
            for name in self.runs(classes):
                if strongest.settled:
                    break
                standing = ~strongest.wrong
                with _OneNoise(network):
                    z = perturb[name](x[standing].float(), y[standing]).to(x)
                # FAB divides by the gradient's norm: where that is zero it returns NaN.
                z = torch.where(z.isfinite().flatten(1).all(1)[:, None, None, None], z, x[standing])
                strongest.queries[standing] += int(_passes(name, targets).forwards)
                strongest.look(ball.project(x.masked_scatter(standing[:, None, None, None], z)))
        return strongest.images, strongest.queries


def _passes(name: str, targets: int) -> Cost:
    """Passes over an image that the attack does not break; one that it breaks counts them too."""
    return {
        "apgd-ce": Cost(STEPS + 2, STEPS + 1),
        "apgd-dlr": Cost(STEPS + 2, STEPS + 1),
        "apgd-t": Cost(1 + targets * (STEPS + 2), targets * (STEPS + 1)),
        "fab-t": Cost(1 + targets * (2 * STEPS + 3), targets * STEPS),
        "square": Cost(1 + QUERIES, 0),
    }[name]


def _autoattack(
    network: "_Network", epsilon: float, norm: Norm, device: torch.device, targets: int, seed: int
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The attacks of the standard version by name, each (images, labels) -> images, aimed at so many classes."""
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise InputError("Standard needs the package pyautoattack: pip install pyautoattack") from error
    standard = AutoAttack(network, norm="Linf" if norm == "linf" else "L2", eps=epsilon, device=device, seed=seed)
    for steps in (standard.apgd, standard.apgd_targeted, standard.fab):
        steps.n_iter = STEPS
    standard.square.n_queries = QUERIES
    dlr = copy(standard.apgd)
    standard.apgd.loss, dlr.loss = "ce", "dlr"
    standard.fab.targeted = True
    standard.fab.n_target_classes = standard.apgd_targeted.n_target_classes = targets
    return {
        "apgd-ce": standard.apgd.perturb,
        "apgd-dlr": dlr.perturb,
        "apgd-t": standard.apgd_targeted.perturb,
        "fab-t": standard.fab.perturb,
        "square": standard.square.perturb,
    }


class _Network:
    """The model as pyautoattack wants it: float32 in and out, logits it may write to, a gradient even if it is zero."""

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        self.model, self.dtype, self.running, self.default = model, dtype, False, torch.get_default_dtype()

    def __call__(self, x: Tensor) -> Tensor:
        self.running = True
        try:
            with _default_dtype(self.default):
                logits = self.model(x.to(self.dtype)).float().clone()
        finally:
            self.running = False
        return logits if logits.requires_grad or not x.requires_grad else logits + 0 * x.flatten(1).sum(1)[:, None]


class _OneNoise(TorchFunctionMode):
    """Random numbers for a batch of images become those of one image, repeated; the network's own stay as they are."""

    def __init__(self, network: _Network) -> None:
        super().__init__()
        self.network = network

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.rand, torch.randn) and not self.network.running and len(args[0]) == 4:
            return func([1, *args[0][1:]]).repeat(args[0][0], 1, 1, 1)
        return func(*args, **(kwargs or {}))


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """pyautoattack mixes tensors of torch's default type with the float32 that it is given."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """pyautoattack prints and logs as it goes."""
    logger = logging.getLogger("auto-attack")
    before, logger.disabled = logger.disabled, True
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.disabled = before
