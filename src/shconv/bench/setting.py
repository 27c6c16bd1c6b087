"""A network as it is measured: size, batch, precision and layout, its training step and its inference."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.bench.device import Work
from shconv.bench.op import LAYOUTS
from shconv.models import create_model

SIZES = {"plain10": (128, 32, 16), "resnet18": (16, 256, 64), "resnet50": (16, 256, 64)}  # batch, image size, width


@dataclass(frozen=True)
class Setting:
    """Numbers and words only, so that another process can be told."""

    name: str
    batch: int
    image_size: int
    width: int
    dtype: str = "float32"
    layout: str = "contiguous"
    device: str = "cpu"
    compiled: bool = False

    @property
    def subject(self) -> str:
        return f"{self.name} width {self.width}, {self.batch} x {self.image_size} px"

    @property
    def classes(self) -> int:
        return 10 if self.small else 1000

    @property
    def small(self) -> bool:
        return self.image_size <= 64

    def shc(self) -> Self:
        """The same of the SHC network."""
        return replace(self, name=f"{self.name}_shc")

    def build(self) -> nn.Module:
        """The network, in training mode, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            stem = "small" if self.small else "imagenet"
            network: nn.Module = create_model(self.name, self.classes, stem=stem, width=self.width)
        return network.to(self.device).to(memory_format=LAYOUTS[self.layout])

    def prepare(self, network: nn.Module) -> None:
        """torch.compile where asked for; only now, so that the checks before look at every layer as it is."""
        if self.compiled:
            network.compile()

    def images(self) -> tuple[Tensor, Tensor]:
        """Noise in [0, 1] and random labels."""
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(self.batch, 3, self.image_size, self.image_size, generator=generator)
        labels = torch.randint(self.classes, (self.batch,), generator=generator)
        return images.to(self.device, memory_format=LAYOUTS[self.layout]), labels.to(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def training_step(self, network: nn.Module) -> Work:
        """Forward, cross-entropy, backward, and SGD with momentum."""
        images, labels = self.images()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            with self.autocast():
                loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()

        return step

    def inference(self, network: nn.Module) -> Work:
        images, _ = self.images()

        def forward() -> None:
            with torch.no_grad(), self.autocast():
                network(images)

        return forward
