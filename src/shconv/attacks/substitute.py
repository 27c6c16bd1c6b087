"""Transfer from a substitute network that learns the model from its labels alone (Papernot et al. 2017)."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.attacks.base import BatchAttack, Model
from shconv.attacks.checks import check_choice, check_count, check_inputs, check_logits
from shconv.attacks.cost import Cost
from shconv.attacks.gradient import FGSM
from shconv.attacks.pgd import PGD
from shconv.attacks.search import own_randomness
from shconv.attacks.spelling import other_names
from shconv.numbers import read_budgets
from shconv.replaying import module_of

STREAM = 20
CHUNK = 128  # images a pass
RATE, BATCH = 1e-3, 16  # of the substitute's training, by Adam: small batches, as the first rounds have few images
MOST = 500  # steps a round

By = Literal["fgsm", "pgd"]


class SeedImages:
    """Images (S, C, H, W) in [0, 1] to begin with; equal to others of the same content, so that attacks compare."""

    def __init__(self, images: Tensor) -> None:
        labels = torch.zeros(len(images), dtype=torch.int64)
        self.images = check_inputs(images, labels, None, 0)[0].float()
        self.digest = hashlib.sha256(self.images.cpu().numpy().tobytes()).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"SeedImages({tuple(self.images.shape)}, {self.digest})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeedImages) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __len__(self) -> int:
        return len(self.images)


@other_names
@dataclass(frozen=True)
class Substitute(BatchAttack):
    """Trains a small network on labels that the model gives, attacks that network, and hands the images on.

    Begins with `seeds`: SeedImages of the kind that the model was made for, or so many smooth random images. In each of
    `rounds` the model labels the images, the substitute is trained on them for `epochs` of at most 500 steps in all,
    and every image x gets a neighbour x + augment sign(gradient of the substitute's logit of x's label), which doubles
    the set; a last training follows (their Algorithm 1). Then FGSM or PGD with `steps` steps, both untargeted, go by
    the substitute's gradient.
    The model is asked for its likeliest class only, S 2^rounds times in all, whatever is attacked: that is the number
    of queries of every image. The substitute depends on (model, seeds, rounds, epochs, augment, seed) only: it is kept
    for the next batch, and for attacks that differ in the rest, as long as the model, a torch module, is unchanged.
    """

    epsilon: float = 0.0625
    by: By = "pgd"
    seeds: SeedImages | int = 100
    rounds: int = 6
    epochs: int = 10
    augment: float = 0.1
    steps: int = 20

    def __post_init__(self) -> None:
        read_budgets(self, "epsilon", "augment")
        check_choice("by", self.by, By)
        if not isinstance(self.seeds, SeedImages):
            check_count("seeds", self.seeds, 1)
        check_count("rounds", self.rounds, 0)
        check_count("epochs", self.epochs, 1)
        check_count("steps", self.steps, 1)

    @property
    def cost(self) -> Cost:
        """Passes through the model, for all images together."""
        count = len(self.seeds) if isinstance(self.seeds, SeedImages) else self.seeds
        return Cost(count * 2**self.rounds)

    def about(self) -> dict[str, Any]:
        return asdict(self) | {"seeds": repr(self.seeds) if isinstance(self.seeds, SeedImages) else self.seeds}

    def perturb(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, int]:
        substitute = self._kept(model, x, y, seed)
        attack = FGSM(objective="untargeted", epsilon=self.epsilon) if self.by == "fgsm" else self._pgd
        z = attack(substitute, x.float(), y, index=index, seed=seed).to(x.dtype)
        near = z.maximum(x - self.epsilon).minimum(x + self.epsilon).clamp(0.0, 1.0)
        return near, None, int(self.cost.forwards)

    @property
    def _pgd(self) -> PGD:
        return PGD(self.epsilon, steps=self.steps)

    def _kept(self, model: Model, x: Tensor, y: Tensor, seed: int) -> nn.Module:
        if (module := module_of(model)) is None:
            return self.train(model, x, int(y.max()), seed)
        state = [*module.parameters(), *module.buffers()]
        trained = (self.seeds, self.rounds, self.epochs, self.augment, seed)
        made_of = (trained, tuple(x.shape[1:]), x.dtype, [(t.data_ptr(), t._version) for t in state])
        known = _KEPT.get(module)
        if known is None or known[0] != made_of:
            known = _KEPT[module] = (made_of, self.train(model, x, int(y.max()), seed))
        return known[1]

    def train(self, model: Model, x: Tensor, highest: int, seed: int) -> nn.Module:
        """A substitute of the model for images like x, float32, in eval mode. `highest` is a label that there is."""
        draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, STREAM])))
        images = self._begin(x, draw)
        labels, classes = _labels(model, images, x.dtype, highest)
        with own_randomness(x.device, int(draw.integers(2**62))), torch.enable_grad():
            substitute = _network(x.shape[1], classes).to(x.device).to(memory_format=torch.channels_last)
            images = images.contiguous(memory_format=torch.channels_last)
            optimizer = torch.optim.Adam(substitute.parameters(), RATE)
            for round in range(self.rounds + 1):
                if round:
                    new = torch.cat([self._neighbours(substitute, *part) for part in _chunks(images, labels)])
                    images, labels = (
                        torch.cat(both) for both in ((images, new), (labels, _labels(model, new, x.dtype, highest)[0]))
                    )
                for z, label in islice(self._batches(images, labels), MOST):
                    optimizer.zero_grad()
                    F.cross_entropy(substitute(z), label).backward()
                    optimizer.step()
        return substitute.requires_grad_(False).eval()

    def _batches(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.epochs):
            order = torch.randperm(len(images), device=images.device)
            yield from _chunks(images[order], labels[order], BATCH)

    def _begin(self, x: Tensor, draw: np.random.Generator) -> Tensor:
        if isinstance(self.seeds, SeedImages):
            return self.seeds.images.to(x.device)
        coarse = torch.from_numpy(draw.random((self.seeds, x.shape[1], 4, 4), np.float32)).to(x.device)
        return F.interpolate(coarse, tuple(x.shape[2:]), mode="bilinear", align_corners=True).clamp(0.0, 1.0)

    def _neighbours(self, substitute: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(substitute(x).gather(1, labels[:, None]).sum(), x)
        return (x + self.augment * gradient.sign()).clamp(0.0, 1.0).detach()


_KEPT: "WeakKeyDictionary[nn.Module, tuple[Any, nn.Module]]" = WeakKeyDictionary()


def _labels(model: Model, images: Tensor, dtype: torch.dtype, highest: int) -> tuple[Tensor, int]:
    """The model's classes of images (S, C, H, W), int64 (S,), and how many classes it has."""
    found, classes = [], 0
    with torch.no_grad():
        for part in images.split(CHUNK):
            labels = torch.full((len(part),), highest, device=part.device)
            logits = check_logits(model(part.to(dtype, copy=True)), labels)
            found.append(logits.argmax(1))
            classes = logits.shape[1]
    return torch.cat(found), classes


def _chunks(images: Tensor, labels: Tensor, size: int = CHUNK) -> "zip[tuple[Tensor, Tensor]]":
    return zip(images.split(size), labels.split(size), strict=True)


def _network(channels: int, classes: int) -> nn.Module:
    """Two narrow convolutions and two linear layers, for images of any size."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(4),
        nn.Flatten(),
        nn.Linear(32 * 16, 200),
        nn.ReLU(),
        nn.Linear(200, classes),
    )
