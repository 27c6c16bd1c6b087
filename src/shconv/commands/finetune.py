"""shconv finetune: somebody's trained network -> the same as an SHC network, which then learns a little more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from shconv.commands.options import DataOptions, HubOptions, LogOptions, check_least
from shconv.commands.parser import Shown
from shconv.commands.prepared import prepared_as
from shconv.commands.starts import Start
from shconv.conversion import conversion_report
from shconv.data import ImageData, evaluation_batches
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.files import own_folder
from shconv.folders import CHECKPOINT, check_out
from shconv.intervals import wilson
from shconv.pretrained import load_network, save_pretrained
from shconv.pretrained.finetune import fine_tune
from shconv.pretrained.folder import stored_info
from shconv.processes import Processes
from shconv.training import Recipe, correct_in
from shconv.training.batch_size import warning_of_few_steps
from shconv.training.checkpoint import CONFIG, load_info
from shconv.training.job import epoch_steps
from shconv.training.tracking import CURVES, TOLD, Trackers, check_trackers


@dataclass(frozen=True, kw_only=True)
class Finetune(DataOptions, LogOptions, HubOptions):
    """Convert a pretrained network to SHC, with the same outputs, and fine-tune it on your images.

    Prints the accuracy on the test images before the conversion, after it and after the fine-tuning.
    In a --config file --from is `source` and --out is `folder`.
    """

    source: Annotated[str, Shown("from")]
    """timm:NAME or torchvision:NAME with that library's weights, a file of weights, safetensors or torch's, or a
    checkpoint folder of shconv."""
    folder: Annotated[Path | None, Shown("out")] = None
    """Folder of the result, empty or new, or with this fine-tuning; by default runs/finetune/ and the network's name,
    with a number added if that folder holds another."""
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
    """Mix images and their labels (MixUp) with this alpha, such as 0.2."""
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
        check_least(self, seed=0, epochs=0)
        if not 0 <= self.hyper_learning_rate < float("inf"):
            raise InputError(f"hyper_learning_rate is {self.hyper_learning_rate}; wanted: a finite number >= 0")
        self._start.check()
        if self.grey and not self._start.is_ours:
            raise InputError("--grey: networks of timm and torchvision take images of three channels; leave it out")
        self._recipe()
        check_trackers(self.log)
        self.check_hub()
        if self.folder is not None and _is_taken(self.folder):
            raise InputError(f"{self.folder} is there and not empty; wanted: a new folder")
        check_out(self.folder or Path("runs/finetune"), CHECKPOINT)

    def run(self) -> None:
        self.check()
        processes = Processes.found(device=self.device)
        if processes.count > 1:
            raise InputError("finetune runs in one process; for more there is shconv train")
        progress, device = ExperimentProgress(), processes.device
        start = self._start
        preparation = prepared_as(self, [(Path(self.source), start.beside)], progress.say)
        data = self.load(progress, want_train=self.epochs > 0, preparation=preparation)
        workers = self.readers(data, self.batch_size, progress.say)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            images = first_images(data, self.batch_size)
            before, model, config = start.networks(data, images, progress.say)
            before, model, images = before.to(device), model.to(device), images.to(device)
            correct = {"before the conversion": self._correct(before, data, device, workers)}
            print(str(conversion_report(model)).splitlines()[-1])
            difference, largest = largest_difference(before, model, images)
            print(f"largest difference of the logits: {difference:.1e}, of at most {largest:.1f}, {len(images)} images")
            correct["after the conversion"] = self._correct(model, data, device, workers)
            del before
            facts = self._facts(data, correct, difference)
            out = self._out(stored_info(model, config, facts), progress.say)
            if self.epochs and data.train is not None:
                settings: dict[str, Any] = {"freeze_batch_norm": self.freeze_batch_norm, "seed": self.seed}
                settings |= {"classes": len(data.classes), "workers": workers}
                if few := warning_of_few_steps(len(data.train), self.batch_size, self.epochs):
                    progress.say(few)
                with self._told(out, correct, data, progress) as settings["on_epoch"]:
                    if (out / CONFIG).exists():
                        progress.say(f"{out} holds this network after its last epoch: it is tested")
                        model.load_state_dict(load_network(out)[0].state_dict())
                    else:
                        fine_tune(model, data.train, self._recipe(), self.hyper_learning_rate, device, **settings)
                        untested = facts | {"test_accuracy": None}  # stored first: the rest may fail
                        save_pretrained(model, out, config=config, facts=untested)
                    correct["after the fine-tuning"] = self._correct(model, data, device, workers)
                facts = self._facts(data, correct, difference)
        save_pretrained(model.cpu(), out, config=config, facts=facts)
        for moment, right in correct.items():
            print(f"{moment:>21}: {accuracy(right, len(data.test))}")
        if data.note:
            print(data.note)
        print(f"The network: {out}")
        self.push(out)

    def _out(self, wanted: dict[str, Any], say: Callable[[str], None]) -> Path:
        """The folder asked for, else one of the usual name: free, or with this fine-tuning after its last epoch."""
        usual = self._start.usual_folder
        out = self.folder or own_folder(usual, lambda folder: _is_taken(folder, wanted))
        if self.folder is None and out != usual:
            say(f"{usual} holds another network: this one goes to {out}")
        if _is_taken(out, wanted):
            raise InputError(f"{out} holds a fine-tuning with other settings; wanted: the same, or a new folder")
        return out

    @contextmanager
    def _told(
        self, out: Path, correct: dict[str, int], data: ImageData, progress: ExperimentProgress
    ) -> Iterator[Callable[[int, float], None]]:
        """Called with each epoch's loss, for the screen and --log; the last one goes with the accuracy known then."""
        steps, n = epoch_steps(data.train or (), self._recipe()), len(data.test)
        last: dict[str, float] = {"epoch": self.epochs}
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

    def _correct(self, network: nn.Module, data: ImageData, device: torch.device, workers: int) -> int:
        right = correct_in(network, data.test, self.batch_size, device, workers=workers)
        assert right is not None  # nobody stops it
        return right

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
            "weights": self.source if self._start.from_library else Path(self.source).name,
            "test_accuracy": list(correct.values())[-1] / n,
            "accuracies": {moment: right / n for moment, right in correct.items()},
            "largest_difference": difference,
        }

    @property
    def _start(self) -> Start:
        return Start(self.source, self.arch, self.where, self.normalize)

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


def _is_taken(folder: Path, wanted: dict[str, Any] | None = None) -> bool:
    """By more than what the same command continues from: what a stopped fine-tuning told its trackers, or its network
    after the last epoch. wanted: what config.json then says, less the last accuracy; None: whatever it says."""
    if not folder.is_dir():
        return folder.exists()
    try:
        info = load_info(folder) or {}
    except InputError:
        return True
    if isinstance(known := info.get("accuracies"), dict):
        wanted = wanted or {**info, "accuracies": {}}
        measured = ("test_accuracy", "accuracies", "largest_difference")  # the last is a rounding
        same = all(info.get(name) == value for name, value in wanted.items() if name not in measured)
        return not (same and wanted["accuracies"].items() <= known.items())
    return any(each.name not in (TOLD, CURVES) and each.suffix != ".tmp" for each in folder.iterdir())


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
