"""Batch norm over the images of all processes: torch's SyncBatchNorm on accelerators, and the same on the CPU, where
torch has none. With it a batch divided among processes trains as the whole batch in one of them."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from shconv.processes import Processes


def synchronized(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with every batch norm in place of its own kind that sums over processes; names and tensors stay."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return]
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CPUSyncBatchNorm2d  # the same tensors and settings: only forward is another
    return network


def share_buffers(network: nn.Module, processes: Processes) -> None:
    """The first process's running statistics in all of them: each has those of its own images."""
    if processes.count > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


class CPUSyncBatchNorm2d(nn.BatchNorm2d):
    """Ioffe and Szegedy 2015, with the mean and variance of every process's share of the batch together."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); B may differ between processes."""
        if not self.training:
            return super().forward(x)
        given, x = x.dtype, x.float()
        count = x.new_full((1,), x.numel() / x.shape[1])
        total = _Sum.apply(torch.cat([x.sum((0, 2, 3)), count]))  # (C + 1,)
        n = total[-1].detach()
        mean = total[:-1] / n  # (C,)
        centred = x - mean[:, None, None]
        var = _Sum.apply(centred.square().sum((0, 2, 3))) / n  # (C,), of the population
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
                weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore[arg-type]
                self.running_mean.lerp_(mean, weight)
                self.running_var.lerp_(var * n / (n - 1), weight)
        y = centred * (var + self.eps).rsqrt()[:, None, None]
        if self.affine:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        normalised: Tensor = y.to(given)
        return normalised


class _Sum(torch.autograd.Function):
    """A tensor summed over the processes; every process's loss depends on every summand, so the gradient is too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
