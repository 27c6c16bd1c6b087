"""foolbox's decision-based attacks on one image, stopped as soon as they see a wrong decision inside the ball.
The only file here that needs foolbox; import it inside functions."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from eagerpy.astensor import astensor
from eagerpy.tensor.tensor import Tensor as Eager
from foolbox.attacks.base import MinimizationAttack
from foolbox.attacks.blended_noise import LinearSearchBlendedUniformNoiseAttack
from foolbox.attacks.boundary_attack import BoundaryAttack
from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
from foolbox.attacks.saltandpepper import SaltAndPepperNoiseAttack
from foolbox.criteria import Criterion
from foolbox.models.base import Model as FoolboxModel
from foolbox.types import Bounds
from torch import Tensor

from shconv.attacks.ball import Ball
from shconv.attacks.base import Model
from shconv.attacks.budget import Norm
from shconv.attacks.checks import check_logits
from shconv.errors import InputError, raised

CHUNK = 100  # images a forward pass


class Decisions(Criterion):
    """The model's decisions on images near one image of class y (1,), counted.

    Raises EndedError at the first wrong decision inside the ball, which it keeps, or when the limit is reached.
    """

    def __init__(self, model: Model, ball: Ball, y: Tensor, limit: int) -> None:
        self.model, self.ball, self.y, self.limit = model, ball, y, limit
        self.queries = 0
        self.found: Tensor | None = None  # (1, C, H, W)

    def __repr__(self) -> str:
        return f"Decisions({self.queries} of {self.limit})"

    def __call__(self, perturbed: Any, outputs: Any) -> Any:
        return astensor(self.wrong(perturbed.raw))

    def wrong(self, x: Tensor) -> Tensor:
        """bool (M,): whether the model errs on each of x (M, C, H, W)."""
        return torch.cat([self._wrong(part) for part in x.split(CHUNK)])

    def _wrong(self, x: Tensor) -> Tensor:
        if self.queries + len(x) > self.limit:
            raise EndedError
        self.queries += len(x)
        try:
            logits = self.model(x)
        except AssertionError as error:  # the network's own, which `search_image` would take for foolbox's
            raise InputError(f"model: raised {raised(error)}") from error
        wrong = check_logits(logits, self.y.expand(len(x))).argmax(1) != self.y
        hits = wrong & self.ball.contains(x)
        if bool(hits.any()):
            self.found = x[hits][:1]
            raise EndedError
        return wrong


class Images(FoolboxModel):
    """foolbox asks a model before it asks the criterion: this one hands the images on."""

    bounds = Bounds(0.0, 1.0)
    data_format = "channels_first"

    def __call__(self, inputs: Any) -> Any:
        return inputs


class EndedError(Exception):
    """The search on this image is over; Decisions.found says how."""


def search_image(decisions: Decisions, attack: MinimizationAttack, noises: int, blends: int, peppers: int) -> None:
    """Run `attack` from blended noise, or from salt and pepper where no noise is misclassified: so many of each."""
    x = astensor(decisions.ball.x)
    try:
        decisions.wrong(x.raw)
        for start in (
            LinearSearchBlendedUniformNoiseAttack(directions=noises, steps=blends),
            SaltAndPepperNoiseAttack(steps=peppers),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # foolbox warns where no start was found; the next line asks
                z = start.run(Images(), x, decisions)
            if bool(decisions.wrong(z.raw)):
                attack.run(Images(), x, decisions, starting_points=z)
                return
    except (EndedError, AssertionError):
        # foolbox asserts that what was adversarial stays so, which a random network need not fulfil.
        return
    except ValueError as error:
        if "not adversarial" not in str(error):  # the same of the start
            raise


class HopSkipJump(HopSkipJumpAttack):
    """Chen et al. 2020 as foolbox has it, but for one image, whose probes go through the model together."""

    def approximate_gradients(
        self, is_adversarial: Callable[[Eager], Eager], x_advs: Eager, steps: int, delta: Eager
    ) -> Eager:
        """The Monte Carlo estimate of the direction towards the wrong side (their equations 8 to 10), like x_advs."""
        x, radius = x_advs.raw, delta.raw  # (1, C, H, W), (1,)
        u = x.new_empty(steps, *x.shape[1:])
        u = u.normal_() if self.constraint == "l2" else u.uniform_(-1, 1)
        u = u / u.flatten(1).norm(dim=1)[:, None, None, None]
        probes = (x + radius * u).clamp(0.0, 1.0)
        decided: Tensor = 2 * is_adversarial(astensor(probes)).raw.to(x) - 1
        # Centred, which lowers the variance, unless all decisions agree.
        weight = decided if bool(decided.mean().abs() == 1) else decided - decided.mean()
        gradient = (weight[:, None, None, None] * (probes - x) / radius).mean(0, keepdim=True)
        towards: Eager = astensor(gradient / gradient.norm().clamp_min(1e-12))
        return towards


def attack_of_foolbox(kind: str, norm: Norm, steps: int) -> MinimizationAttack:
    """One of the two, with so many steps."""
    return BoundaryAttack(steps=steps) if kind == "boundary" else HopSkipJump(steps=steps, constraint=norm)
