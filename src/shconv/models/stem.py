"""What all the networks share: the two stems, and the initialisation of He et al. 2015 that torchvision uses too."""

from torch import nn


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
