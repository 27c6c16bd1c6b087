"""A classifier with a second, small network on one of its layers that says whether an image was attacked (Metzen et al.
2017), and how to attack the two together (Carlini and Wagner 2017)."""

import torch
from torch import Tensor, nn

from shconv.errors import InputError


class DetectorNetwork(nn.Module):
    """Images (N, C, H, W) in [0, 1] -> the classifier's logits (N, K); in train mode (N, K + 1), the detector's last.

    `score` is the detector's logit alone, higher for an attacked image, and an image whose score is above `threshold`
    is rejected. A classifier whose parameters are frozen stays in eval mode. Its layer, by name, must give feature maps
    (N, C', H', W'). Raises InputError for another layer.

    The detector: three 3x3 convolutions of C', 2 C' and 2 C' channels with batch norm and ReLU, the first two followed
    by a 2x2 max pool, then a 1x1 convolution to one channel and its mean, the logit.
    """

    threshold: Tensor

    def __init__(self, network: nn.Module, layer: str = "layer2") -> None:
        super().__init__()
        self.network, self.layer = network, layer
        C = self._channels()
        self.detector = nn.Sequential(
            *_convolution(C, C),
            nn.MaxPool2d(2, ceil_mode=True),
            *_convolution(C, 2 * C),
            nn.MaxPool2d(2, ceil_mode=True),
            *_convolution(2 * C, 2 * C),
            nn.Conv2d(2 * C, 1, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(0),
        )
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            logits: Tensor = self.network(x)
            return logits
        logits, score = self.both(x)
        return torch.cat([logits, score[:, None]], 1)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The classifier's logits (N, K) and the detector's (N,), both in one pass."""
        kept: list[Tensor] = []
        with self.network.get_submodule(self.layer).register_forward_hook(lambda *call: kept.append(call[2])):
            logits: Tensor = self.network(x)
        score: Tensor = self.detector(kept[-1])
        return logits, score

    def score(self, x: Tensor) -> Tensor:
        """The detector's logit (N,): above `threshold` the image is rejected."""
        return self.both(x)[1]

    def joint(self, x: Tensor, y: int) -> Tensor:
        """Logits (N, K) in which images of the class y are misclassified where the classifier takes them for another
        class and the detector does not reject them, and nowhere else: so any attack on them fools both.

        Carlini and Wagner's further class "rejected" would do for attacks that aim at a class. Here it is part of the
        true class: z_y becomes max(z_y, m + score - threshold), with m the highest of the other logits.
        """
        logits, score = self.both(x)
        others = logits.clone()
        others[:, y] = -torch.inf
        rejected = others.amax(1) + (score - self.threshold).to(logits.dtype)
        return others.index_copy(1, torch.tensor([y], device=x.device), logits[:, y].maximum(rejected)[:, None])

    def train(self, mode: bool = True) -> "DetectorNetwork":
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.network.parameters()):
            self.network.eval()
        return self

    def extra_repr(self) -> str:
        return f"layer={self.layer!r}"

    def _channels(self) -> int:
        """Of the layer's feature maps: those of the last convolution or batch norm in it."""
        parts = dict(self.network.named_modules())
        found = [C for each in parts.get(self.layer, nn.Module()).modules() if (C := _outputs(each)) is not None]
        if not self.layer or not found:
            names = ", ".join(name for name, part in parts.items() if name and "." not in name and _gives_maps(part))
            raise InputError(f"the network has no layer {self.layer!r} that gives feature maps; it has {names}")
        return found[-1]


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.BatchNorm2d):
        return module.num_features
    return module.out_channels if isinstance(module, nn.Conv2d) else None


def _gives_maps(module: nn.Module) -> bool:
    return any(_outputs(each) is not None for each in module.modules())


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
