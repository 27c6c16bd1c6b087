"""A network together with what trains it: optimiser, mixed precision, device; and their state, to continue later."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.ops.cpu import library
from shconv.processes import Processes
from shconv.training.checkpoint import ModelConfig
from shconv.training.compiling import compiled
from shconv.training.engine import Engine
from shconv.training.optimisers import WeightMean, create_optimizer
from shconv.training.recipe import Recipe
from shconv.training.synchronized import synchronized


@dataclass(frozen=True)
class Learner:
    network: nn.Module  # as built
    model: nn.Module  # compiled and wrapped, where asked for, around the same parameters: trained
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # passes everything through unless the precision is fp16
    device: torch.device
    dtype: torch.dtype | None  # of autocast; None: float32 throughout
    layout: torch.memory_format
    mean: WeightMean | None = None

    @classmethod
    def build(
        cls,
        config: ModelConfig,
        recipe: Recipe,
        engine: Engine,
        processes: Processes,
        graphs: str = "not asked for",
        begin: Callable[[nn.Module], None] = lambda network: None,
    ) -> Self:
        """Random weights from torch's generator. Raises InputError where the device lacks the recipe's precision.

        graphs: why CUDA graphs do not hold a compiled network's passes, "" where they do.
        begin: changes the network before anything is made of its parameters.
        """
        device = processes.device
        layout = layout_of(recipe)
        network = config.build()
        begin(network)
        network = network.to(device).to(memory_format=layout)
        dtype = autocast_dtype(recipe, device, network)
        if engine.sync_batch_norm and processes.count > 1:
            network = synchronized(network, device)
        optimizer = create_optimizer(parameter_groups(network, recipe), recipe)
        mean = None if recipe.ema is None else WeightMean(network, recipe.ema)
        scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        model = _shared(compiled(network, graphs) if engine.compile else network, device)
        return cls(network, model, optimizer, scaler, device, dtype, layout, mean)

    @property
    def outcome(self) -> nn.Module:
        """What is tested and stored: the network, or the mean of its weights where there is one."""
        return self.network if self.mean is None else self.mean.network

    def images(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> float in [0, 1] on the device; floats stay what they are."""
        images = pixels.to(self.device, non_blocking=True)
        if not images.is_floating_point():
            images = images.div(255)
        return images.contiguous(memory_format=self.layout)

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Forward and backward pass of a micro-batch go in here: the processes' gradients are averaged in the last."""
        wrapped = isinstance(self.model, nn.parallel.DistributedDataParallel)
        return self.model.no_sync() if wrapped and not last else nullcontext()  # type: ignore[operator]

    def step(self, learning_rate: float) -> None:
        """One step of the optimiser along the gradients, which are gone afterwards."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.mean is not None:
            self.mean.update(self.network)

    def state(self) -> dict[str, Any]:
        """All that changes during training. Random states are not among it: each step sets its own."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **({} if self.mean is None else {"mean": self.mean.state()}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, also from another device."""
        self.network.load_state_dict(state["model"])
        ways = {name: self.optimizer.param_groups[0][name] for name in ("fused", "foreach")}
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group.update(ways)  # how a step is computed is this device's, not the stored one's
        if self.mean is not None:
            self.mean.restore(state["mean"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


def _shared(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with gradients that are averaged over the processes, where there are several."""
    wrapping = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    accelerator = Accelerator(mixed_precision="no", cpu=device.type == "cpu", kwargs_handlers=[wrapping])
    return accelerator.prepare(model)  # type: ignore[no-any-return]


def layout_of(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """One group with the recipe's weight decay; two where theta (".hyper." in the name) has a factor of its own."""
    if recipe.hyper_weight_decay in (None, recipe.weight_decay):
        return [{"params": list(network.parameters()), "weight_decay": recipe.weight_decay}]
    others, theta = others_and_theta(network)
    groups = ((others, recipe.weight_decay), (theta, recipe.hyper_weight_decay))
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters]


def others_and_theta(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """W and the like, and the hypernetworks' parameters, which have ".hyper." in their names."""
    theta = [parameter for name, parameter in network.named_parameters() if ".hyper." in f".{name}"]
    others = [parameter for name, parameter in network.named_parameters() if ".hyper." not in f".{name}"]
    return others, theta


def autocast_dtype(recipe: Recipe, device: torch.device, network: nn.Module) -> torch.dtype | None:
    """The recipe's precision on this device; None is float32. Raises InputError for fp16 without CUDA.

    auto: bfloat16 where it is fast, which torch's depthwise convolutions on a CPU are not.
    """
    if recipe.precision == "fp16" and device.type != "cuda":
        raise InputError(f"precision fp16 needs a CUDA device, this is {device.type}: take bf16, float32 or auto")
    tiles = device.type == "cpu" and library.has_bfloat16()  # also SHC's own kernels
    fast = device.type == "cuda" or (tiles and not any(map(_is_depthwise, network.modules())))
    auto = torch.bfloat16 if fast else None
    return {"auto": auto, "float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
