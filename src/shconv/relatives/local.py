"""Dynamic Filter Networks, dynamic local filtering (Jia, De Brabandere, Tuytelaars, Van Gool 2016, section 3.2): the
filter changes from place to place within an image."""

import torch.nn.functional as F
from torch import Tensor, nn

from shconv.relatives.base import Relative, at_least


class LocalConv2d(Relative):
    """A Conv2d with a kernel of its own at each place p of the output: K(x, p) = W * (1 + L(x, p)), tap by tap.

    L (N, S_h, S_w) at every p is the generated filter, made by a convolution of the layer's own geometry, ReLU and a
    1x1 convolution. As in the paper all channels are filtered alike, and W then mixes them. It begins small: the last
    convolution's weight and bias are 0, so that the layer starts as nn.Conv2d with the weight W.

    Args:
        hidden_features: of the generating network; in_channels // 16, at least 4, if None.
    """

    suffix = "dfn_local"
    source = "Jia, De Brabandere, Tuytelaars, Van Gool 2016: Dynamic Filter Networks, local filtering"

    def extend(self, hidden_features: int | None = None) -> None:
        features = max(4, self.in_channels // 16) if hidden_features is None else hidden_features
        at_least(1, hidden_features=features)
        weight, taps = self.weight, self.kernel_size[0] * self.kernel_size[1]
        geometry = (self.kernel_size, self.stride, 0, self.dilation)
        self.hidden = nn.Conv2d(self.in_channels, features, *geometry, device=weight.device, dtype=weight.dtype)  # type: ignore[arg-type]
        self.output = nn.Conv2d(features, taps, 1, device=weight.device, dtype=weight.dtype)
        self._start_as_a_convolution()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if "output" in self._modules:
            self._start_as_a_convolution()

    def _start_as_a_convolution(self) -> None:
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def convolved(self, x: Tensor) -> Tensor:
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        filters = 1 + self.output(F.relu(self.hidden(x)))  # (N, taps, H', W')
        N, taps, *size = filters.shape
        patches = F.unfold(x, self.kernel_size, self.dilation, stride=self.stride)
        places = patches.shape[-1]
        patches = patches.view(N, self.in_channels, taps, places) * filters.reshape(N, 1, taps, places)
        patches = patches.view(N, self.groups, self.in_channels // self.groups * taps, places)
        kernel = self.weight.reshape(self.groups, self.out_channels // self.groups, -1)
        Y: Tensor = (kernel @ patches).reshape(N, self.out_channels, *size)
        return Y if self.bias is None else Y + self.bias[:, None, None].to(Y.dtype)

    def extra_macs(self, x: Tensor, Y: Tensor) -> int:
        places = len(Y) * Y[0, 0].numel()
        return places * (self.hidden.weight.numel() + self.output.weight.numel())
