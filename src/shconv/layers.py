"""Statistical Hyper-Convolution (section 2.2 of the paper): channel statistics, the hypernetwork T, the layer SHConv2d.
M = T([mu, sigma]),  H = W * M,  Y = conv(X, H): one map M for each image, shared by all of the layer's sub-kernels."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.ops import filtered_conv2d, hypernetwork
from shconv.ops.geometry import IntOrPair
from shconv.ops.statistics import channel_mean_variance
from shconv.routes import Routes, scale_gradient

Statistic = Literal["mean", "std"]


def channel_statistics(x: Tensor, statistics: tuple[Statistic, ...] = ("mean", "std"), eps: float = 1e-5) -> Tensor:
    """[mu, sigma] of every channel over its image's pixels: x (N, D, H, W) -> (N, D * len(statistics)).

    sigma = sqrt(population variance + eps), which has a gradient on a constant channel too (eps is ours, not the
    paper's). Computed in float32 at least.
    """
    mu, sigma_squared = channel_mean_variance(x)  # (N, D) each
    values = {"mean": mu, "std": (sigma_squared + eps).sqrt()}
    return torch.cat([values[name] for name in statistics], dim=1)


class Hypernetwork(nn.Module):
    """T_theta: Linear - ReLU - Linear - sigmoid, from an image's channel statistics to its filter map (section 2.2).

    D // 2 hidden neurons (at least 1) unless hidden_features says otherwise.
    forward: (N, D, H, W) -> M (N, S_h, S_w) in (0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: tuple[int, int],
        hidden_features: int | None = None,
        eps: float = 1e-5,
        statistics: tuple[Statistic, ...] = ("mean", "std"),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not statistics or len(set(statistics)) != len(statistics) or not set(statistics) <= {"mean", "std"}:
            raise InputError(f'statistics must name "mean", "std" or both, each once, got {statistics!r}')
        if hidden_features is None:
            hidden_features = max(1, in_channels // 2)
        if hidden_features < 1:
            raise InputError(f"hidden_features must be at least 1, got {hidden_features}")
        if eps < 0:
            raise InputError(f"eps must be at least 0, got {eps}")
        self.kernel_size, self.eps, self.statistics = kernel_size, eps, tuple(statistics)
        self.hidden = nn.Linear(len(statistics) * in_channels, hidden_features, device=device, dtype=dtype)
        self.output = nn.Linear(hidden_features, kernel_size[0] * kernel_size[1], device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        if hypernetwork.fused(x):  # what stands below, in one op
            M = hypernetwork.filter_map(x, self.hidden, self.output, self.statistics, self.eps)
            return M.view(-1, *self.kernel_size)
        with torch.autocast(x.device.type, enabled=False):
            s = channel_statistics(x, self.statistics, self.eps)
            hidden = F.relu(_linear(self.hidden, s))
            M = torch.sigmoid(_linear(self.output, hidden))
        return M.view(-1, *self.kernel_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, statistics={self.statistics}, eps={self.eps}"


class SHConv2d(nn.Conv2d):
    """Statistical Hyper-Convolution: a Conv2d whose kernel is filtered, image by image, by its input's statistics.

    Takes nn.Conv2d's arguments and loads its weights (only `hyper.*` is missing). The statistics are those of the
    layer's input before padding; with groups they still run over all input channels and there is one map. An image's
    output does not depend on the other images of its batch.

    Args (beyond nn.Conv2d's):
        hidden_features: neurons in the hypernetwork's hidden layer; the paper's in_channels // 2, at least 1, if None.
        eps: added to the variance before the square root.
        statistics: what the hypernetwork sees; ("mean", "std") in the paper, one alone for ablations.

    Attributes:
        hyper: the hypernetwork T; its parameters take part in the optimiser's weight decay like any other.

    Shapes: (N, in_channels, H, W) or (in_channels, H, W) -> (N, out_channels, H', W') or (out_channels, H', W').
    """

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
        *,
        hidden_features: int | None = None,
        eps: float = 1e-5,
        statistics: tuple[Statistic, ...] = ("mean", "std"),
    ) -> None:
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, **place
        )
        size = (self.kernel_size[0], self.kernel_size[1])
        self.hyper = Hypernetwork(in_channels, size, hidden_features, eps, statistics, **place)
        self.routes = Routes()

    def filter_map(self, x: Tensor) -> Tensor:
        """M (N, S_h, S_w) that the hypernetwork computes for x (N, D, H, W)."""
        M: Tensor = self.hyper(x)
        return M

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            raise InputError(f"SHConv2d wants (N, {self.in_channels}, H, W), got {tuple(x.shape)}")
        return self._filtered(x) if x.dim() == 4 else self._filtered(x[None])[0]

    def _filtered(self, x: Tensor) -> Tensor:
        routes = self.routes
        M = self.filter_map(scale_gradient(x, routes.hypernetwork)) if routes.frozen is None else routes.frozen(x)
        if routes.recorder is not None:
            routes.recorder(M.detach())
        X = scale_gradient(x, routes.convolution)
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            X, padding = F.pad(X, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        stride: Any = self.stride
        dilation: Any = self.dilation
        return filtered_conv2d(X, self.weight, M, self.bias, stride, padding, dilation, self.groups)


def _linear(layer: nn.Linear, s: Tensor) -> Tensor:
    weight, bias = layer.weight.to(s.dtype), layer.bias.to(s.dtype)
    return F.linear(s, weight, bias)
