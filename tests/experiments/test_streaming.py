"""What a measurement holds: the images of one batch, and a few numbers for every image."""

import gc
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shconv.attacks import GaussianNoise, RandFGSM
from shconv.data import ImageData
from toys import CLASSES, Colours, colour_networks, colours

SIDE = 16


class Drawn:
    """A split that draws its images when asked for them, and holds none."""

    def __init__(self, n: int) -> None:
        self.labels, self.names = torch.arange(n) % 3, range(n)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return colours([i % 3], seed=i, side=SIDE)[0], i % 3


def drawn(n: int) -> ImageData:
    return ImageData("drawn", CLASSES, None, Drawn(n), SIDE, "", 0)


class Weighing(nn.Module):
    """Notes how many bytes the tensors weigh that are alive at a forward pass and have more than a number an image."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.most = Colours().eval(), 0

    def forward(self, x: Tensor) -> Tensor:
        gc.collect()
        alive = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter) and each.dim() > 1]
        self.most = max(self.most, sum(each.nbytes for each in alive))
        logits: Tensor = self.inner(x)
        return logits


@pytest.fixture
def unseen() -> Iterator[None]:
    """The garbage collector passes over what was there before the test: it takes long in a process of many tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("unseen")
def test_the_tensors_alive_are_those_of_one_batch(make_study):
    most = []
    for n in (8, 16):
        weighing = Weighing()
        study = make_study((weighing,), data=drawn(n), batch_size=4, folder=str(n))
        study.measure(study.question(next(study.networks), RandFGSM(), np.arange(n)))
        most.append(weighing.most)
    assert 0 < most[1] <= most[0]


@pytest.mark.parametrize("attack", [None, GaussianNoise(0.1)])
def test_every_further_image_takes_far_less_memory_than_an_image(make_study, attack):
    """In numpy and Python, which tracemalloc sees; the peak over a whole measurement, files and joining included."""
    peaks = []
    for n in (32, 32, 288):  # the first time, code is loaded
        study = make_study(colour_networks()[:1], data=drawn(n), batch_size=16, folder=str(n))
        tracemalloc.start()
        study.measure(study.question(next(study.networks), attack, np.arange(n)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    a_number, numbers = 8, 100
    assert (peaks[2] - peaks[1]) / 256 < a_number * numbers < 3 * SIDE**2 * 4
