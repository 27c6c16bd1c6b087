"""A network as it is audited: any module from images in [0, 1] to logits. What it returns is made fit for attacks
(finite, logits, one answer an image), and every prediction that counts is made in one fixed batch shape."""

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shconv.attacks.checks import check_logits_shape
from shconv.attacks.search import own_randomness
from shconv.errors import InputError
from shconv.experiments.network import finite, finite_gradient, first_logits, in_other_company, same_answers
from shconv.experiments.outcomes import NO_ANSWER, judge
from shconv.experiments.question import padded
from shconv.replaying import replaying
from shconv.routes import shc_layers

PASSES = 8  # of a random network, averaged
FEW = 4  # images that are looked at in any case, where a batch would take too long


class Judged(NamedTuple):
    """What became of n images in a fresh forward pass."""

    right: NDArray[np.bool_]  # (n,); an image without an answer is wrong
    p_y: NDArray[np.float64]  # (n,), the true class's probability; 0 without an answer
    nan: NDArray[np.bool_]  # (n,), where there is none


class Subject:
    """A network and what it was found to be.

    model       what attacks differentiate and checks call: eval mode, finite logits (N, K)
    one_draw    the same with a single pass where it is random: an eighth of the price
    network     the module as given
    inside      what `model` calls: the network, with gradients turned on where it turns them off (`turned_on`)
    probabilities, is_random     what it returned on `images`: a distribution; another answer in a second pass
    mixes       whether an image's answer hangs on the other images of its batch
    seconds     of a pass, an image, among few
    training    its parts that were in training mode as given, in words
    Expects the network in eval mode with frozen parameters (`attacks.base.borrowed`).
    It is found out on a batch of the images, or on a few of them where a batch takes longer than about `seconds`.

    Raises InputError where the network cannot take the images or returns no logits for their classes.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int = 0,
        batch_size: int = 100,
        training: Sequence[str] = (),
        seconds: float = math.inf,
    ) -> None:
        self.name, self.seed, self.network, self.batch_size = name, seed, network, batch_size
        self.training = tuple(training)
        most = min(len(images), batch_size)
        first, second, alone, took = _three_passes(name, network, images[: min(most, FEW)])
        self.seconds = took / 3 / min(most, FEW)
        if most > FEW and took * most / FEW <= seconds:
            first, second, alone, _ = _three_passes(name, network, images[:most])
        self.classes = first.shape[1]
        if int(labels.max()) >= self.classes:
            raise InputError(
                f"{name} returns {self.classes} logits; the data have class {int(labels.max())}; "
                "want a network for these classes"
            )
        self.probabilities = _are_probabilities(first)
        self.is_random = not same_answers(first, second)
        self.mixes = not self.is_random and not same_answers(first[:1], alone[:1])
        self.turned_on = not self.has_detector and _turns_gradients_off(network, images[: min(most, FEW)])
        self.inside = TurnedOn(network).eval() if self.turned_on else network
        kind = AuditedDetector if self.has_detector else AuditedNetwork
        self.model = kind(self.inside, self.probabilities, PASSES if self.is_random else 1)
        self.model.eval()
        self.one_draw = AuditedNetwork(self.inside, self.probabilities).eval() if self.is_random else self.model

    @cached_property
    def is_shc(self) -> bool:
        return bool(shc_layers(self.network))

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def routes(self) -> tuple[str, ...]:
        """Gradient routes that white-box attacks take: of an SHC network the convolution's too."""
        return ("both", "convolution") if self.is_shc else ("both",)

    @cached_property
    def has_detector(self) -> bool:
        """Whether it has a detector beside its classifier, as `shconv.models.detector` has."""
        return all(hasattr(self.network, each) for each in ("joint", "score", "threshold"))

    @property
    def key(self) -> str:
        return f"{self.name}/seed{self.seed}"

    @property
    def as_twin(self) -> str:
        """What a sentence about another network calls it."""
        return as_twin(self.name)

    def judge(self, x: Tensor, y: Tensor, few: bool = False) -> Judged:
        """Is the network right on x (n, C, H, W) with classes y (n,)? A fresh forward pass of the whole network.

        few: of these images alone, where time is short; else in the one batch shape.
        """
        size = min(len(x), self.batch_size) if few else self.batch_size
        found = judge(self._judged_by(self.model.as_returned, x, size), y)
        return Judged(found["correct"], found["p_y"], found["prediction"] == NO_ANSWER)

    def rejects(self, x: Tensor) -> NDArray[np.bool_]:
        """Which of the images x (n, C, H, W) its detector rejects, (n,): none where it has no detector."""
        if not self.has_detector:
            return np.zeros(len(x), bool)
        network: Any = self.network
        scores = self._judged_by(network.score, x, self.batch_size)
        rejected: NDArray[np.bool_] = ((scores > network.threshold) & ~scores.isnan()).cpu().numpy()
        return rejected

    def _judged_by(self, function: Any, x: Tensor, size: int) -> Tensor:
        """What a function says of images, at least one, always `size` at a time."""
        with torch.no_grad(), drawing(self.is_random, "judge"):
            return torch.cat([function(padded(part, size))[: len(part)] for part in x.split(size)])


class TurnedOn(nn.Module):
    """A network in which torch.no_grad and set_grad_enabled(False) do nothing, unless gradients are off outside."""

    steady = False  # Python runs at every call, which a replayed graph would leave out

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        with _StaysOn() if torch.is_grad_enabled() else nullcontext():
            return self.network(x)


class _StaysOn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*((True,) if func is torch._C._set_grad_enabled else args), **(kwargs or {}))


class TimeUp(Exception):  # noqa: N818 (no error: it ends an attack that would take too long)
    """The time is used up, in the midst of an attack or of a check."""


class AuditedNetwork(nn.Module):
    """A network whose answers attacks can use; its decisions are the network's own.

    Probabilities become their logarithms (the same softmax); a random network answers by the mean of its logits over
    `passes` passes, so that its gradient is that of the expectation (Athalye et al. 2018); logits and gradients are
    made finite, as NaN would stop an attack, but the judge sees logits as they are. `watch` is called before every pass
    but the judge's, and may raise TimeUp.
    """

    steady = False  # Python runs at every call, which a replayed graph would leave out: the network inside is replayed

    def __init__(self, network: nn.Module, probabilities: bool = False, passes: int = 1) -> None:
        super().__init__()
        self.network, self.probabilities, self.passes = network, probabilities, passes
        self.watch: Callable[[], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self._answer(replaying(self.network), x)

    def as_returned(self, x: Tensor) -> Tensor:
        """With NaN and infinity, for the judge."""
        return self._answer(replaying(self.network), x, usable=False)

    def _answer(self, ask: Callable[[Tensor], Tensor], x: Tensor, usable: bool = True) -> Tensor:
        if self.watch is not None and usable:
            self.watch()
        x = finite_gradient(x)
        answers = [check_logits_shape(ask(x), len(x)) for _ in range(self.passes)]
        if self.probabilities:
            answers = [each.clamp_min(torch.finfo(each.dtype).tiny).log() for each in answers]
        logits = torch.stack(answers).mean(0) if self.passes > 1 else answers[0]
        return finite(logits) if usable else logits


class AuditedDetector(AuditedNetwork):
    """One with a detector: what it forwards is the classifier's answer, `joint` is what fools both."""

    def joint(self, x: Tensor, y: int) -> Tensor:
        network: Any = self.network
        return self._answer(lambda at: network.joint(at, y), x)


@contextmanager
def drawing(active: bool, *words: object) -> Iterator[None]:
    """Inside, global random numbers are those that belong to the words; afterwards the caller's go on."""
    with own_randomness(None, zlib.crc32(repr(words).encode())) if active else nullcontext():
        yield


def as_twin(name: str) -> str:
    return "twin" if name == "twin" else f"twin {name}"


def _turns_gradients_off(network: nn.Module, x: Tensor) -> bool:
    """Is there no graph from the answer to images x (n, C, H, W), but one where torch.no_grad does nothing?"""

    def has_graph(model: nn.Module) -> bool:
        with torch.enable_grad():
            out = model(x.clone().requires_grad_())
        return isinstance(out, Tensor) and out.requires_grad

    with drawing(True, "graph"):
        try:
            return not has_graph(network) and has_graph(TurnedOn(network))
        except RuntimeError:  # it works in place where no graph minds
            return False


def _three_passes(name: str, network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Logits of x twice, then of a batch with its first image alone; and the seconds of three passes like the last."""
    with drawing(True, "kind"):
        first, second = (first_logits(name, network, x) for _ in range(2))
        started = time.monotonic()
        alone = first_logits(name, network, in_other_company(x))
    same_answers(first, alone)  # a GPU is waited for
    return first, second, alone, 3 * (time.monotonic() - started)


def _are_probabilities(out: Tensor) -> bool:
    rows = out[out.isfinite().all(1)]
    return len(rows) > 0 and bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-3).all())
