"""MixUp and CutMix: a batch's images mixed with one another, and their labels in the same shares."""

from collections.abc import Callable

from torch import Tensor

from shconv.training.recipe import Recipe

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(recipe: Recipe, classes: int) -> Mix | None:
    """(images (B, C, H, W), labels int64 (B,)) -> (mixed images, soft labels (B, K)); None where the recipe mixes none.

    Zhang et al. 2018 and Yun et al. 2019, by torchvision: one share a batch, each image with the one before it. Where
    both are asked for each batch takes either, by chance. Drawn from torch's own generator, which a training seeds in
    each step.
    """
    if recipe.mixup + recipe.cutmix == 0:
        return None
    from torchvision.transforms import v2  # slow to import, and few recipes mix

    kinds = ((recipe.mixup, v2.MixUp), (recipe.cutmix, v2.CutMix))
    mixes = [kind(alpha=alpha, num_classes=classes) for alpha, kind in kinds if alpha > 0]
    mix: Mix = v2.RandomChoice(mixes)
    return mix
