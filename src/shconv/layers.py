"""Statistical Hyper-Convolution (section 2.2 of the paper): channel statistics, the hypernetwork T, the layer SHConv2d.
M = T([mu, sigma]),  H = W * M,  Y = conv(X, H): one map M for each image, shared by all of the layer's sub-kernels."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv import variants
from shconv.arguments import checked
from shconv.errors import InputError
from shconv.ops import filtered_conv2d, hypernetwork, layer
from shconv.ops.geometry import Geometry, IntOrPair
from shconv.ops.hypernetwork import Theta
from shconv.ops.statistics import channel_mean_variance
from shconv.routes import Routes, in_force, scale_gradient
from shconv.tracing import as_leaf, traced
from shconv.untouched import plain_linear, untouched
from shconv.variants import Activation, Statistic

_ORDERS: dict[tuple[Statistic, ...], tuple[int, ...]] = {
    ("mean", "std"): (0, 1), ("std", "mean"): (1, 0), ("mean",): (0,), ("std",): (1,),
}  # fmt: skip


def channel_statistics(x: Tensor, statistics: tuple[Statistic, ...] = ("mean", "std"), eps: float = 1e-5) -> Tensor:
    """[mu, sigma] of every channel over its image's pixels: x (N, D, H, W) -> (N, D * len(statistics)).

    sigma = sqrt(population variance + eps), which has a gradient on a constant channel too (eps is ours, not the
    paper's). Computed in float32 at least. For studies: "max", "min", "skew" and "kurtosis" (the mean of the third and
    of the fourth power of (x - mu) / sigma), and functions (N, D, H, W) -> (N, D).
    """
    mu, sigma_squared = channel_mean_variance(x)  # (N, D) each
    sigma = (sigma_squared + eps).sqrt()
    return torch.cat([variants.statistic(each, x, mu, sigma) for each in statistics], dim=1)


class Hypernetwork(nn.Module):
    """T_theta: Linear - ReLU - Linear - sigmoid, from an image's channel statistics to its filter map (section 2.2).

    D // 2 hidden neurons (at least 1) unless hidden_features says otherwise. The other options are SHConv2d's.
    forward: (N, D, H, W) -> M (N, S_h, S_w) in (0, 1); with map_groups G > 1 (N, G, S_h, S_w).

    Any module from x to such maps can take its place: `layer.hyper = module`.
    """

    gain: Tensor | None

    @checked
    def __init__(
        self,
        in_channels: int,
        kernel_size: tuple[int, int],
        hidden_features: int | None = None,
        eps: float = 1e-5,
        statistics: tuple[Statistic, ...] = ("mean", "std"),
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Activation = "sigmoid",
        map_groups: int = 1,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        variants.check_statistics(statistics)
        variants.check_activation(activation)
        if hidden_features is None:
            hidden_features = max(1, in_channels // 2)
        if hidden_features < 1:
            raise InputError(f"hidden_features must be at least 1, got {hidden_features}")
        if not eps >= 0:
            raise InputError(f"eps must be at least 0, got {eps}")
        self.kernel_size, self.eps, self.statistics = kernel_size, eps, tuple(statistics)
        self.activation, self.map_groups = activation, map_groups
        self.map_size = kernel_size if map_groups == 1 else (map_groups, *kernel_size)
        taps = kernel_size[0] * kernel_size[1]
        self.hidden = nn.Linear(len(statistics) * in_channels, hidden_features, device=device, dtype=dtype)
        self.output = nn.Linear(hidden_features, map_groups * taps, device=device, dtype=dtype)
        self._gain = gain
        self.register_buffer("gain", None if gain is None else torch.tensor(float(gain), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Give the gain the value it was made with, for networks whose tensors were made anew (meta devices, FSDP);
        the two linear layers have a reset_parameters of their own."""
        if self.gain is not None and self._gain is not None:
            self.gain.fill_(self._gain)

    def forward(self, x: Tensor) -> Tensor:
        if traced(x):
            return as_leaf(self, x)
        if hypernetwork.fused(x) and (theta := self.theta()) is not None:  # what stands below, in one op
            M = hypernetwork.filter_map(x, theta, self.order or (), self.eps)
            return self._scaled(M.unflatten(-1, self.map_size))
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # it knows no meta device
            return self.maps(channel_statistics(x, self.statistics, self.eps))

    def maps(self, s: Tensor) -> Tensor:
        """T(s) for statistics s (N, D * len(statistics))."""
        z = _linear(self.output, F.relu(_linear(self.hidden, s)))
        return self._scaled(variants.activate(self.activation, z.unflatten(-1, self.map_size)))

    @property
    def order(self) -> tuple[int, ...] | None:
        """What the first layer looks at, 0 for mu and 1 for sigma; None where maps are made in another way."""
        own = type(self).maps is not Hypernetwork.maps or "maps" in self.__dict__
        return None if own or self.activation != "sigmoid" else _ORDERS.get(tuple(self.statistics))

    def theta(self) -> Theta | None:
        """The parameters, where both linear layers are torch's own and as torch makes them, and the rest is the
        paper's: an op may then take the tensors. None where the modules have to be called."""
        first, second = self._modules.get("hidden"), self._modules.get("output")
        if self.order is None or not (plain_linear(first) and plain_linear(second)):
            return None
        hidden, output = first._parameters, second._parameters
        W1, b1, W2, b2 = hidden["weight"], hidden["bias"], output["weight"], output["bias"]
        return None if W1 is None or b1 is None or W2 is None or b2 is None else (W1, b1, W2, b2)

    def _scaled(self, M: Tensor) -> Tensor:
        return M if self.gain is None else M * self.gain.to(M.dtype)

    def extra_repr(self) -> str:
        paper = f"kernel_size={self.kernel_size}, statistics={self.statistics}, eps={self.eps}"
        other = {"activation": "sigmoid", "map_groups": 1}
        changed = [f"{name}={getattr(self, name)}" for name, usual in other.items() if getattr(self, name) != usual]
        return ", ".join([paper, *changed])


class SHConv2d(nn.Conv2d):
    """Statistical Hyper-Convolution: a Conv2d whose kernel is filtered for each image by the input's statistics.

    It accepts nn.Conv2d's arguments, then those below. It can load nn.Conv2d's weights; only `hyper.*` is missing then.
    The statistics are those of the layer's input before padding. With groups they still use all input channels, and
    there is one map. An image's output does not depend on the other images of its batch.

    Example:
        ```python
        layer = shconv.SHConv2d(16, 32, kernel_size=3, padding=1)
        y = layer(torch.rand(4, 16, 8, 8))  # (4, 32, 8, 8)
        ```

    Args:
        hidden_features: neurons in the hypernetwork's hidden layer. None: the paper's in_channels // 2, at least 1.
        eps: added to the variance before the square root.
        statistics: the input of the hypernetwork; ("mean", "std") in the paper, one alone for ablations, others for
            studies (see channel_statistics).
        activation: makes the map from the last layer's z: "sigmoid" in the paper, "softplus", "identity+1" (1 + z), or
            a function of z that keeps its shape.
        map_groups: G maps, each for D / G neighbouring input channels; 1 in the paper. Costs G filtered convolutions.
        gain: a constant factor, M = gain * activation(z); none in the paper. An identity start needs it if the weight
            cannot be doubled.

    Attributes:
        hyper: the hypernetwork T. Its parameters have the optimiser's weight decay like all others.
        vanilla_class: the class that shconv.to_vanilla gives the layer.

    Sub-classes may override `kernel()`, which returns what the map filters, and `padded(x)`.

    Shapes: (N, in_channels, H, W) or (in_channels, H, W) -> (N, out_channels, H', W') or (out_channels, H', W').
    """

    vanilla_class: type[nn.Conv2d] = nn.Conv2d

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
        activation: Activation = "sigmoid",
        map_groups: int = 1,
        gain: float | None = None,
    ) -> None:
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, **place
        )
        options = {"hidden_features": hidden_features, "eps": eps, "statistics": statistics}
        self.add_hypernetwork(**options, activation=activation, map_groups=map_groups, gain=gain, **place)

    def add_hypernetwork(self, map_groups: int = 1, **options: Any) -> None:
        """Give a layer that is a convolution so far its hypernetwork; options as in Hypernetwork."""
        variants.check_map_groups(map_groups, self.in_channels, self.groups)
        size = (self.kernel_size[0], self.kernel_size[1])
        self.hyper = Hypernetwork(self.in_channels, size, map_groups=map_groups, **options)
        self.routes = Routes()

    def filter_map(self, x: Tensor) -> Tensor:
        """M (N, S_h, S_w) that the hypernetwork computes for x (N, D, H, W)."""
        M: Tensor = self.hyper(x)
        return M

    def forward(self, x: Tensor) -> Tensor:
        if traced(x):
            return as_leaf(self, x)
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            raise InputError(f"SHConv2d wants (N, {self.in_channels}, H, W), got {tuple(x.shape)}")
        return self._filtered(x) if x.dim() == 4 else self._filtered(x[None])[0]

    def _filtered(self, x: Tensor) -> Tensor:
        routes, weight = in_force(self, x), self.kernel()
        if (theta := self._theta(x, routes)) is not None:  # what stands below, in one op
            geometry = Geometry(self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]
            hyper: Hypernetwork = self._modules["hyper"]  # type: ignore[assignment]
            own = self._parameters
            bias = own.get("bias") if "bias" in own else self.bias  # which is slow to find
            Y = layer.shc_conv2d(x, weight, bias, theta, geometry, hyper.order or (), hyper.eps)
            if Y is not None:
                return Y
        M = self.filter_map(scale_gradient(x, routes.hypernetwork)) if routes.frozen is None else routes.frozen(x)
        if routes.recorder is not None:
            routes.recorder(M.detach())
        X, padding = self.padded(scale_gradient(x, routes.convolution))
        stride: Any = self.stride
        dilation: Any = self.dilation
        convolve = filtered_conv2d if M.dim() == 3 else variants.filtered_by_groups
        return convolve(X, weight, M, self.bias, stride, padding, dilation, self.groups)

    def _theta(self, x: Tensor, routes: Routes) -> Theta | None:
        """The hypernetwork's parameters, where the layer is the paper's, nobody looks in and nothing is replaced."""
        hyper, cls, own = self._modules.get("hyper"), type(self), self.__dict__  # attributes are slow to find
        if (
            routes.frozen is not None
            or routes.recorder is not None
            or not routes.convolution == routes.hypernetwork == 1
            or cls.filter_map is not SHConv2d.filter_map
            or cls.padded is not SHConv2d.padded
            or "filter_map" in own
            or "padded" in own
            or self.padding_mode != "zeros"
            or not type(self.stride) is type(self.padding) is type(self.dilation) is tuple  # as torch makes them,
            or not len(self.stride) == len(self.padding) == len(self.dilation) == 2
            or type(hyper) is not Hypernetwork
            or not untouched(hyper)
            or hyper.map_groups != 1
            or hyper._buffers.get("gain", x) is not None
        ):
            return None
        return hyper.theta()

    def kernel(self) -> Tensor:
        """What the map filters (C, D / groups, S_h, S_w): the weight, or in sub-classes what they make of it."""
        weight = self._parameters.get("weight")
        return self.weight if weight is None else weight  # where something makes it, it is no parameter

    def padded(self, x: Tensor) -> tuple[Tensor, Any]:
        """x, padded where filtered_conv2d cannot do it, and the padding that is left to do."""
        if self.padding_mode != "zeros":
            return F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        return x, self.padding


def _linear(module: nn.Module, s: Tensor) -> Tensor:
    """What the module makes of s, in s's precision. It is called, in the precision that it has; torch's own linear
    layer, untouched, computes in that of s."""
    if plain_linear(module):
        bias: Tensor | None = module.bias
        return F.linear(s, module.weight.to(s.dtype), None if bias is None else bias.to(s.dtype))
    its = next((each.dtype for each in module.parameters() if each.is_floating_point()), s.dtype)
    z: Tensor = module(s.to(its))
    return z.to(s.dtype)
