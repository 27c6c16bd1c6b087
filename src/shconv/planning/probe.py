"""What one image costs on this machine: short measured runs of what training, attacks and searches are made of.
A plan multiplies these by the known counts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.attacks import FGSM, GaussianNoise, LocSearchAdv
from shconv.data import training_batches
from shconv.data.splits import MemorySplit
from shconv.experiments.network import routed
from shconv.experiments.table3_locsearch import SEARCHED_TOGETHER
from shconv.training import ModelConfig, Recipe
from shconv.training.learner import autocast_dtype, layout_of

Work = Callable[[int], object]  # of so many images
_GAIN = 4  # how much cheaper than measured an image of a larger batch is believed to be, at most


@dataclass(frozen=True)
class NetworkCost:
    """Of one network, on one device. Seconds are per image, bytes are what a batch needs at least."""

    train: float  # a training step, without reading and augmenting
    forward: float
    gradient: dict[str, float]  # by route: FGSM, without the judge
    weights: int  # bytes of parameters and buffers
    train_image: int  # bytes that one image's step keeps for its backward pass
    attack_image: int  # the same of an attack's step

    def training_bytes(self, images: int) -> int:
        """Weights, their gradients, momentum, and the activations of so many images."""
        return 3 * self.weights + images * self.train_image


@dataclass(frozen=True)
class SharedCost:
    """What does not depend on the network. Seconds are per image."""

    augment: float  # one image made ready for training, once it is decoded
    noise: float  # Gaussian noise of one image
    search_round: dict[str, tuple[float, float]]  # by order: seconds beside the network, forward passes


class Span(NamedTuple):
    """Seconds with the machine to oneself, at least, and as it was: of the median of repeated runs."""

    alone: float
    usual: float


class _Size(NamedTuple):
    images: int
    seconds: float


def _expected(sizes: Sequence[_Size], images: int) -> float:
    """Seconds of a batch that is not smaller: along the line through the last two sizes, at most in proportion."""
    last = sizes[-1]
    proportion = last.seconds * images / last.images
    if len(sizes) == 1:
        return proportion
    each = max(0.0, last.seconds - sizes[-2].seconds) / (last.images - sizes[-2].images)
    return min(proportion, last.seconds + each * (images - last.images))


class Probe:
    """Measures on random images within `seconds`, or somewhat more where a single image takes that long."""

    def __init__(self, device: torch.device, seconds: float, networks: int, channels: int = 3) -> None:
        self.device, self.channels = device, channels
        self.share = seconds / (5 * networks + 4)  # an SHC network has six works, a vanilla one three
        self.left = 0.0  # what works that were done sooner did not use
        self.smaller: set[int] = set()  # batches that were measured in place of larger ones

    def seconds(self, work: Work, wanted: int, least: int = 1) -> Span:
        """Of one image in a batch of `wanted`, or as large a one as there is time for.

        Each size runs once before it counts: kernels are built and chosen, memory is found. Where the batch is smaller,
        that of the wanted one is read off the line through two sizes: part of its time is any batch's.
        """
        start, share = time.monotonic(), self.share + self.left
        took = self._warmed(work, min(least, wanted))
        sizes = [_Size(min(least, wanted), min(took))]
        while (batch := sizes[-1].images) < wanted:
            larger = min(4 * batch, wanted)
            # Sizes get twice the share if they must: a full batch measured once tells more than a small one often.
            if time.monotonic() - start + 3 * _expected(sizes, larger) > 2 * share:
                if len(sizes) > 1 or sizes[0].seconds > share:
                    break
                larger = min(2 * batch, wanted)  # one size does not tell the batch's time from the images'
            took = self._warmed(work, larger)
            sizes.append(_Size(larger, min(took)))
        began, worked = time.perf_counter(), time.process_time()
        while len(took) < 4 or (len(took) < 12 and time.monotonic() - start < share):
            took.append(self._took(work, batch))
            if time.monotonic() - start > 3 * share:
                break
        # the share of the time in which our threads were at work: other programs had the rest, or they waited
        passed, ours = time.perf_counter() - began, 1.0
        if self.device.type == "cpu" and passed:
            ours = min(1.0, (time.process_time() - worked) / (passed * torch.get_num_threads()))
        self.left = max(0.0, share - (time.monotonic() - start))
        if batch < wanted:
            self.smaller.add(batch)
        ends = (_expected([*sizes[:-1], _Size(batch, each)], wanted) / wanted for each in (min(took), median(took)))
        fastest, usual = (max(end, min(took) / batch / _GAIN) for end in ends)
        return Span(min(fastest, usual * ours), usual)

    def _warmed(self, work: Work, images: int) -> list[float]:
        self._took(work, images)
        return [self._took(work, images) for _ in range(2)]

    def _took(self, work: Work, images: int) -> float:
        self._finish()
        start = time.perf_counter()
        work(images)
        self._finish()
        return time.perf_counter() - start

    def network(
        self,
        config: ModelConfig,
        recipe: Recipe,
        train_size: int,
        test_size: int,
        batch_size: int,
        routes: tuple[str, ...],
    ) -> tuple[NetworkCost, NetworkCost]:
        """What a network costs at least, and usually."""
        model = config.build().to(self.device)
        weights = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
        step = self._training_step(model, recipe, config.num_classes, train_size)
        train_image = _kept(lambda: step(2, False)) // 2
        train = self.seconds(lambda n: step(n, True), recipe.batch_size, least=2)
        model = config.build().to(self.device).eval()  # as a stored network is loaded for the tables
        images = self._images(batch_size, test_size)
        forward, gradient = self.forward(model, images), self.gradients(model, images, routes)
        attack_image = _kept(lambda: _attacked(model, self._images(1, test_size), "both", 1))

        def cost(end: int) -> NetworkCost:
            by_route = {route: span[end] for route, span in gradient.items()}
            return NetworkCost(train[end], forward[end], by_route, weights, train_image, attack_image)

        return cost(0), cost(1)

    @torch.no_grad()
    def forward(self, model: nn.Module, x: Tensor) -> Span:
        """A pass of an image of x (N, C, H, W)."""
        return self.seconds(lambda n: model(x[:n]), len(x))

    def gradients(self, model: nn.Module, x: Tensor, routes: Sequence[str]) -> dict[str, Span]:
        """FGSM of an image of x (N, C, H, W) through each route."""
        return {route: self.seconds(partial(_attacked, model, x, route), len(x)) for route in routes}

    def shared(
        self, recipe: Recipe, train_size: int, test_size: int, searches: dict[str, LocSearchAdv]
    ) -> tuple[SharedCost, SharedCost]:
        """What is no network's, at least and usually."""
        pixels = torch.randint(0, 256, (64, self.channels, train_size, train_size), dtype=torch.uint8)
        split = MemorySplit(pixels, _labels(64), [])

        def augment(n: int) -> None:
            for _ in training_batches(split, recipe.augmentation, batch_size=n, seed=0, epoch=0, image_size=train_size):
                return

        x = self._images(32, test_size)
        noise = self.seconds(lambda n: GaussianNoise(0.1)(nn.Identity(), x[:n], _labels(n)), 32)
        rounds = {attack.order: self._search_round(attack, test_size) for attack in searches.values()}
        augmented = self.seconds(augment, 64)

        def cost(end: int) -> SharedCost:
            by_order: dict[str, tuple[float, float]] = {name: (span[end], n) for name, (span, n) in rounds.items()}
            return SharedCost(augmented[end], noise[end], by_order)

        return cost(0), cost(1)

    def _search_round(self, attack: LocSearchAdv, side: int) -> tuple[Span, float]:
        """Of one image in one round: seconds beside the network, and rows of the batches that the network is given."""
        rounds, times = (attack.steps, 2) if side <= 64 else (2, 1)
        few, n, rows = replace(attack, steps=rounds), SEARCHED_TOGETHER, 0
        weight = torch.randn(self.channels * side**2, 3, device=self.device)

        def stub(x: Tensor) -> Tensor:  # every pixel matters, as in a network: a search for corners would probe less
            nonlocal rows
            rows += len(x)
            return x.flatten(1) @ weight

        images, labels = self._images(n, side), _labels(n).to(self.device)
        replace(attack, steps=1)(stub, images, labels)  # to warm up
        rows = 0
        took = [self._took(lambda n: few(stub, images[:n], labels[:n]), n) for _ in range(times)]
        return Span(min(took) / (n * rounds), sum(took) / (n * rounds * times)), rows / (n * rounds * times)

    def _training_step(self, model: nn.Module, recipe: Recipe, classes: int, size: int) -> Callable[[int, bool], Any]:
        dtype = autocast_dtype(recipe, self.device, model)
        layout = layout_of(recipe)
        model = model.to(memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), 1e-6, recipe.momentum)
        x = self._images(recipe.batch_size, size).contiguous(memory_format=layout)
        y = _labels(recipe.batch_size).to(self.device)

        def step(n: int, whole: bool) -> Any:
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(x[:n]), y[:n])
            if whole:
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            return loss

        return step

    def _images(self, n: int, size: int) -> Tensor:
        return torch.rand(n, self.channels, size, size, device=self.device)

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _attacked(model: nn.Module, x: Tensor, route: str, n: int) -> Tensor:
    with routed(model, route) as seen:
        return FGSM()(seen, x[:n], _labels(n).to(x.device))


def _kept(work: Callable[[], Any]) -> int:
    """Bytes of the tensors that autograd keeps for backward passes while `work` runs, parameters left out."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = work()  # alive until all is counted, so that no address comes twice
    del kept
    return sum(seen.values())


def _labels(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.int64)
