"""What every attack shares: the call, its result, random numbers per image, and leaving the model as it was found."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from operator import index as as_integer
from typing import Any, ClassVar, SupportsIndex

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shconv.attacks.budget import ANY_CHANGE, Budget, distances
from shconv.attacks.checks import IN_PLACE, Index, channels_last, check_inputs, check_targets
from shconv.attacks.cost import Cost
from shconv.errors import InputError
from shconv.eval_mode import eval_mode
from shconv.replaying import replaying

Model = Callable[[Tensor], Tensor]  # (N, C, H, W) in [0, 1] -> logits (N, K)


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack made of N images. All tensors are on the images' device."""

    images: Tensor
    """(N, C, H, W): the adversarial images, in the dtype of the clean ones."""
    target: Tensor | None
    """int64 (N,): the class y_t that the attack steps towards; None where it has none."""
    queries: Tensor
    """int64 (N,): forward passes spent on each image."""
    distances: dict[str, Tensor]
    """"linf" and "l2", each (N,): the distance reached from the clean image, over all its channels and pixels."""


@dataclass(frozen=True)
class Attack(ABC):
    """An attack is a frozen set of hyper-parameters; calling it is pure.

    `model` is any callable from images (N, C, H, W) in [0, 1] to logits (N, K). A torch module runs in eval mode with
    its parameters' requires_grad cleared; every sub-module's mode and every flag is restored afterwards, also after an
    exception, and no .grad is touched. Randomness depends on (seed, index) of an image only, so neither on the order of
    the images nor on how they are spread over batches and processes.

    Threads may attack one network at the same time if it is in eval mode and no gradient route is entered; otherwise
    the first call that ends changes it under the others. Where torch's global generator is drawn from (HardLabel,
    Standard, Substitute, other people's attacks), one thread at a time gives the same result again.
    """

    together: ClassVar[int | None] = None
    """The most images that it is given at a time; None: as many as a batch has."""
    aims: ClassVar[bool] = False
    """Whether it can be told which classes to look for; its `run` then takes `targeted`."""

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        targeted: Tensor | None = None,
        index: Index | None = None,
        seed: SupportsIndex = 0,
    ) -> Tensor:
        """The adversarial images (N, C, H, W); arguments and errors as in `run`.

        targeted: int64 (N,), classes to be predicted in place of the labels, as in `run_towards`.
        """
        if targeted is not None:
            return self.run_towards(model, images, labels, targeted, index=index, seed=seed).images
        return self.run(model, images, labels, index=index, seed=seed).images

    @abstractmethod
    def run(
        self, model: Model, images: Tensor, labels: Tensor, *, index: Index | None = None, seed: SupportsIndex = 0
    ) -> AttackResult:
        """Attack float images (N, C, H, W) in [0, 1] whose true classes are `labels`, int64 (N,).

        `index` holds each image's place in its data set (None: 0, ..., N - 1) and `seed` selects the random numbers.
        Raises InputError for images, labels, places or model outputs of another kind.
        """

    def run_towards(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        targeted: Tensor,
        *,
        index: Index | None = None,
        seed: SupportsIndex = 0,
    ) -> AttackResult:
        """As `run`, but what is sought is the class in `targeted`, int64 (N,), for each image.

        Raises InputError where the attack cannot aim at given classes, or where one is the image's own label.
        """
        if not self.aims:
            able = "FGSM, IFGSM, RandFGSM, PGD, Square and RandomSigns can"
            raise InputError(f"{type(self).__name__} cannot aim at given classes; {able}")
        return self.run(model, images, labels, index=index, seed=seed, targeted=targeted)  # type: ignore[call-arg]

    def checked(
        self, images: Tensor, labels: Tensor, index: Index | None, seed: SupportsIndex
    ) -> tuple[Tensor, Tensor, list[int]]:
        """What `check_inputs` returns. Raises InputError also for images too coarse for what the attack promises."""
        inputs = check_inputs(images, labels, index, seed)
        if self.exact and images.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"images: got {images.dtype}; want float32 or float64, in which distances are exact enough"
            )
        return inputs

    @property
    def exact(self) -> bool:
        """Whether a distance counts: it has a budget to keep."""
        return math.isfinite(self.budget.radius)

    def about(self) -> dict[str, Any]:
        """Its hyper-parameters by name, as a result's row holds them."""
        return asdict(self)

    @property
    def cost(self) -> Cost | None:
        """Passes over one image, at most; None where they cannot be known."""
        return None

    @property
    def budget(self) -> Budget:
        """How far it may move an image: `epsilon` in `norm` (L-infinity where it has none); without one, any change."""
        epsilon = getattr(self, "epsilon", None)
        return ANY_CHANGE if epsilon is None else Budget(getattr(self, "norm", "linf"), float(epsilon))


@dataclass(frozen=True)
class CheckedAttack(Attack):
    """What stands around an attack that is given a batch: the checks, the model borrowed, the distances reached."""

    contiguous: ClassVar[bool] = False
    """Whether it is given contiguous images, so that sums round alike in any layout."""

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        index: Index | None = None,
        seed: SupportsIndex = 0,
        targeted: Tensor | None = None,
    ) -> AttackResult:
        with borrowed(model) as model:
            x, y, places = self.checked(images, labels, index, seed)
            goal = None if targeted is None else check_targets(targeted, y)
            x = x.contiguous() if self.contiguous else x
            with left_alone(x):
                found, target, queries = self._made(model, x, y, places, as_integer(seed), goal)
        return AttackResult(found, target, queries, distances(found, x))

    @abstractmethod
    def _made(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """From checked x (N, C, H, W) and y (N,): a result's images, target and queries.

        goal (N,): the classes to be predicted, where they are given.
        """


@dataclass(frozen=True)
class BatchAttack(CheckedAttack):
    """An attack that treats all images alike, in the batch it is given. A subclass implements `perturb`."""

    def _made(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        adversarial, y_t, queries = self.perturb(model, x, y, index, seed)
        return adversarial, y_t, torch.full_like(y, queries)

    @abstractmethod
    def perturb(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, int]:
        """From checked x (N, C, H, W) and y (N,): the adversarial images, y_t or None, forward passes an image."""


@contextmanager
def borrowed(model: Model) -> Iterator[Model]:
    """Put a torch module into eval mode without parameter gradients, then give it back exactly as it was.

    What it yields gives the same logits and gradients, from CUDA graphs where these serve (`replaying`): to be asked
    in the block, for first gradients.

    Without the flags cleared, a custom autograd function would compute dW for nothing. Gradients are enabled inside,
    whatever the caller's mode; copies of inference tensors made inside are ordinary tensors.
    """
    if not callable(model):
        raise InputError(f"model: got {type(model).__name__}; want a torch.nn.Module, or a function, to logits (N, K)")
    module = model if isinstance(model, nn.Module) else nn.Module()
    if any(map(is_lazy, module.parameters())):
        raise InputError("model: it has lazy parameters without values; want a network that was called once")
    trained = [each for each in module.parameters() if each.requires_grad and not each.is_inference()]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with eval_mode(module), torch.inference_mode(False), torch.enable_grad(), naming_what_is_wrong():
            yield replaying(model)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def naming_what_is_wrong() -> Iterator[None]:
    """torch's complaints about a network and the images that it is given, in our words."""
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if "leaf Variable that requires grad is being used in an in-place" in said:
            raise InputError(IN_PLACE) from error
        if found := re.search(r"input\[(.+)\] to have (\d+) channels, but got (\d+) channels", said):
            hint = channels_last([int(side) for side in found[1].split(",")])
            raise InputError(
                f"images: got {found[3]} channels; want {found[2]}, which the network takes{hint}"
            ) from error
        if found := re.search(
            r"Input type \((.+)\) and \w+ type \((.+)\)|mat1 and mat2 .* dtype, but got (.+) and (.+)", said
        ):
            images, weights = [kind.removeprefix("c10::") for kind in found.groups() if kind]
            raise InputError(
                f"images: got {images} for a network with weights of {weights}; want one type and device, as by "
                "model.to(images)"
            ) from error
        if "donated buffer" in said:
            raise InputError(
                "model: torch.compile made it give one gradient for a pass, and this attack asks for several; want the "
                "network as it was before, or torch._functorch.config.donated_buffer = False from the start"
            ) from error
        if "nference tensor" in said:
            raise InputError(
                "model: it was made inside torch.inference_mode(), so that it has no gradient; want one made outside"
            ) from error
        raise


@contextmanager
def left_alone(x: Tensor) -> Iterator[None]:
    """Raises InputError where the images x were changed in here: a network that works on them in place would be
    attacked from others than it was given."""
    before = x._version
    yield
    if x._version != before:
        raise InputError(IN_PLACE)


def generators(seed: int, stream: int, index: Sequence[int]) -> list[np.random.Generator]:
    """One generator an image, PCG64 from SeedSequence([seed, stream, index]); every attack has its own stream."""
    return [np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, i]))) for i in index]
