"""What all the networks share: the two stems, and the initialisation of He et al. 2015 that torchvision uses too."""

from torch import Tensor, nn

from shconv.errors import InputError
from shconv.tracing import traced


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
