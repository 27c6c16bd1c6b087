"""A separable toy problem, and a tiny network in the place of shconv.create_model."""

from collections.abc import Callable
from pathlib import Path

import pytest
from loop_toys import Training
from together import colours
from torch import Tensor, nn

import shconv
from shconv.data import ImageData
from shconv.training import ModelConfig, Recipe


class ToyNet(nn.Module):
    """Dropout and batch norm, so that the random state and the buffers matter too."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.drop(self.bn(self.conv(x)).relu().mean((2, 3))))
        return logits


@pytest.fixture(autouse=True)
def without_a_gpu(on_the_cpu: None) -> None: ...


@pytest.fixture
def data() -> ImageData:
    return ImageData("toy", ("red", "green", "blue"), colours(70, 0), colours(33, 1), 8, "A toy.", 0)


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig("toy", 3, stem="small", width=6)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(3, 16, 0.1, schedule="cosine", warmup_epochs=0.5)


@pytest.fixture
def training(config: ModelConfig, data: ImageData, recipe: Recipe, tmp_path: Path) -> Training:
    return Training(config, data, recipe, tmp_path)


@pytest.fixture
def toy_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., nn.Module]], None]:
    """Call it with another constructor to have that one built."""

    def use(build: Callable[..., nn.Module]) -> None:
        monkeypatch.setattr(shconv, "create_model", lambda **kw: build(kw["num_classes"], kw["width"]))

    use(ToyNet)
    return use
