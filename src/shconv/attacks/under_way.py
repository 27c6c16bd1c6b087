"""Which images of a batch still go through a network, where an attack ends for each at a moment of its own."""

import torch
from torch import Tensor

LEAST = 16  # images: with fewer the processor's convolutions round otherwise, and an image's path may be another one


def passing(alive: Tensor, whole: bool) -> Tensor:
    """Places (n,) in the batch, in order: of all images that are alive (N,), and of others up to 16 or a higher power
    of two, so that a network sees few shapes. whole: all places (`routes.holds_a_batch`)."""
    if whole:
        return torch.arange(len(alive), device=alive.device)
    n = min(len(alive), 1 << (max(LEAST, int(alive.sum())) - 1).bit_length())
    return (~alive).to(torch.uint8).argsort(stable=True)[:n].sort().values


def spread(part: Tensor, places: Tensor, n: int) -> Tensor:
    """What is known of the images at these places, for a batch of n: 0 for the others."""
    return part.new_zeros(n, *part.shape[1:]).index_copy(0, places, part)
