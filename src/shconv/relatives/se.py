"""Squeeze-and-Excitation (Hu, Shen, Sun 2018) behind a convolution: the image's mean decides how much each output
channel counts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.relatives.base import Relative, at_least, pooled


class SEConv2d(Relative):
    """Y = U * sigmoid(W2 ReLU(W1 mean(U) + b1) + b2), channel by channel, for the convolution's output U.

    Args:
        reduction: r; there are out_channels // r hidden features, at least 8 (as in timm).
    """

    suffix = "se"
    source = "Hu, Shen, Sun 2018: Squeeze-and-Excitation"

    def extend(self, reduction: int = 16) -> None:
        at_least(1, reduction=reduction)
        weight, features = self.weight, max(8, self.out_channels // reduction)
        self.hidden = nn.Linear(self.out_channels, features, device=weight.device, dtype=weight.dtype)
        self.output = nn.Linear(features, self.out_channels, device=weight.device, dtype=weight.dtype)

    def convolved(self, x: Tensor) -> Tensor:
        U = self.convolve(x, self.weight)
        gate = torch.sigmoid(self.output(F.relu(self.hidden(pooled(U)))))
        return U * gate[:, :, None, None]
