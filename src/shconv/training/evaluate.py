"""Clean accuracy, exactly: every image once, in one fixed batch shape."""

from collections.abc import Callable

import torch
from torch import nn

from shconv.data import ImageSplit, evaluation_batches
from shconv.data.batches import never
from shconv.metrics import is_right
from shconv.replaying import replaying


def correct_in(
    model: nn.Module,
    split: ImageSplit,
    batch_size: int,
    device: torch.device | str,
    *,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
    stop: Callable[[], bool] = never,
    stop_waiting: Callable[[], bool] = never,
) -> int | None:
    """How many images of `split` the network gets right, in its own precision. Leaves it in eval mode.

    The last batch is padded and the padding not counted: logits depend on the batch's shape in their last digits,
    enough to flip a tie. share: (rank, count) takes every count-th batch, so the counts of all ranks add up to exactly
    that of one process. stop: asked as often by every rank, before each batch; if it says so, the result is None.
    """
    model.eval()
    rank, count = share
    rounds = -(-len(split) // (batch_size * count))
    starts = range(rank * batch_size, len(split), count * batch_size)
    own = [i for start in starts for i in range(start, min(start + batch_size, len(split)))]
    pinned = torch.device(device).type == "cuda"
    batches = evaluation_batches(split, own, batch_size, workers=workers, pinned=pinned, stop=stop_waiting)
    correct = torch.zeros((), dtype=torch.int64, device=device)  # read at the end: a GPU is waited for once
    seen = replaying(model)
    with torch.no_grad():
        for _ in range(rounds):
            if stop():
                return None
            batch = next(batches, None)
            if batch is None:  # another rank has one more
                continue
            n, images = len(batch.labels), batch.images
            if n < batch_size:
                images = torch.cat([images, images.new_zeros(batch_size - n, *images.shape[1:])])
            logits = seen(images.to(device, non_blocking=True).float().div(255))
            correct += is_right(logits[:n], batch.labels.to(device, non_blocking=True)).sum()
    return int(correct)
