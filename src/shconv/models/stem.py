"""What all the networks share: the two stems, four stages behind them, and the initialisation of He et al. 2015 that
torchvision uses too."""

from collections.abc import Callable

from torch import Tensor, nn

from shconv.errors import InputError
from shconv.models.normalize import Normalization, make_normalize
from shconv.tracing import traced


class Staged(nn.Module):
    """Images (N, in_channels, H, W) in [0, 1] -> logits (N, num_classes).

    stage: from its number, 0 to 3, its input's channels, its channels and its stride to a module and its output's
    channels. width: channels of the stem; a stage has width * 2**stage, rounded where the width is a fraction.
    """

    def __init__(
        self,
        stage: Callable[[int, int, int, int], tuple[nn.Module, int]],
        num_classes: int,
        in_channels: int,
        stem: str,
        width: float,
        normalize: Normalization,
    ) -> None:
        super().__init__()
        self.normalize = make_normalize(normalize, in_channels)
        inputs = round(width)
        self.conv1, self.maxpool = make_stem(stem, in_channels, inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        stages = []
        for number in range(4):
            made, inputs = stage(number, inputs, round(width * 2**number), 2 if number else 1)
            stages.append(made)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.conv1)
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def check_images(x: Tensor, conv1: nn.Module) -> None:
    """Raises InputError for what torch would complain of in words of its own: no floats, no batch, other channels."""
    channels = getattr(conv1, "in_channels", None)
    if traced(x) or (x.dim() == 4 and x.is_floating_point() and (channels is None or channels == x.shape[1])):
        return
    got = f"{x.dtype} images of shape {tuple(x.shape)}"
    hint = "" if x.is_floating_point() else "; use images.float() / 255 for 8-bit ones"
    if x.dim() == 4 and x.shape[1] == 1 and channels == 3:
        hint += "; a grey image becomes one of three channels with images.expand(-1, 3, -1, -1)"
    raise InputError(f"got {got}; this network wants float ones of shape (N, {channels or 'C'}, H, W) in [0, 1]{hint}")


def make_stem(stem: str, in_channels: int, width: int) -> tuple[nn.Conv2d, nn.Module]:
    """(conv1, maxpool): 7x7/2 and a 3x3/2 max pool for ImageNet; 3x3/1 and no pool for images up to 64 px ("small")."""
    if stem == "small":
        return nn.Conv2d(in_channels, width, 3, stride=1, padding=1, bias=False), nn.Identity()
    return nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False), nn.MaxPool2d(3, stride=2, padding=1)


def initialize(network: nn.Module) -> None:
    """He-normal (fan out) convolutions, batch norm at scale 1 and shift 0; linear layers keep PyTorch's default."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
