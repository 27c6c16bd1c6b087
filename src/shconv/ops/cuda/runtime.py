"""Can Triton's kernels run on a device? Tried once with a small one, so that a machine without a C compiler, or with a
GPU that Triton does not know, is served by plain torch and told why. Importing this module imports no triton."""

import functools
import importlib.util
import logging

import torch
from torch import Tensor

from shconv.errors import one_line

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
COUNTED = 2**31 - 2**16  # what the kernels count in 32 bits has to stay below; addresses have 64
_log = logging.getLogger(__name__)


@functools.cache
def installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def reason_against(index: int) -> str:
    """Why Triton cannot run on CUDA device `index`, "" where it can; logged when it is found out."""
    reason = ""
    if not installed():
        reason = "triton is not installed"
    else:
        try:
            from shconv.ops.cuda import statistics

            statistics.mean_variance(torch.ones(1, 1, 2, 2, dtype=torch.float32, device=torch.device("cuda", index)))
        except Exception as error:  # of triton, its driver, a compiler: whatever it is, torch can do without
            reason = f"Triton's kernels do not run: {one_line(error)}"
    if reason:
        log_once(f"cuda:{index}: {reason}; plain torch is used instead")
    return reason


def statistics_serve(x: Tensor) -> bool:
    """Whether the kernels of channel statistics can have x (N, D, H, W)."""
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    kind = x.is_cuda and x.dtype in DTYPES and x[:1].numel() < COUNTED
    return kind and dense and not reason_against(x.device.index)


def tf32() -> bool:
    """Whether torch lets convolutions round float32 for the tensor cores, as it does by default."""
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


@functools.cache
def log_once(message: str) -> None:
    """Warn of something that stays so for the life of the process."""
    _log.warning(message)
