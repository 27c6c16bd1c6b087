"""Forward and backward pass of a micro-batch: gradients for the optimiser, the loss, how many images are right. On a
GPU both run from one CUDA graph, where every step is the same to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from shconv.capturing import Captured, Recorder, off
from shconv.training.defences import Defence, Step
from shconv.training.engine import Engine
from shconv.training.learner import Learner

CAPTURED = "each step's forward and backward pass run from one CUDA graph (--no-graphs: as torch runs them)"


def reason_against_capture(learner: Learner, defence: Defence, engine: Engine, processes: int) -> str:
    """Why the passes do not run from a graph; "" where they do."""
    if learner.device.type != "cuda":
        return f"the device is {learner.device.type}"
    if not engine.graphs or off():
        return off() or "it was turned off"
    if engine.compile:
        return "torch.compile brings its own"
    if processes > 1:
        return "gradients are averaged over processes"
    if engine.accumulation > 1:
        return "gradients of several micro-batches are summed"
    if learner.scaler.is_enabled():
        return "precision fp16 scales losses depending on earlier steps"
    known = type(defence).__module__.startswith("shconv.")
    return "" if known else f"the code of the defence {defence.name} may differ from step to step"


class Passes:
    """reason: why they do not run from a graph, or "". say: is told, once, where that fails."""

    def __init__(
        self,
        learner: Learner,
        defence: Defence,
        smoothing: float,
        reason: str,
        say: Callable[[str], object],
        recorder: Recorder | None = None,
    ) -> None:
        self.learner, self.defence, self.smoothing = learner, defence, smoothing
        self.generator = torch.Generator(learner.device)  # a graph draws from the one that it was captured with
        self._used: list[Tensor] = []
        self._step = Step(self.generator)
        self._share = 1.0
        failed = lambda why: say(f"no CUDA graph for the steps from here on: {why}")  # noqa: E731
        self._captured = None if reason else Captured(self._alone, recorder, (self.generator,), failed)

    def __call__(
        self, images: Tensor, targets: Tensor, word: int, first: int, batch: int, share: float
    ) -> tuple[Tensor, Tensor]:
        """The loss () before it is multiplied by `share`, and how many are right on the images that were trained on and
        on attacked ones, int64 (2,). Gradients are added to those that there are.

        images: uint8 (B, C, H, W), or floats in [0, 1]. targets: int64 (B,), or mixed ones (B, K). word: the seed of
        the defence's random numbers. first, batch: the place of these images in the step's batch, and its size.
        """
        device = self.learner.device
        images, targets = (each.to(device, non_blocking=True) for each in (images, targets))
        self.generator.manual_seed(word)
        self._step = Step(self.generator, self.learner.dtype, self.smoothing, first, batch)
        self._share = share
        if self._captured is None:
            loss, right = self._passes(images, targets)
            return loss, right
        loss, right, *gradients = self._captured(images, targets)
        for weight, gradient in zip(self._used, gradients, strict=True):
            weight.grad = gradient
        return loss.clone(), right  # the graph's own loss is written anew before this one is looked at

    def _alone(self, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """The same with the gradients among the results, and none left.

        Of leaves made anew: where torch keeps what gathers a parameter's gradient, it belongs to the stream of the
        time when it was made, and a capture on another one breaks off."""
        with _leaves(self.learner.network) as leaves:
            found = self._passes(images, targets)
        self._used = [weight for weight, leaf in leaves if leaf.grad is not None]
        return *found, *(leaf.grad for _, leaf in leaves if leaf.grad is not None)

    def _passes(self, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        learner, share = self.learner, self._share
        loss, logits, attacked = self.defence.loss(learner.model, learner.images(pixels), targets, self._step)
        learner.scaler.scale(loss if share == 1 else loss * share).backward()
        likeliest = targets if targets.dim() == 1 else targets.argmax(1)
        right = [(of.detach().argmax(1) == likeliest).sum() for of in (logits, attacked) if of is not None]
        return loss.detach(), torch.stack([*right, *[torch.zeros_like(right[0])] * (2 - len(right))])


@contextmanager
def _leaves(network: nn.Module) -> Iterator[list[tuple[nn.Parameter, nn.Parameter]]]:
    """Inside, the network has other parameters in the same memory; the pairs of those that are trained."""
    places = [(each, name, weight) for each in network.modules() for name, weight in each._parameters.items()]
    leaves: dict[nn.Parameter, nn.Parameter] = {}
    try:
        for module, name, weight in places:
            if weight is not None and weight.requires_grad:
                module._parameters[name] = leaves.setdefault(weight, nn.Parameter(weight.detach()))
        yield list(leaves.items())
    finally:
        for module, name, weight in places:
            module._parameters[name] = weight
