"""A short training of a network that already knows something: a learning rate of their own for the hypernetworks,
which start at zero, and batch norms that keep their statistics. One process, no stored state: it takes minutes."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.data import ImageSplit, evaluation_batches, training_batches
from shconv.data.loading import near
from shconv.errors import InputError
from shconv.training.batch_size import check_batch_norms
from shconv.training.learner import autocast_dtype, layout_of, others_and_theta
from shconv.training.mixing import mixing
from shconv.training.optimisers import WeightMean, create_optimizer
from shconv.training.recipe import Recipe
from shconv.training.schedule import learning_rate


def fine_tune(
    network: nn.Module,
    split: ImageSplit,
    recipe: Recipe,
    hyper_learning_rate: float,
    device: torch.device,
    *,
    classes: int = 0,
    freeze_batch_norm: bool = True,
    seed: int = 0,
    workers: int = 0,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Train the network in place on a split's images, by the cross-entropy.

    Args:
        recipe: its learning rate is that of everything but the hypernetworks, its schedule that of both. With `ema` the
            network ends as the exponential mean of its weights.
        hyper_learning_rate: the hypernetworks' at the recipe's full learning rate.
        classes: the network's outputs; wanted where the recipe mixes images and their labels.
        freeze_batch_norm: normalise with the stored statistics and leave them: a few hundred images tell less of them.
        seed: of the order of the images and their augmentation; dropout and mixing take torch's own generator.
        on_epoch: called with the epoch's number, from 1, and its mean loss.

    Raises:
        InputError: a loss that is not finite; a network that gives no single logits when it trains; fp16.
    """
    if recipe.precision == "fp16":
        raise InputError("fine-tuning takes precision auto, bf16 or float32, not fp16")
    layout = layout_of(recipe)
    network.to(device).to(memory_format=layout)
    dtype = autocast_dtype(recipe, device, network)
    if not freeze_batch_norm:
        size = min(recipe.batch_size, len(split))
        image = next(evaluation_batches(split, [0], 1)).images[0].to(device).float().div(255)
        check_batch_norms(network, image, size, f"a batch of {size} image")
    split = near(split, device, recipe.augmentation)
    groups = [group for group in parameter_groups(network, recipe, hyper_learning_rate) if group["params"]]
    steps = create_optimizer(groups, recipe)
    mean = None if recipe.ema is None else WeightMean(network, recipe.ema)
    mix = mixing(recipe, classes)
    losses: list[float] = []
    for epoch in range(recipe.epochs):
        set_training(network, freeze_batch_norm)
        batches = training_batches(
            split, recipe.augmentation, batch_size=recipe.batch_size, seed=seed, epoch=epoch, workers=workers
        )
        total = torch.zeros((), device=device)
        for step, batch in enumerate(batches):
            rate = learning_rate(recipe, epoch + (step + 0.5) / len(batches), losses)
            for group in steps.param_groups:
                group["lr"] = rate * group["scale"]
            images = batch.images.to(device, non_blocking=True).div(255)
            labels = batch.labels.to(device, non_blocking=True)
            if mix is not None:
                images, labels = mix(images, labels)
            images = images.contiguous(memory_format=layout)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                logits = _logits(network(images))
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            steps.zero_grad()
            loss.backward()
            steps.step()
            if mean is not None:
                mean.update(network)
            total += loss.detach()
        losses.append(float(total) / len(batches))
        if not math.isfinite(losses[-1]):
            raise InputError(f"the loss is {losses[-1]} in epoch {epoch + 1}: try lower learning rates")
        on_epoch(epoch + 1, losses[-1])
    if mean is not None:
        network.load_state_dict(mean.network.state_dict())
    network.eval()


def parameter_groups(network: nn.Module, recipe: Recipe, hyper_learning_rate: float) -> list[dict[str, Any]]:
    """W and the like, then theta; `scale` is the group's share of the schedule's rate."""
    decay = recipe.weight_decay if recipe.hyper_weight_decay is None else recipe.hyper_weight_decay
    others, theta = others_and_theta(network)
    return [
        {"params": others, "weight_decay": recipe.weight_decay, "scale": 1.0},
        {"params": theta, "weight_decay": decay, "scale": hyper_learning_rate / recipe.learning_rate},
    ]


def set_training(network: nn.Module, freeze_batch_norm: bool) -> None:
    """Train mode, but for the batch norms where they are frozen."""
    network.train()
    for module in network.modules() if freeze_batch_norm else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _logits(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise InputError(f"the network gives a {type(output).__name__} when it trains, wanted: logits alone")
    return output
