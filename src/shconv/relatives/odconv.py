"""ODConv's spatial attention (Li, Zhou, Yao 2022), alone of its four: the image's mean weights the taps of the kernel.
SHC's nearest relative; it differs in what the network sees (no standard deviation) and in its hidden layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.ops import filtered_conv2d
from shconv.relatives.base import Relative, at_least, pooled


class SpatialAttentionConv2d(Relative):
    """A Conv2d with the kernel W * a(x), with a = sigmoid(W2 ReLU(W1 mean(x) + b1) + b2): one number for each tap.

    Args:
        reduction: r; there are in_channels // r hidden features, at least 16, as in the authors' code.
    """

    suffix = "odconv_spatial"
    source = "Li, Zhou, Yao 2022: ODConv, its spatial attention"

    def extend(self, reduction: int = 16) -> None:
        at_least(1, reduction=reduction)
        weight, features = self.weight, max(16, self.in_channels // reduction)
        taps = self.kernel_size[0] * self.kernel_size[1]
        self.hidden = nn.Linear(self.in_channels, features, device=weight.device, dtype=weight.dtype)
        self.output = nn.Linear(features, taps, device=weight.device, dtype=weight.dtype)

    def attention(self, x: Tensor) -> Tensor:
        """a (N, S_h, S_w)."""
        a = torch.sigmoid(self.output(F.relu(self.hidden(pooled(x)))))
        return a.view(len(x), *self.kernel_size)

    def convolved(self, x: Tensor) -> Tensor:
        a = self.attention(x)
        X, padding = self.padded(x)
        return filtered_conv2d(X, self.weight, a, self.bias, self.stride, padding, self.dilation, self.groups)  # type: ignore[arg-type]
