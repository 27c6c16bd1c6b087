"""What a recipe makes of a data set's images, looked at before the first step: are there steps enough to learn, and can
every batch norm do with its share of a batch?"""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from shconv.data.order import share_of
from shconv.errors import InputError
from shconv.eval_mode import eval_mode
from shconv.numbers import counted
from shconv.processes import Processes
from shconv.training.engine import Engine
from shconv.training.recipe import Recipe

FEW = 100  # steps in all: with fewer a network hardly leaves chance
MANY_LEFT_OUT = 0.1  # of the images, in each epoch


def warning_of_few_steps(images: int, batch_size: int, epochs: int) -> str | None:
    """What to say of a training with few steps, or that leaves out many images of each epoch; None of any other."""
    batch = min(batch_size, images)
    steps, rest = images // batch, images % batch
    if steps * epochs >= FEW and rest < MANY_LEFT_OUT * images:
        return None
    left_out = f", and {rest} are left out of each" if rest else ""
    smaller = max(2, min(batch // 2, images // 8))
    more = f", more epochs (--epochs {-(-FEW // steps)})" if steps * epochs < FEW else ""
    return (
        f"warning: {images} images in batches of {batch} are {counted(steps, 'step')} an epoch{left_out}; "
        f"{counted(steps * epochs, 'step')} in all may be too few to learn. Use a smaller batch "
        f"(--batch-size {smaller} of train or finetune: {counted(images // smaller, 'step')} an epoch){more}"
    )


def check_micro_batch(
    network: nn.Module, image: Tensor, recipe: Recipe, images: int, engine: Engine, processes: Processes
) -> None:
    """Raises InputError where a batch norm would see one value a channel in the smallest share of a batch.

    image: (C, H, W), of the size that is trained on and on the network's device.
    """
    batch = min(recipe.batch_size, images)
    smallest = smallest_share(batch, engine.accumulation, processes.count, together=engine.sync_batch_norm)
    among = f" divided among {parts}" if (parts := engine.divided(processes)) else ""
    check_batch_norms(network, image, smallest, f"a batch of {counted(batch, 'image')}{among}")


def smallest_share(batch: int, accumulation: int, processes: int, *, together: bool) -> int:
    """Images over which a batch norm takes its statistics, where they are fewest. together: over all processes."""
    parts = [share_of(batch, rank, processes) for rank in range(processes)]
    sizes = [[len(range(part.stop - part.start)[share_of(part.stop - part.start, k, accumulation)]) for part in parts]
             for k in range(accumulation)]  # fmt: skip
    return min(sum(each) if together else min(each) for each in sizes)


@torch.no_grad()
def check_batch_norms(network: nn.Module, image: Tensor, micro_batch: int, what: str) -> None:
    """Raises InputError where a batch norm gets one value a channel from so many images; looks at one image."""
    if micro_batch > 1:
        return
    values: dict[str, int] = {}
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or not network.training):
                note = module.register_forward_pre_hook(
                    lambda _, inputs, name=name: values.update({name: inputs[0].numel() // inputs[0].shape[1]})
                )
                hooks.enter_context(note)
        with eval_mode(network):
            network(image[None])
    for name, count in values.items():
        if count < 2:
            raise InputError(
                f"{what} makes micro-batches of 1 image, which give the batch norm {name} 1 value a channel; it needs "
                f"2 at least: take a larger batch, fewer micro-batches or processes, or images larger than "
                f"{image.shape[1]} x {image.shape[2]}"
            )
