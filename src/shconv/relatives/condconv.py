"""CondConv (Yang, Bender, Le, Ngiam 2019): the kernel of an image is a mixture of several kernels, weighted by the
image's mean."""

import torch
from torch import Tensor, nn

from shconv.relatives.base import Relative, at_least, drawn, pooled


class CondConv2d(Relative):
    """A Conv2d with the kernel K(x) = sum over e of r_e(x) W_e, with r = sigmoid(R mean(x) + c).

    `experts` (E, C * D / groups * S_h * S_w) holds a kernel in each row: the first starts as nn.Conv2d's weight, the
    others are drawn as large. The bias is one for all experts.

    Args:
        experts: how many kernels there are, 8 in the paper's networks; 4 by default.
    """

    suffix = "condconv"
    source = "Yang, Bender, Le, Ngiam 2019: CondConv"

    def extend(self, experts: int = 4) -> None:
        at_least(1, experts=experts)
        weight = self.weight
        self.routing = nn.Linear(self.in_channels, experts, device=weight.device, dtype=weight.dtype)
        self.experts = nn.Parameter(weight.new_empty(experts, weight.numel()))
        with torch.no_grad():
            self.experts[0].copy_(weight.flatten())
            self.experts[1:].copy_(drawn(self.experts[1:], weight))
        del self.weight
        self.register_parameter("weight", None)

    def reset_parameters(self) -> None:
        if "experts" not in self._parameters:  # a convolution so far
            super().reset_parameters()
            return
        for each in self.experts.detach():
            nn.init.kaiming_uniform_(each.view(self.kernel_shape), a=5**0.5)
        self.reset_bias()

    def kernels(self, x: Tensor) -> Tensor:
        """(N, C, D / groups, S_h, S_w): the kernel of each image."""
        r = torch.sigmoid(self.routing(pooled(x)))
        return (r @ self.experts).view(len(x), *self.kernel_shape)

    def convolved(self, x: Tensor) -> Tensor:
        return self.convolve_each(x, self.kernels(x))

    def extra_macs(self, x: Tensor, Y: Tensor) -> int:
        return super().extra_macs(x, Y) + len(x) * self.experts.numel()
