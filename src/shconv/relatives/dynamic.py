"""Dynamic Filter Networks, dynamic convolution (Jia, De Brabandere, Tuytelaars, Van Gool 2016, section 3.2): a
filter-generating network makes the whole kernel from the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.relatives.base import Relative, at_least, drawn, pooled


class DynamicConv2d(Relative):
    """A Conv2d with a kernel of its own for each image: K(x) = W + sum over j of h_j(x) F_j.

    h = ReLU(V mean(x) + c) is the generating network's hidden layer, F its last layer's weight and W that layer's bias.
    So W is nn.Conv2d's weight, and `filters` has a row as long for every j. It is drawn so
    that for h = 1 the sum is as large as W.

    Args:
        hidden_features: of the generating network. Each costs as many parameters as the kernel has: 4 by default.
    """

    suffix = "dfn"
    source = "Jia, De Brabandere, Tuytelaars, Van Gool 2016: Dynamic Filter Networks"

    def extend(self, hidden_features: int = 4) -> None:
        at_least(1, hidden_features=hidden_features)
        weight = self.weight
        self.hidden = nn.Linear(self.in_channels, hidden_features, device=weight.device, dtype=weight.dtype)
        self.filters = nn.Parameter(weight.new_empty(hidden_features, weight.numel()))
        self._draw()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if "filters" in self._parameters:
            self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        self.filters.copy_(drawn(self.filters, self.weight, len(self.filters) ** -0.5))

    def kernels(self, x: Tensor) -> Tensor:
        """(N, C, D / groups, S_h, S_w): the kernel of each image."""
        h = F.relu(self.hidden(pooled(x)))
        return self.weight + (h @ self.filters).view(len(x), *self.kernel_shape)

    def convolved(self, x: Tensor) -> Tensor:
        return self.convolve_each(x, self.kernels(x))

    def extra_macs(self, x: Tensor, Y: Tensor) -> int:
        return super().extra_macs(x, Y) + len(x) * self.filters.numel()
