"""timm's own convolutions as SHC layers: TensorFlow's "same" padding, which depends on the input, and standardised
kernels. They are known by name, so that timm need not be there."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from shconv.layers import SHConv2d


class SameSHConv2d(SHConv2d):
    """timm's Conv2dSame: ceil(H / stride) outputs, the odd padded row or column below and to the right."""

    def padded(self, x: Tensor) -> tuple[Tensor, Any]:
        pads: list[int] = []
        for axis in (1, 0):  # F.pad begins with the last dimension
            size, stride = x.shape[2 + axis], self.stride[axis]
            reach = (-(-size // stride) - 1) * stride + self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            total = max(0, reach - size)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads), 0


class StandardizedSHConv2d(SameSHConv2d):
    """timm's StdConv2d and ScaledStdConv2d: what is filtered is the weight with mean 0 and variance 1 for every output
    channel (Qiao et al. 2019), in the latter times gain / sqrt(fan in) (Brock et al. 2021)."""

    eps: float
    scale: float
    gain: Tensor

    def kernel(self) -> Tensor:
        W = self.weight.flatten(1)[None]  # (1, C, D / groups * S_h * S_w), as a batch of one image
        gain = (self.gain * self.scale).flatten() if hasattr(self, "gain") else None
        return F.batch_norm(W, None, None, weight=gain, training=True, momentum=0.0, eps=self.eps).view_as(self.weight)

    def padded(self, x: Tensor) -> tuple[Tensor, Any]:
        return super().padded(x) if getattr(self, "same_pad", False) else (x, self.padding)


TIMM_LAYERS: dict[str, type[SHConv2d]] = {
    "Conv2dSame": SameSHConv2d,
    "StdConv2d": StandardizedSHConv2d,
    "StdConv2dSame": StandardizedSHConv2d,
    "ScaledStdConv2d": StandardizedSHConv2d,
    "ScaledStdConv2dSame": StandardizedSHConv2d,
}
