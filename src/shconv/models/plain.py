"""Plain-10 (section 3.2): a stem and two plain 3x3 convolutions at each of four resolutions, batch norm and ReLU,
no shortcuts. Ten weighted layers."""

from torch import Tensor, nn

from shconv.models.normalize import Normalization, make_normalize
from shconv.models.stem import check_images, initialize, make_stem


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


class Plain10(nn.Module):
    """Images (N, in_channels, H, W) in [0, 1] -> logits (N, num_classes).

    width: channels of the stem; a stage has width * 2**stage, rounded where the width is a fraction.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        stem: str = "imagenet",
        width: float = 64,
        normalize: Normalization = None,
    ) -> None:
        super().__init__()
        self.normalize = make_normalize(normalize, in_channels)
        first, second, third, last = (round(width * 2**stage) for stage in range(4))
        self.conv1, self.maxpool = make_stem(stem, in_channels, first)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = PlainBlock(first, first, stride=1)
        self.layer2 = PlainBlock(first, second, stride=2)
        self.layer3 = PlainBlock(second, third, stride=2)
        self.layer4 = PlainBlock(third, last, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.conv1)
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits
