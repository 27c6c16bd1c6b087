"""What a defence is: the loss of one training step. And what crafting examples in the middle of training needs.

Its random numbers are a function of (seed, epoch, step) and of an image's place in the step's batch: a resumed run, and
one divided among several processes, draws those of an uninterrupted one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from shconv.attacks.objective import log_odds
from shconv.data import ImageSplit
from shconv.errors import InputError
from shconv.training.checkpoint import ModelConfig
from shconv.training.defences.source import Source

Uphill = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> the signs of a direction, in {-1, 0, 1}
STREAM = 16  # the second word of a SeedSequence: apart from the draws for the images' order and augmentation


@dataclass(frozen=True)
class Step:
    """What a training step lends to a defence, beside the network and the batch."""

    generator: torch.Generator  # on the images' device
    precision: torch.dtype | None = None  # of autocast; None: float32 throughout
    label_smoothing: float = 0.0
    first: int = 0  # the place of these images' first one in the step's batch
    batch_size: int | None = None  # images in the step's batch, over all processes; None: all of them are here

    def logits(self, model: nn.Module, x: Tensor) -> Tensor:
        """float32 (B, K), by a forward pass in the training's precision."""
        with torch.autocast(x.device.type, self.precision, enabled=self.precision is not None):
            logits: Tensor = model(x)
        return logits.float()

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The mean () over logits (B, K) and labels (B,), smoothed as the recipe says."""
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

    def uniform(self, x: Tensor, low: float, high: float) -> Tensor:
        """As large as x (B, C, H, W): these images' part of what is drawn for the step's whole batch."""
        return self._whole(x).uniform_(low, high, generator=self.generator)[self.first : self.first + len(x)]

    def normal(self, x: Tensor, sigma: float) -> Tensor:
        """The same from N(0, sigma^2)."""
        return self._whole(x).normal_(0, sigma, generator=self.generator)[self.first : self.first + len(x)]

    def _whole(self, x: Tensor) -> Tensor:
        if self.batch_size is None:
            return torch.empty_like(x)
        return torch.empty_like(x[:1].expand(self.batch_size, -1, -1, -1), memory_format=_layout(x))


class Trained(NamedTuple):
    """What a step of training is made of, and what it shows."""

    loss: Tensor
    """(): to be minimised."""
    logits: Tensor
    """(B, K) of the clean images, or of the attacked ones where the network is trained on those alone."""
    attacked: Tensor | None
    """(B, K) of the attacked images; None where there are none."""


class Defence(ABC):
    """A defence is a frozen set of hyper-parameters with one method, `loss`. It leaves the network as it found it, but
    for the running statistics of its batch norms, which see each step once. The other methods are for defences that
    want more: networks to learn from, or a part of their own in the network."""

    name: ClassVar[str]
    eps: float | None = None  # L-infinity budget of the examples trained on, of 1; None: it trains on none
    sources: tuple[Source, ...] = ()  # finished networks that it learns from
    needs_sources: ClassVar[bool] = False  # whether it learns from some that it does not train itself
    watched: ClassVar[bool] = True  # whether accuracy under PGD says how it goes, where there is an eps

    @abstractmethod
    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        """For images x (B, C, H, W) in [0, 1] and labels y int64 (B,); `model` is in train mode."""

    def check(self, config: ModelConfig, classes: Sequence[str]) -> None:
        """Raises InputError where it cannot train the network of `config` to tell `classes` apart."""
        if self.eps is not None and len(classes) < 2:
            raise InputError(f"defence {self.name} needs at least 2 classes to attack, these are {len(classes)}")
        for place, source in enumerate(self.sources):
            source.check(place, config, classes)

    def first(self, seed: int) -> Mapping[str, "First"]:
        """Networks of the same kind that are trained before, by the name of their folder below the training's own."""
        return {}

    def taught(self, sources: Mapping[str, Source]) -> Self:
        """The defence with the networks that `first` asked for, finished."""
        return replace(self, sources=tuple(sources.values()))  # type: ignore[type-var]

    def around(self, config: ModelConfig) -> ModelConfig:
        """The network that is trained and stored, where `config` was asked for."""
        return config

    def begin(self, network: nn.Module) -> None:  # noqa: B027 (most have nothing to do)
        """Changes the network as it was built, before its first step or the state that is gone on from."""

    def settle(self, network: nn.Module, split: ImageSplit, seed: int) -> None:  # noqa: B027 (the same)
        """At the end of each epoch, what is measured on training images and stored with the network. It is in eval
        mode, on its device; what it gets is a function of its weights, the images and the seed."""

    def record(self) -> dict[str, Any] | None:
        """How the network was trained, for its checkpoint, as plain values; None for plain training."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]


class First(NamedTuple):
    """How a network is trained that a defence learns from."""

    defence: Defence
    seed: int


@dataclass(frozen=True)
class Plain(Defence):
    """No defence: the cross-entropy of the images as they are."""

    name = "none"

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        logits = step.logits(model, x)
        return Trained(step.cross_entropy(logits, y), logits, None)

    def record(self) -> None:
        return None


def step_word(seed: int, epoch: int, step: int) -> int:
    """The seed of a step's random numbers (both from 0); a vanilla network and its SHC twin draw the same."""
    return first_word(seed, STREAM, epoch, step)


def first_word(*entropy: int) -> int:
    """64 bits of the SeedSequence of these integers >= 0."""
    # An array of 32-bit words is the same to it, and spares it half of its time: it is wanted at every step.
    words = np.array(entropy, np.uint32) if max(entropy) < 2**32 else entropy
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


@contextmanager
def crafting(model: nn.Module) -> Iterator[None]:
    """Passes in here compute no gradient of the parameters and leave no trace in running statistics.

    A network in train mode normalises with the statistics of the crafted batch, as in the code of Wong et al. 2020 and
    Madry et al. 2018, so the examples attack the very function that is trained next. There each crafting pass also
    moves the running statistics; here only the training pass does.
    """
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for norm in norms:
            norm.track_running_stats = False
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for parameter in trained:
            parameter.requires_grad_(True)


def ascent(model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
    """The sign of the gradient of each image's cross-entropy at x (B, C, H, W), in {-1, 0, 1}.

    Taken from the log-odds, which differ by a negative factor and do not underflow, in half precision either. Where
    batch norms tie the images of a batch together, all of them count alike: in the sum of cross-entropies those that
    the network is unsure of count for more.
    """
    x = x.detach().requires_grad_()
    odds = log_odds(step.logits(model, x), y).sum()
    return -torch.autograd.grad(odds, x)[0].sign()


def ascend(model: nn.Module, x: Tensor, y: Tensor, step: Step, *, eps: float, step_size: float, steps: int) -> Tensor:
    """Attacked images (B, C, H, W): from a uniform start in the eps ball, `steps` steps up the cross-entropy."""
    start = x + step.uniform(x, -eps, eps)
    return climb(model, x, start, lambda at: ascent(model, at, y, step), eps=eps, step_size=step_size, steps=steps)


def climb(
    model: nn.Module, x: Tensor, start: Tensor, uphill: Uphill, *, eps: float, step_size: float, steps: int
) -> Tensor:
    """From start (B, C, H, W), `steps` steps of step_size * eps; the start and each step are put back into the eps ball
    around x and into [0, 1]. `model` is the network that the steps ask."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    attacked = start.clamp(low, high)
    with crafting(model):
        for _ in range(steps):
            attacked = (attacked + step_size * eps * uphill(attacked)).clamp(low, high)
    return attacked


def _layout(x: Tensor) -> torch.memory_format:
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
