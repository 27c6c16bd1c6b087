"""shconv finetune: somebody's trained network -> the same as an SHC network, which then learns a little more."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from shconv.commands.options import DataOptions, HubOptions, LogOptions
from shconv.commands.parser import Shown
from shconv.commands.prepared import prepared_as
from shconv.conversion import conversion_report
from shconv.data import ImageData, evaluation_batches
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.files import own_folder
from shconv.intervals import wilson
from shconv.models.normalize import Normalization
from shconv.pretrained import ConvertedConfig, save_pretrained
from shconv.pretrained.converted import LIBRARIES, create_vanilla, library_and_name
from shconv.pretrained.finetune import fine_tune
from shconv.pretrained.folder import CONVERTED, Config
from shconv.pretrained.own import network_of, shc_of
from shconv.pretrained.state_file import read_weights
from shconv.pretrained.weights import for_classes, imagenet_rows, network_with
from shconv.processes import Processes
from shconv.training import Recipe, correct_in
from shconv.training.batches import warning_of_few_steps
from shconv.training.checkpoint import load_info
from shconv.training.job import epoch_steps
from shconv.training.tracking import CURVES, TOLD, Trackers, check_trackers


@dataclass(frozen=True, kw_only=True)
class Finetune(DataOptions, LogOptions, HubOptions):
    """Convert a pretrained network to SHC, with the same outputs, and fine-tune it on your images.

    Prints the accuracy on the test images before the conversion, after it and after the fine-tuning.
    A --config file calls --from source and --out folder.
    """

    source: Annotated[str, Shown("from")]
    """timm:NAME or torchvision:NAME with that library's weights, a file of weights, safetensors or torch's, or a
    checkpoint folder of shconv."""
    folder: Annotated[Path | None, Shown("out")] = None
    """Folder of the result, empty or new; by default runs/finetune/ and the network's name, with a number added if
    it exists."""
    arch: str | None = None
    """The network of a file of weights: timm:NAME or torchvision:NAME."""
    where: tuple[str, ...] = ("3",)
    """Convolutions to convert: kernels (3 5), names or patterns ("features.*")."""
    normalize: Literal["auto", "imagenet", "none"] = "auto"
    """Mean and std inside the network. auto: those of the library or the checkpoint."""
    epochs: int = 5
    """Passes over the training images; 0 only converts and stores."""
    batch_size: int = 32
    """Images in a step, and in a batch of the evaluation."""
    learning_rate: float = 0.001
    """Highest learning rate of all parameters except the hypernetworks'. It falls to 0 along half a cosine."""
    hyper_learning_rate: float = 0.01
    """Highest learning rate of the hypernetworks."""
    weight_decay: float = 1e-4
    """Weight decay of all parameters: L2 factor for sgd, decoupled for adamw."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW."""
    ema: float | None = None
    """Store the exponential mean of the weights with this decay (such as 0.999) instead of the last weights."""
    augmentation: Literal[
        "none", "crop_flip", "resized_crop", "he2016", "randaugment", "trivialaugment", "autoaugment", "augmix"
    ] = "crop_flip"
    """How the training images are augmented; the last four are torchvision's, after a crop and flip."""
    mixup: float = 0.0
    """Mix images and their labels (MixUp) with this alpha, such as 0.2. Each process mixes its own share."""
    cutmix: float = 0.0
    """Paste a part of one image into another (CutMix) with this alpha, such as 1. With both, each batch uses one of
    them."""
    freeze_batch_norm: bool = True
    """Keep the batch norms' statistics."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 mixed precision if it is fast, else float32, for example for depthwise networks on a CPU."""
    seed: int = 0
    """Seed of a new head, the hypernetworks' first layers, the order of the images and their augmentation."""

    def check(self) -> None:
        super().check()
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")
        if self.epochs < 0:
            raise InputError(f"epochs must be at least 0, got {self.epochs}")
        if not 0 <= self.hyper_learning_rate < float("inf"):
            raise InputError(f"hyper_learning_rate is {self.hyper_learning_rate}; wanted: a finite number >= 0")
        if self._is_ours:
            own = {"arch": None, "where": ("3",), "normalize": "auto"}
            if other := [name for name, usual in own.items() if getattr(self, name) != usual]:
                raise InputError(f"{self.source} is a checkpoint of shconv, which says its {other[0]} by itself")
        else:
            ConvertedConfig(self._arch, 1, self._where)
            if not self._from_library and not Path(self.source).is_file():
                wanted = "wanted: one, a checkpoint folder, or timm:NAME or torchvision:NAME"
                raise InputError(f"there is no file {self.source}; {wanted}")
            if self.grey:
                raise InputError("--grey: networks of timm and torchvision take images of three channels; leave it out")
        self._recipe()
        check_trackers(self.log)
        self.check_hub()
        if self.folder is not None and _is_taken(self.folder):
            raise InputError(f"{self.folder} is there and not empty; wanted: a new folder")

    def run(self) -> None:
        self.check()
        processes = Processes.found(device=self.device)
        if processes.count > 1:
            raise InputError("finetune runs in one process; for more there is shconv train")
        progress, device = ExperimentProgress(), processes.device
        out = self.folder or own_folder(self._usual, _is_taken)
        if self.folder is None and out != self._usual:
            progress.say(f"{self._usual} holds another network: this one goes to {out}")
        preparation = prepared_as(self, [(Path(self.source), self._beside)], progress.say)
        data = self.load(progress, want_train=self.epochs > 0, preparation=preparation)
        workers = self.readers(data, self.batch_size, progress.say)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            images = first_images(data, self.batch_size)
            before, model, config = self._networks(data, images, progress)
            before, model, images = before.to(device), model.to(device), images.to(device)
            correct = {"before the conversion": self._correct(before, data, device, workers)}
            print(str(conversion_report(model)).splitlines()[-1])
            difference, largest = largest_difference(before, model, images)
            print(f"largest difference of the logits: {difference:.1e}, of at most {largest:.1f}, {len(images)} images")
            correct["after the conversion"] = self._correct(model, data, device, workers)
            del before
            if self.epochs and data.train is not None:
                settings: dict[str, Any] = {"freeze_batch_norm": self.freeze_batch_norm, "seed": self.seed}
                settings |= {"classes": len(data.classes), "workers": workers}
                if few := warning_of_few_steps(len(data.train), self.batch_size, self.epochs):
                    progress.say(few)
                with self._told(out, correct, data, progress) as settings["on_epoch"]:
                    fine_tune(model, data.train, self._recipe(), self.hyper_learning_rate, device, **settings)
                    facts = self._facts(data, correct, difference)  # the weights first: the rest may fail
                    save_pretrained(model, out, config=config, facts=facts | {"test_accuracy": None})
                    correct["after the fine-tuning"] = self._correct(model, data, device, workers)
        facts = self._facts(data, correct, difference)
        save_pretrained(model.cpu(), out, config=config, facts=facts)
        for moment, right in correct.items():
            print(f"{moment:>21}: {accuracy(right, len(data.test))}")
        if data.note:
            print(data.note)
        print(f"The network: {out}")
        self.push(out)

    @contextmanager
    def _told(
        self, out: Path, correct: dict[str, int], data: ImageData, progress: ExperimentProgress
    ) -> Iterator[Callable[[int, float], None]]:
        """Called with each epoch's loss, for the screen and --log; the last one goes with the accuracy known then."""
        steps, n, last = epoch_steps(data.train or (), self._recipe()), len(data.test), {}
        trackers = Trackers(out, progress.say)

        def told(epoch: int, loss: float) -> None:
            progress.say(f"epoch {epoch}: loss {loss:.4f}")
            last.update({"epoch": epoch, "loss": loss})
            if epoch < self.epochs:
                trackers.epochs([last], steps)

        try:
            if self.log:
                out.mkdir(parents=True, exist_ok=True)
                trackers.start(self.log, {"source": self.source, "data": data.name, "recipe": asdict(self._recipe())})
                trackers.log({f"accuracy/{moment}": right / n for moment, right in correct.items()}, 0)
            yield told
            trackers.epochs([last | {"test_accuracy": correct["after the fine-tuning"] / n}], steps)
        finally:
            trackers.finish()

    def _networks(
        self, data: ImageData, images: Tensor, progress: ExperimentProgress
    ) -> tuple[nn.Module, nn.Module, Config]:
        """Before the conversion and after it, both from images in [0, 1] and in eval mode; how the second is built."""
        if self._is_ours:
            network, built = network_of(Path(self.source), len(data.classes), data.channels, progress.say)
            return network, *shc_of(network, built, images)
        vanilla = self._vanilla(data, images, progress)
        config = ConvertedConfig(self._arch, len(data.classes), self._where, self._constants(vanilla))
        before = config.normalized(vanilla).eval()
        return before, config.normalized(config.converted(vanilla, check=before[0](images))).eval(), config

    def _vanilla(self, data: ImageData, images: Tensor, progress: ExperimentProgress) -> nn.Module:
        """The pretrained network for the data's classes."""
        if self._from_library:
            network, has_head = create_vanilla(self.source, pretrained=True), True
        else:
            filled = network_with(self._arch, read_weights(Path(self.source)))
            network, has_head = filled.network, filled.has_head
            if filled.said:
                progress.say(filled.said)
        with torch.no_grad():
            outputs = network.eval()(images[:1]).shape[1]
        rows = imagenet_rows(data.classes, outputs) if has_head else None
        if rows == list(range(outputs)) or (rows is None and outputs == len(data.classes)):
            return network
        kept = "keeps its rows of those" if rows is not None else "is new, with random weights"
        if not has_head:
            return for_classes(self._arch, network, len(data.classes), None)
        progress.say(f"{outputs} outputs, {data.name} has {len(data.classes)} classes: the head {kept}")
        return for_classes(self._arch, network, len(data.classes), rows)

    def _correct(self, network: nn.Module, data: ImageData, device: torch.device, workers: int) -> int:
        right = correct_in(network, data.test, self.batch_size, device, workers=workers)
        assert right is not None  # nobody stops it
        return right

    def _constants(self, network: nn.Module) -> Normalization:
        if self.normalize != "auto":
            return None if self.normalize == "none" else "imagenet"
        known = getattr(network, "pretrained_cfg", None) or {}  # timm's
        return (tuple(known["mean"]), tuple(known["std"])) if "mean" in known and "std" in known else "imagenet"

    def _facts(self, data: ImageData, correct: dict[str, int], difference: float) -> dict[str, Any]:
        n = len(data.test)
        counts = {"train_images": len(data.train or ()), "test_images": n}
        about = {"name": data.name, "classes": data.classes, **data.preparation.stored(), **counts}
        own = {"hyper_learning_rate": self.hyper_learning_rate, "freeze_batch_norm": self.freeze_batch_norm}
        tuned = asdict(self._recipe()) | own
        return {
            "data": about,
            "recipe": tuned if self.epochs else None,
            "seed": self.seed,
            "weights": self.source if self._from_library else Path(self.source).name,
            "test_accuracy": list(correct.values())[-1] / n,
            "accuracies": {moment: right / n for moment, right in correct.items()},
            "largest_difference": difference,
        }

    def _recipe(self) -> Recipe:
        return Recipe(
            max(1, self.epochs),
            self.batch_size,
            self.learning_rate,
            weight_decay=self.weight_decay,
            schedule="cosine",
            augmentation=self.augmentation,
            precision=self.precision,
            optimizer=self.optimizer,
            ema=self.ema,
            mixup=self.mixup,
            cutmix=self.cutmix,
        )

    @property
    def _beside(self) -> dict[str, Any]:
        """The config.json beside a file of weights, where the file is a checkpoint's of ours."""
        if self._from_library:
            return {}
        place = Path(self.source)
        return load_info(place if place.is_dir() else place.parent) or {}

    @property
    def _is_ours(self) -> bool:
        """A checkpoint folder, or its file of weights where no --arch says that it is another network's."""
        place = Path(self.source)
        return not self._from_library and bool(
            place.is_dir() or (self.arch is None and {"model", CONVERTED} & self._beside.keys())
        )

    @property
    def _from_library(self) -> bool:
        return self.source.startswith(tuple(f"{library}:" for library in LIBRARIES))

    @property
    def _arch(self) -> str:
        if self._from_library:
            if self.arch is not None:
                raise InputError(f"--arch is for a file of weights; {self.source} names its network")
            library_and_name(self.source)
            return self.source
        if self.arch is None:
            raise InputError(f"--from {self.source} is a file: its network is wanted too, --arch timm:NAME, say")
        return self.arch

    @property
    def _where(self) -> tuple[int | str, ...]:
        return tuple(int(each) if each.isdecimal() else each for each in self.where)

    @property
    def _usual(self) -> Path:
        place = Path(self.source)
        name = (place if place.is_dir() else place.parent).resolve().name if self._is_ours else self._arch
        return Path("runs/finetune") / re.sub(r"[^\w.-]+", "-", name)


def _is_taken(folder: Path) -> bool:
    """By more than what a stopped fine-tuning told its trackers, which the same command continues from."""
    if folder.exists() and not folder.is_dir():
        return True
    return folder.exists() and any(each.name not in (TOLD, CURVES) for each in folder.iterdir())


def accuracy(correct: int, n: int) -> str:
    """A share of n test images with its 95 % interval."""
    low, high = wilson(correct, n)
    return f"{correct / n:.2%} of {n:,} test images (95 % interval {low:.2%} to {high:.2%})"


def first_images(data: ImageData, n: int) -> Tensor:
    """The first test images (n, 3, S, S) in [0, 1]."""
    return next(evaluation_batches(data.test, range(min(n, len(data.test))), n)).images.float().div(255)


@torch.no_grad()
def largest_difference(first: nn.Module, second: nn.Module, images: Tensor) -> tuple[float, float]:
    """(between the logits of two networks, the largest of the first's logits by magnitude)."""
    logits: Sequence[Tensor] = [network(images) for network in (first, second)]
    return float((logits[0] - logits[1]).abs().max()), float(logits[0].abs().max())
