"""shconv train: one network on one data set, by a recipe, plainly or with a defence."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from shconv.commands.options import DataOptions, EngineOptions, HubOptions, check_least
from shconv.commands.reproduce import model_config, recipe_for
from shconv.commands.running import load
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.files import own_folder
from shconv.folders import CHECKPOINT, UNFINISHED, check_out
from shconv.processes import Processes
from shconv.training import Defence, ModelConfig, Recipe, create_defence, holds_another, train

ADAMW: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": 0.05}  # the recipes' own are SGD's
FOLDER = Path("runs/train")


@dataclass(frozen=True, kw_only=True)
class Train(DataOptions, EngineOptions, HubOptions):
    """Train one network; the folder holds its checkpoint, and the same command continues a stopped training."""

    model: str = "plain10_shc"
    """The network's name; `shconv info` lists them."""
    out: Path | None = None
    """Checkpoint folder; by default runs/train/ and the network's name and seed, with a number added if that folder
    has other settings."""
    width: int = 16
    """Channels of the first stage; 64 in the paper."""
    stem: Literal["auto", "small", "imagenet"] = "auto"
    """The first layers. small: one 3x3 convolution. imagenet: a 7x7 convolution of stride 2 and max pooling. auto:
    small for images up to 64 px."""
    normalize: Literal["none", "imagenet"] = "none"
    """imagenet: the network normalises its images by the mean and standard deviation of ImageNet. The paper does
    not."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, their augmentation and the defence's random numbers."""
    recipe: str = "short"
    """Training settings: short, cifar, paper or he2016. `shconv info` shows them."""
    epochs: int | None = None
    """Passes over the training images; by default the recipe's. Its learning rates are spread over them."""
    batch_size: int | None = None
    """Images in a step; by default the recipe's number."""
    learning_rate: float | None = None
    """Highest learning rate; by default the recipe's."""
    scale_learning_rate: bool = False
    """Multiply the recipe's learning rate by --batch-size over the recipe's batch size (Goyal et al. 2017)."""
    weight_decay: float | None = None
    """Weight decay of all parameters: L2 factor for sgd, decoupled for adamw; by default the recipe's."""
    hyper_weight_decay: float | None = None
    """Weight decay of the hypernetworks' parameters; by default that of all parameters."""
    augmentation: (
        Literal["none", "crop_flip", "resized_crop", "he2016", "randaugment", "trivialaugment", "autoaugment", "augmix"]
        | None
    ) = None
    """How the training images are augmented; by default as the recipe says. The last four are torchvision's, after a
    crop and flip."""
    mixup: float = 0.0
    """Mix images and their labels (MixUp) with this alpha, such as 0.2. Each process mixes its own share."""
    cutmix: float = 0.0
    """Paste a part of one image into another (CutMix) with this alpha, such as 1. With both, each batch uses one of
    them."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum; or AdamW, with learning rate 0.001 and weight decay 0.05 unless these are given."""
    ema: float | None = None
    """Test and store the exponential mean of the weights with this decay (such as 0.999) instead of the last
    weights."""
    precision: Literal["auto", "float32", "bf16", "fp16"] | None = None
    """Number type of the computation; by default the recipe's. auto: bf16 mixed precision on CUDA and on CPUs with
    matrix tiles (AMX), else float32."""
    channels_last: bool = True
    """Train in the channels-last layout, which is faster."""
    defence: Literal[
        "none",
        "goodfellow",
        "fgsm-rs",
        "pgd",
        "ensemble",
        "stability",
        "trades",
        "distillation",
        "detector",
        "noise-model",
    ] = "none"
    """What is trained. none: the images as they are. goodfellow: images and one-step attacks. fgsm-rs:
    one-step attacks from a random start. pgd: attacks of several steps. ensemble: one-step attacks, also with other
    networks' gradients. stability: the same outputs for noisy images. trades: the same outputs for attacked images.
    distillation: the soft outputs of a teacher. detector: a small network beside the classifier that rejects attacked
    images. noise-model: mean and variance of noisy images, computed through every layer."""
    defence_eps: float | None = None
    """goodfellow, fgsm-rs, pgd, ensemble, trades, detector: the L-infinity budget, as 0.03 or 8/255, by default
    8/255."""
    defence_step_size: float | None = None
    """fgsm-rs, pgd, trades, detector: size of a step, in units of eps; by default 1.25, 0.25, 0.226 and 0.25."""
    defence_steps: int | None = None
    """pgd, trades, detector: steps an example, by default 7, 10 and 10."""
    defence_sources: tuple[str, ...] = ()
    """ensemble: checkpoints of finished networks of the same classes. distillation: that of the teacher. detector: that
    of the classifier. These two are by default trained first, in teacher/ or classifier/ below --out."""
    defence_alpha: float | None = None
    """goodfellow: weight of the clean images' loss, by default 0.5. stability: weight of the divergence between the two
    outputs, by default 1."""
    defence_beta: float | None = None
    """trades: weight of the divergence between the outputs of clean and attacked image, by default 6."""
    defence_sigma: float | None = None
    """stability, noise-model: standard deviation of the noise, by default 0.1."""
    defence_temperature: float | None = None
    """distillation: the temperature, by which the logits are divided in training, by default 20."""
    defence_adversary: Literal["static", "dynamic"] | None = None
    """detector: what the attacks of its training aim at. static: the classifier alone. dynamic, the default: classifier
    and detector, weighed at random for each image."""
    defence_layer: str | None = None
    """detector: the layer that it looks at, by default layer2."""

    def check(self) -> None:
        super().check()
        check_least(self, seed=0, width=1)
        self._recipe()
        self.engine()
        self.check_hub()
        with torch.random.fork_rng(devices=[]):  # the thinnest of its name: the same complaints, at once
            ModelConfig(self.model, 3, width=1).build()

    def run(self) -> None:
        self.check()
        check_out(self.out or FOLDER, CHECKPOINT, UNFINISHED)
        defence = self._defence()
        processes = Processes.found(patient=True, device=self.device)
        progress = ExperimentProgress(processes.is_first)
        data = load(self, processes, progress, want_train=True)
        config = model_config(self.model, data, self.width, self.stem, self.normalize)
        trained = self.model if self.defence == "none" else f"{self.model}-{self.defence}"
        recipe, usual = self._recipe(), FOLDER / f"{trained}-seed{self.seed}"
        out = self.out or processes.on_first(
            lambda: own_folder(usual, lambda place: holds_another(place, config, data, recipe, self.seed, defence))
        )
        if self.out is None and out != usual:
            progress.say(f"{usual} holds a training with other settings: this one goes to {out}")
        settings = {
            "defence": defence,
            "engine": self.engine(),
            "seed": self.seed,
            "workers": self.readers(data, recipe.batch_size, progress.say),
        }
        settings["device"] = self.device
        result = train(config, data, recipe, out, **settings)  # type: ignore[arg-type]
        if not processes.is_first:
            return
        print(f"{self.model} on {data.name}: {result.test_accuracy:.2%} of {len(data.test):,} test images")
        print(f"The network: {out}")
        self.push(out)

    def _recipe(self) -> Recipe:
        recipe = recipe_for(self.recipe, self.epochs)
        recipe = replace(recipe, optimizer=self.optimizer, ema=self.ema, mixup=self.mixup, cutmix=self.cutmix)
        if self.optimizer == "adamw":
            recipe = replace(recipe, **ADAMW)
        names = ("batch_size", "learning_rate", "weight_decay", "hyper_weight_decay", "augmentation", "precision")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.scale_learning_rate and self.learning_rate is not None:
            raise InputError(
                "scale_learning_rate scales the recipe's learning rate: give it or learning_rate, not both"
            )
        if self.scale_learning_rate:
            changes["learning_rate"] = recipe.learning_rate * (self.batch_size or recipe.batch_size) / recipe.batch_size
        return replace(recipe, channels_last=self.channels_last and recipe.channels_last, **changes)

    def _defence(self) -> Defence:
        asked = {name.removeprefix("defence_"): value for name, value in vars(self).items() if "defence_" in name}
        return create_defence(self.defence, **{name: value for name, value in asked.items() if value not in (None, ())})
