"""Plain-10 (section 3.2): a stem and two plain 3x3 convolutions at each of four resolutions, batch norm and ReLU,
no shortcuts. Ten weighted layers."""

from torch import Tensor, nn

from shconv.models.normalize import Normalization
from shconv.models.stem import Staged


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, the first with the block's stride, each followed by batch norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))  # type: ignore[no-any-return]


class Plain10(Staged):
    """A block of two convolutions in each stage; images, logits and arguments as in Staged."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        stem: str = "imagenet",
        width: float = 64,
        normalize: Normalization = None,
    ) -> None:
        def stage(number: int, inputs: int, channels: int, stride: int) -> tuple[nn.Module, int]:
            return PlainBlock(inputs, channels, stride), channels

        super().__init__(stage, num_classes, in_channels, stem, width, normalize)
