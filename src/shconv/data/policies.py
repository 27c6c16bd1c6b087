"""Augmentation policies of torchvision.transforms.v2, after the crop and flip: each image's is drawn for it alone."""

from functools import cache

import torch
from torch import Tensor

POLICIES = {
    "randaugment": "RandAugment",  # Cubuk et al. 2020
    "trivialaugment": "TrivialAugmentWide",  # Mueller and Hutter 2021
    "autoaugment": "AutoAugment",  # Cubuk et al. 2019, the policy found on ImageNet
    "augmix": "AugMix",  # Hendrycks et al. 2020
}
SMALL = 64  # pixels a side: up to here images are cropped as crop_flip does, above as resized_crop does


def geometry(augmentation: str, size: int) -> str:
    """The crop and flip of an augmentation for training images of so many pixels a side."""
    if augmentation not in POLICIES:
        return augmentation
    return "crop_flip" if size <= SMALL else "resized_crop"


def applied(policy: str, pixels: Tensor, seed: int) -> Tensor:
    """An image uint8 (3, H, W) -> the same shape, a function of the seed.

    torchvision draws from torch's own generator, which is left as it was.
    """
    generator = torch.default_generator  # not torch.manual_seed, which would seed accelerators too
    before = generator.get_state()
    try:
        generator.manual_seed(seed)
        changed: Tensor = _transform(policy)(pixels)
    finally:
        generator.set_state(before)
    return changed


@cache
def _transform(policy: str) -> torch.nn.Module:
    from torchvision.transforms import v2

    transform: torch.nn.Module = getattr(v2, POLICIES[policy])()
    return transform
