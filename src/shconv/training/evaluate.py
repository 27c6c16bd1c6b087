"""Clean accuracy, exactly: every image once, in one fixed batch shape."""

import torch
from torch import nn

from shconv.data import ImageSplit, evaluation_batches


def correct_in(
    model: nn.Module, split: ImageSplit, batch_size: int, device: torch.device | str, *, workers: int = 0
) -> int:
    """How many images of `split` the network gets right, in its own precision. Leaves it in eval mode.

    The last batch is padded and the padding not counted: logits depend on the batch's shape in their last digits,
    enough to flip a tie.
    """
    model.eval()
    correct = 0
    with torch.no_grad():
        for batch in evaluation_batches(split, range(len(split)), batch_size, workers=workers):
            n = len(batch.labels)
            images = batch.images.new_zeros(batch_size, *batch.images.shape[1:])
            images[:n] = batch.images
            logits = model(images.to(device).float().div(255))
            correct += int((logits[:n].argmax(1).cpu() == batch.labels).sum())
    return correct
