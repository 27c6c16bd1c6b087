"""What the relatives share: nn.Conv2d's arguments, the check of the input, padding, and a convolution with a kernel of
its own for each image. A relative is a file with one class: what it adds (`extend`) and computes (`convolved`)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.ops.geometry import IntOrPair
from shconv.tracing import as_leaf, traced


class Relative(nn.Conv2d):
    """A Conv2d whose kernel or output is made from something else than a weight alone.

    Takes nn.Conv2d's arguments, then the options of `extend`. Where the kernel is made, `weight` is None.
    An image's output does not depend on the other images of its batch.

    Attributes:
        suffix: of a network's name: create_model("plain10_se") has the layer whose suffix is "se".
        source: the paper.

    Parameters of an extension have at most 4 dimensions, as torch's channels-last layout knows no others.

    Shapes: (N, in_channels, H, W) or (in_channels, H, W) -> (N, out_channels, H', W') or (out_channels, H', W').
    """

    suffix: ClassVar[str]
    source: ClassVar[str]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: str | IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, **place
        )
        self.extend(**options)

    def extend(self) -> None:
        """Give a layer that is a convolution so far what makes it a relative, beside its weight and on its device."""
        raise NotImplementedError

    def convolved(self, x: Tensor) -> Tensor:
        """The output for a batch x (N, in_channels, H, W)."""
        raise NotImplementedError

    def extra_macs(self, x: Tensor, Y: Tensor) -> int:
        """Multiply-accumulates of one call x -> Y beyond those of the convolution, here of the linear layers;
        elementwise work counts none."""
        return len(x) * sum(each.weight.numel() for each in self.modules() if isinstance(each, nn.Linear))

    @classmethod
    def options_for(cls, convolutions: Sequence[nn.Conv2d], options: dict[str, Any]) -> list[dict[str, Any]]:
        """The options of each layer of a network that is converted: the same, unless the layers share something."""
        return [options] * len(convolutions)

    def macs(self, x: Tensor, Y: Tensor) -> int:
        """Multiply-accumulates of one call x (N, D, H, W) -> Y."""
        taps = self.kernel_size[0] * self.kernel_size[1]
        return Y.numel() * self.in_channels // self.groups * taps + self.extra_macs(x, Y)

    def forward(self, x: Tensor) -> Tensor:
        if traced(x):
            return as_leaf(self, x)
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            raise InputError(f"{type(self).__name__} wants (N, {self.in_channels}, H, W), got {tuple(x.shape)}")
        return self.convolved(x) if x.dim() == 4 else self.convolved(x[None])[0]

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """(C, D / groups, S_h, S_w): of a Conv2d's weight."""
        height, width = self.kernel_size
        return self.out_channels, self.in_channels // self.groups, height, width

    def reset_bias(self) -> None:
        """Draw the bias as nn.Conv2d does."""
        if self.bias is not None:
            bound = (self.kernel_shape[1] * self.kernel_shape[2] * self.kernel_shape[3]) ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def padded(self, x: Tensor) -> tuple[Tensor, Any]:
        """x, padded where a convolution cannot do it, and the padding that is left to do."""
        if self.padding_mode != "zeros":
            return F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        return x, self.padding

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Convolve all images with one kernel (C, D / groups, S_h, S_w)."""
        x, padding = self.padded(x)
        return F.conv2d(x, kernel, self.bias, self.stride, padding, self.dilation, self.groups)

    def convolve_each(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Convolve x[n] of (N, D, H, W) with kernels[n] of (N, C, D / groups, S_h, S_w): as groups of one image."""
        if not (N := len(x)):
            return self.convolve(x, kernels.sum(0))
        x, padding = self.padded(x)
        one = x.reshape(1, N * x.shape[1], *x.shape[2:])
        Y = F.conv2d(one, kernels.flatten(0, 1), None, self.stride, padding, self.dilation, N * self.groups)
        Y = Y.view(N, self.out_channels, *Y.shape[2:])
        return Y if self.bias is None else Y + self.bias[:, None, None].to(Y.dtype)


def pooled(x: Tensor) -> Tensor:
    """The mean of every channel: (N, D, H, W) -> (N, D)."""
    return x.mean((2, 3))


@torch.no_grad()
def drawn(into: Tensor, kernel: Tensor, scale: float = 1.0) -> Tensor:
    """Normal numbers of `into`'s shape in the place of a kernel: their root mean square is its, times the scale."""
    if into.is_meta:  # there is nothing to draw, and its arithmetic would bring in torch's compiler, for seconds
        return into
    return torch.randn_like(into) * kernel.square().mean().sqrt() * scale


def at_least(least: int, **values: int) -> None:
    """Raise InputError for an option that is below what makes sense."""
    for name, value in values.items():
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
