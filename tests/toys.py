"""Small stand-ins that several rooms of the tests share: images whose brightest channel is their class, on disk and in
memory, and hand-made networks that see it: a vanilla one and its SHC twin with maps that depend on the image."""

import multiprocessing
import os
import re
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from shconv import to_shc
from shconv.data import ImageData
from shconv.data.splits import MemorySplit
from shconv.routes import shc_layers

CLASSES = ("blue", "green", "red")
CHANNEL = {"red": 0, "green": 1, "blue": 2}
# Networks of four channels that know their three classes after a second of training.
MINIATURE = ["--models", "plain10", "--width", "4", "--epochs", "40", "--batch-size", "8"]
MINIATURE += ["--table2-images", "8", "--table3-images", "2"]


def processes() -> BaseContext:
    """Starts processes that have torch and shconv loaded, which takes each seconds where it starts from nothing: copies
    of this one, or, where there may be a GPU, which works in no copy, or this one has compiled something, of one that
    has only loaded them."""
    if not torch.cuda.is_available() and _copies_train():
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "shconv.experiments.study", "shconv.training"])
    return context


def _copies_train() -> bool:
    """Whether a copy of this process has gradients: it has none once torch.compile was called in this one."""
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    try:
        torch.ones(1, requires_grad=True).sum().backward()
        os._exit(0)
    finally:
        os._exit(1)


def colours(labels: Sequence[int], seed: int = 0, side: int = 8, least: int = 0) -> Tensor:
    """uint8 (N, 3, side, side): noise, and the class's channel brighter by `least` to 150 levels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 100, (len(labels), 3, side, side))
    for image, label in zip(images, labels, strict=True):
        image[CHANNEL[CLASSES[label]]] += rng.integers(least, 151)
    return torch.from_numpy(images.astype(np.uint8))


def colour_data(n: int = 21, side: int = 8) -> ImageData:
    """A data set in memory; its classes come one after the other, as folders give them."""
    labels = sorted(i % len(CLASSES) for i in range(n))
    split = MemorySplit(colours(labels, side=side), torch.tensor(labels), [str(i) for i in range(n)])
    return ImageData("colours", CLASSES, None, split, side, "", 0)


def colour_folder(root: Path, train: int = 12, test: int = 6, side: int = 8, classes: Sequence[str] = CLASSES) -> Path:
    """root/train and root/test with so many PNG files of each class."""
    for part, count in (("train", train), ("test", test)):
        for label, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number, image in enumerate(colours([label % 3] * count, seed=label + 10 * count, side=side, least=110)):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return root


class Colours(nn.Module):
    """Logits: the channels' mean brightness after two 3x3 convolutions close to the identity, scaled up."""

    def __init__(self, scale: float = 50.0) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
            layer.weight.data[range(3), range(3), 1, 1] += 1
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.scale * self.second(self.first(x).relu()).mean((2, 3))
        return logits.flip(1)  # classes are sorted by name: blue, green, red


def colour_networks(scale: float = 50.0) -> tuple[nn.Module, nn.Module]:
    """(vanilla, SHC), in eval mode; the twin's maps lie about 1/2 and follow the image."""
    torch.manual_seed(1)
    vanilla = Colours(scale).eval()
    shc = to_shc(Colours(scale), start="identity").eval()
    for layer in shc_layers(shc).values():
        nn.init.uniform_(layer.hyper.hidden.weight, 0, 1)  # one hidden neuron, which must not be dead
        nn.init.normal_(layer.hyper.output.weight, std=0.5)
    return vanilla, shc


def words(value: object) -> str:
    """A parameter as a part of a test's name, the same in every process: without a function's address."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def scrambled(model: nn.Module) -> nn.Module:
    """Batch norm with every value its own, so that no two of them could be swapped unseen; in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stored of an image (H, W, 3): the inverse of the turn that its orientation tag asks for."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turned[orientation])
