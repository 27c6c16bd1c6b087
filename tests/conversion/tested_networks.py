"""The networks whose conversion is tested, real images for them, and random weights that let every part matter.
Run as a script it prints the table of docs/conversion.md."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import skimage.data
import timm
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.models.vgg import make_layers

import shconv

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A network by its name; kernels: which squares are converted, side: of the images in pixels."""

    name: str
    make: Callable[[], nn.Module]
    kernels: tuple[int, ...] = (3,)
    side: int = 64
    slow: bool = False

    @property
    def where(self) -> list[Any]:
        return list(self.kernels)


def _vgg() -> nn.Module:
    features = make_layers([32, "M", 64, "M", 128, 128, "M"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES))


def _torchvision() -> Iterator[Case]:
    case = partial(_of, "torchvision", lambda name: partial(tv.get_model, name, weights=None, num_classes=CLASSES))
    small = partial(tv.ResNet, Bottleneck, [1, 1, 1, 1], num_classes=CLASSES)
    yield Case("torchvision WideResNet-14-2", partial(small, width_per_group=128))
    yield Case("torchvision ResNeXt-14 32x4d", partial(small, groups=32, width_per_group=4))
    yield Case("torchvision ResNet-14, dilated", partial(small, replace_stride_with_dilation=[False, True, True]))
    yield Case("torchvision DenseNet-22", partial(tv.DenseNet, 16, (2, 2, 2, 2), 32, num_classes=CLASSES))
    yield Case("torchvision VGG with batch norm, 4 layers", _vgg)
    for name in ("mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5", "squeezenet1_1", "resnet18"):
        yield case(name)
    yield Case("torchvision googlenet", partial(tv.googlenet, num_classes=CLASSES, init_weights=False))
    inception = partial(tv.inception_v3, num_classes=CLASSES, init_weights=False, aux_logits=False)
    yield Case("torchvision inception_v3", inception, side=80, slow=True)
    for name in ("mobilenet_v2", "resnet50", "densenet121", "regnet_x_400mf", "regnet_y_400mf", "mobilenet_v3_large"):
        yield case(name, slow=True)
    yield case("efficientnet_b0", (3, 5), slow=True)


def _timm() -> Iterator[Case]:
    case = partial(_of, "timm", lambda name: partial(timm.create_model, name, num_classes=CLASSES))
    for name in (
        "resnet10t", "test_resnet", "test_byobnet", "test_efficientnet", "mobilenetv2_050", "mobilenetv3_small_050",
        "mobilenetv4_conv_small_050", "tf_mobilenetv3_small_minimal_100", "regnetx_002", "regnety_002", "test_nfnet",
        "dla46_c", "ese_vovnet19b_slim", "semnasnet_075", "tinynet_e", "lcnet_050", "fbnetc_100", "mobilevit_xxs",
        "starnet_s1", "inception_next_atto", "rexnet_100", "seresnet18", "repvgg_a0", "test_mambaout", "ghostnet_050",
    ):  # fmt: skip
        yield case(name)
    for name in ("test_convnext", "convnext_atto", "convnextv2_atto"):
        yield case(name, (7,))
    yield case("edgenext_xx_small", (3, 5, 7, 9))
    for name in ("tf_efficientnet_lite0", "efficientnet_lite0"):
        yield case(name, (3, 5))
    yield case("mixnet_s", (3, 5, 7, 9), slow=True)
    for name in (
        "nf_regnet_b0", "resnetv2_50x1_bit", "resnext26ts", "skresnet18", "res2next50", "hrnet_w18_small", "dpn48b",
        "cspresnet50", "selecsls42", "darknet17", "gernet_s", "efficientnet_cc_b0_4e", "mobileone_s0",
        "wide_resnet50_2",
    ):  # fmt: skip
        yield case(name, slow=True)
    yield case("vgg11_bn", slow=True)


def _of(
    library: str, make: Callable[[str], Any], name: str, kernels: tuple[int, ...] = (3,), slow: bool = False
) -> Case:
    return Case(f"{library} {name}", make(name), kernels, slow=slow)


# Small enough, but others that are tested each time hold the same kinds of layers.
ALIKE = {
    "torchvision WideResNet-14-2", "torchvision mnasnet0_5", "torchvision resnet18", "torchvision googlenet",
    "timm resnet10t", "timm mobilenetv2_050", "timm mobilenetv3_small_050", "timm mobilenetv4_conv_small_050",
    "timm regnety_002", "timm semnasnet_075", "timm tinynet_e", "timm fbnetc_100", "timm rexnet_100",
    "timm seresnet18", "timm convnext_atto", "timm convnextv2_atto", "timm efficientnet_lite0",
}  # fmt: skip
CASES = [replace(case, slow=case.slow or case.name in ALIKE) for case in (*_torchvision(), *_timm())]


def photographs(side: int) -> Tensor:
    """The middle square of three photographs, and their mirror images: (6, 3, side, side) in [0, 1]."""
    images = []
    for name in PHOTOGRAPHS:
        pixels = torch.from_numpy(getattr(skimage.data, name)()[..., :3].copy()).permute(2, 0, 1)[None] / 255
        edge = min(pixels.shape[2:])
        top, left = ((size - edge) // 2 for size in pixels.shape[2:])
        square = pixels[:, :, top : top + edge, left : left + edge]
        images.append(F.interpolate(square, (side, side), mode="area"))
    once = torch.cat(images)
    return torch.cat([once, once.flip(3)])


@torch.no_grad()
def trained_in_a_way(case: Case) -> nn.Module:
    """The network at random weights, in eval mode: scales and shifts of their own, running statistics of real images.

    Untrained networks often hide their convolutions behind a scale of 1e-6 or a classifier that is all bias.
    """
    net = case.make()
    for name, parameter in net.named_parameters():
        if parameter.numel() == max(parameter.shape, default=1):
            nn.init.normal_(parameter, 0, 0.1) if name.endswith("bias") else nn.init.uniform_(parameter, 0.5, 1.5)
    for module in net.modules():
        if hasattr(module, "running_var"):
            module.momentum = None  # the average of what it has seen
    net.train()(photographs(case.side))
    return net.eval()


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two networks' logits, in units of the largest logit."""
    return float((found - expected).abs().max() / expected.abs().max())


def main() -> None:
    print("| network | converted kernels | SHC layers | parameters | growth | difference |\n|---|---|---|---|---|---|")
    for case in CASES:
        torch.manual_seed(0)
        net = trained_in_a_way(case)
        converted = shconv.to_shc(net, where=case.where)
        report = shconv.conversion_report(converted)
        with torch.no_grad():
            x = photographs(case.side)[:3]
            error = difference(converted(x), net(x))
        layers = f"{sum(row.converted for row in report.rows)} of {len(report.rows)}"
        kernels = ", ".join(f"{size}x{size}" for size in case.kernels)
        row = (case.name, kernels, layers, f"{report.before / 1e6:.2f} M", f"{report.growth:+.1%}", f"{error:.0e}")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
