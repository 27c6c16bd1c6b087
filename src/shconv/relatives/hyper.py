"""Static HyperNetworks (Ha, Dai, Le 2016, section 3.1): the kernel is made from embeddings of the layer by a network of
two linear layers, which all layers of one kernel size share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.relatives.base import Relative, at_least, drawn


class KernelGenerator(nn.Module):
    """Embeddings (..., embedding) -> tiles of a kernel (..., tile, tile, S_h, S_w), output channels first.

    a_i = W_i z + b_i for every input channel i of the tile, K_i = W_out a_i + b_out: W_out is the same for all i.
    Both biases start at zero and the weights so that a tile is as large as its embedding.
    """

    def __init__(
        self, kernel_size: tuple[int, int], tile: int = 16, embedding: int = 64, hidden: int = 64, **place: Any
    ) -> None:
        super().__init__()
        at_least(1, tile=tile, embedding=embedding, hidden=hidden)
        self.kernel_size, self.tile, self.embedding, self.hidden = kernel_size, tile, embedding, hidden
        self.first = nn.Linear(embedding, tile * hidden, **place)
        self.second = nn.Linear(hidden, tile * kernel_size[0] * kernel_size[1], **place)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.first, self.second):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, z: Tensor) -> Tensor:
        a = self.first(z).view(*z.shape[:-1], self.tile, self.hidden)
        by_input: Tensor = self.second(a).view(*z.shape[:-1], self.tile, self.tile, *self.kernel_size)
        return by_input.transpose(-4, -3)


class HyperConv2d(Relative):
    """A Conv2d without a weight: its kernel is laid out of tiles of 16 x 16 channels, each made from an embedding.

    Args:
        generator: the network that makes the tiles; one of the layer's own if None. A converted network shares one
            among all layers of a kernel size, as the paper does.
        tile: channels of a tile; what stands over at a kernel's edge is cut off.
        embedding: length of an embedding, 64 in the paper.
        hidden: d, the hidden features of an input channel; the embedding's length, as in the paper, if None.
    """

    suffix = "hypernet"
    source = "Ha, Dai, Le 2016: static HyperNetworks"

    def extend(
        self,
        generator: KernelGenerator | None = None,
        tile: int = 16,
        embedding: int = 64,
        hidden: int | None = None,
    ) -> None:
        weight = self.weight
        place: Any = {"device": weight.device, "dtype": weight.dtype}
        size = (self.kernel_size[0], self.kernel_size[1])
        self.generator = generator or KernelGenerator(size, tile, embedding, hidden or embedding, **place)
        if self.generator.kernel_size != size:
            raise InputError(f"the generator makes kernels of {self.generator.kernel_size}, the layer has {size}")
        tiles = [-(-channels // self.generator.tile) for channels in self.kernel_shape[:2]]
        self.embeddings = nn.Parameter(torch.empty(*tiles, self.generator.embedding, **place))
        with torch.no_grad():
            self.embeddings.copy_(drawn(self.embeddings, weight))
        del self.weight
        self.register_parameter("weight", None)

    def reset_parameters(self) -> None:
        if "embeddings" not in self._parameters:  # a convolution so far
            super().reset_parameters()
            return
        _, D, height, width = self.kernel_shape
        nn.init.normal_(self.embeddings, std=(3 * D * height * width) ** -0.5)  # the level of nn.Conv2d's weight
        self.reset_bias()

    @classmethod
    def options_for(cls, convolutions: Sequence[nn.Conv2d], options: dict[str, Any]) -> list[dict[str, Any]]:
        shared: dict[Any, KernelGenerator] = {}
        given: list[dict[str, Any]] = []
        for conv in convolutions:
            place = (conv.weight.device, conv.weight.dtype)
            key = (conv.kernel_size, *place)
            if options.get("generator") is None and key not in shared:
                sizes = {"tile": options.get("tile", 16), "embedding": options.get("embedding", 64)}
                hidden = options.get("hidden") or sizes["embedding"]
                size = (conv.kernel_size[0], conv.kernel_size[1])
                shared[key] = KernelGenerator(size, **sizes, hidden=hidden, device=place[0], dtype=place[1])
            given.append({"generator": shared[key], **options} if key in shared else options)
        return given

    def kernel(self) -> Tensor:
        """(C, D / groups, S_h, S_w), laid out of tiles."""
        tiles = self.generator(self.embeddings)  # (rows, columns, tile, tile, S_h, S_w)
        C, D, *size = self.kernel_shape
        whole: Tensor = tiles.transpose(1, 2).reshape(tiles.shape[0] * tiles.shape[2], -1, *size)
        return whole[:C, :D]

    def convolved(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.kernel())

    def extra_macs(self, x: Tensor, Y: Tensor) -> int:
        tiles, made = self.embeddings[..., 0].numel(), self.generator
        return tiles * (made.first.weight.numel() + made.tile * made.second.weight.numel())
