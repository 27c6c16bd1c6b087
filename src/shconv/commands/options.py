"""Options that several sub-commands share. A TOML file can hold any of them; a run folder keeps the resolved ones."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from shconv.attacks import Attack
from shconv.commands.own_objects import is_object
from shconv.data import ImageData, Preparation, load_data
from shconv.data.parquet import MEMORY
from shconv.data.splits import FileSplit
from shconv.data.workers import automatic_workers, shared_memory_said
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.table2_others import missing, others
from shconv.numbers import fits_int64
from shconv.pretrained.hub import check_hub, push_to_hub
from shconv.training import Engine
from shconv.training.tracking import TrackerName

SOURCES = ("demo", "cifar10", "folder", "imagenet")  # first words of --data that name no module


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images, and how they are read."""

    takes_own_data: ClassVar[bool] = False

    data: str = "demo"
    """demo, cifar10, cifar10:PATH, folder:PATH (train/ and test/ or val/, a folder for each class) or imagenet:PATH
    (class folders, Parquet files or WebDataset tars)."""
    image_size: int | None = None
    """Side of the images in pixels. Default: that of the checkpoint, else that of small square images, else that of
    the test preset."""
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do with a broken image file. error: stop and name it. skip: leave it out and count it; this reads all
    files at the start."""
    test_preset: Literal["auto", "paper", "imagenet"] = "auto"
    """How test images of another size are prepared. paper: both sides to 299, which distorts, then the middle 256.
    imagenet: the shorter side to 256, then the middle 224, as is usual. Other sizes are scaled. auto: as the
    checkpoint, else imagenet for folder:PATH and paper for other data."""
    workers: int | None = None
    """Processes that read images, for each process that computes. Default: one less than its cores, 1 to 8; fewer
    if /dev/shm is too small for their batches; none for images in memory or fewer than 2,000 images."""
    parquet_memory: float | None = None
    """Parquet: GB of data that all processes of a training hold in memory, by default 3. More memory gives better
    shuffling."""
    grey: bool = False
    """Use grey images of one channel, such as MNIST's. A checkpoint that was trained on them needs no option."""
    download: bool = False
    """Allow the download of cifar10."""

    def check(self) -> None:
        """Raises InputError for options out of range, before anything is read or written."""
        check_least(self, workers=0)
        if self.own_data and not self.takes_own_data:
            raise InputError(
                f"--data {self.data}: images of a module are for evaluate, compare, audit and inspect; training wants "
                "folder:PATH, cifar10, imagenet:PATH or demo"
            )
        if self.parquet_memory is not None and not 0 < self.parquet_memory < float("inf"):
            raise InputError(f"parquet_memory must be GB above 0, got {self.parquet_memory}")

    @property
    def own_data(self) -> bool:
        """Are the images a user's own, module:object?"""
        return self.data.partition(":")[0] not in SOURCES and is_object(self.data)

    def readers(self, data: ImageData, batch_size: int, say: Callable[[str], object]) -> int:
        """The number of workers; says where shared memory allows fewer than the cores do."""
        if self.workers is not None:
            return self.workers
        read = [split for split in (data.train, data.test) if isinstance(split, FileSplit)]
        images = max(map(len, read), default=0)
        size = batch_size * 3 * max(data.image_size, data.train_size) ** 2
        wanted, possible = automatic_workers(images), automatic_workers(images, batch_bytes=size)
        if possible < wanted:
            who = f"{possible} and not {wanted} workers read images" if possible else "no worker reads images"
            say(
                f"{who}: {shared_memory_said()} has no room for more batches of {size / 2**20:.4g} MB; "
                "docker run --shm-size=2g makes it larger"
            )
        return possible

    def load(self, progress: ExperimentProgress, want_train: bool, preparation: Preparation | None = None) -> ImageData:
        """Read the images; says how many files were left out. Raises InputError where they cannot be used.

        preparation: what is known of it beside these options, which win.
        """
        with progress.count(f"reading {self.data}") as count:
            data = load_data(
                self.data,
                image_size=self.image_size,
                on_corrupt=self.on_corrupt,
                test_preset=self.test_preset,
                preparation=preparation,
                grey=self.grey,
                download=self.download,
                want_train=want_train,
                parquet_memory=self.parquet_memory or MEMORY,
                progress=count,
            )
        if data.skipped:
            progress.say(f"{data.name}: {data.skipped:,} files that are no images were left out")
        return data


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """On what a command computes."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps ...; by default a GPU or other accelerator if there is one, else the CPU."""
    graphs: bool = True
    """On a GPU, record what repeats (a training step, a network under attack) in CUDA graphs and replay these."""


@dataclass(frozen=True, kw_only=True)
class LogOptions(DeviceOptions):
    """Who else is told of a training."""

    log: tuple[TrackerName, ...] = ()
    """Send settings, losses and accuracies to wandb, mlflow or tensorboard too. TensorBoard's curves go into the
    checkpoint folder; the others take server and login from their own environment variables."""


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """Where else the finished network goes."""

    push_to_hub: str | None = None
    """Upload the finished network to this repository of Hugging Face, OWNER/NAME; it is created if necessary."""

    def check_hub(self) -> None:
        if self.push_to_hub is not None:
            check_hub(self.push_to_hub)

    def push(self, folder: Path) -> None:
        """Upload the network in `folder`, if asked to. Raises InputError where that fails; the folder stays."""
        if self.push_to_hub is None:
            return
        try:
            print(f"On Hugging Face: {push_to_hub(folder, self.push_to_hub)}")
        except InputError as error:
            again = f'shconv.pretrained.push_to_hub("{folder}", "{self.push_to_hub}")'
            raise InputError(f"{error}. The network is in {folder}; {again} tries again") from error


@dataclass(frozen=True, kw_only=True)
class EngineOptions(LogOptions):
    """How training is carried out; torchrun and accelerate launch start it in several processes."""

    accumulation: int = 1
    """Compute each batch in N parts, one after the other, if it does not fit in memory. Several processes divide a
    batch without this option."""
    sync_batch_norm: bool = False
    """Batch norm over the images of all processes, so that the result does not depend on their number."""
    compile: bool = False
    """Train with torch.compile. On a GPU it uses CUDA graphs if a step has one forward and one backward pass."""
    save_minutes: float | None = 5.0
    """Minutes between two stored states: the most that a killed training can lose."""
    save_steps: int | None = None
    """Also store the state every N steps."""
    keep_every: int | None = None
    """Keep a checkpoint of every N-th epoch too. That of the best test accuracy is always kept, in best/."""

    def engine(self) -> Engine:
        """Raises InputError for options out of range."""
        return Engine(**{field.name: getattr(self, field.name) for field in fields(Engine)})


@dataclass(frozen=True, kw_only=True)
class TableOptions(DataOptions, DeviceOptions):
    """How many images the tables use, and where the run folder is."""

    table1_images: int = 2_000
    """Images of Table 1, drawn at random from the test images; the paper uses all 50,000."""
    table2_images: int = 250
    """Pair-selected images of Tables 2 and 4; the paper uses 5,000."""
    table3_images: int = 8
    """Pair-selected images of Table 3 (LocSearchAdv is slow); the paper uses 500."""
    min_confidence: float = 0.9
    """Tables 2 to 4 use images that all networks of a pair classify correctly with more than this probability.
    Lower it for calibrated and adversarially trained networks, which are rarely so confident."""
    full: bool = False
    """Use as many images as the paper in every table."""
    batch_size: int = 128
    """Images in a batch of attacks and evaluation."""
    attack_seed: int = 0
    """Seed of the attacks' random numbers and of the choice of images."""
    out: Path | None = None
    """Run folder; by default below runs/, named after the data. The same command continues a stopped run."""

    def check(self) -> None:
        super().check()
        check_least(self, table1_images=1, table2_images=1, table3_images=1, batch_size=1, attack_seed=0)
        check_confidence(self.min_confidence)

    def load(self, progress: ExperimentProgress, want_train: bool, preparation: Preparation | None = None) -> ImageData:
        return self.with_classes(super().load(progress, want_train, preparation))

    def with_classes(self, data: ImageData) -> ImageData:
        """Raises InputError where the data have fewer classes than the command needs."""
        if len(data.classes) < self.least_classes:
            raise InputError(f"{data.name} has {len(data.classes)} classes; relative confidence needs at least 3")
        return data

    @property
    def least_classes(self) -> int:
        return 3

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / self.data_name

    @property
    def data_name(self) -> str:
        """The data's name as the name of a folder."""
        return re.sub(r"[^\w.-]+", "-", self.data).strip("-.")


@dataclass(frozen=True, kw_only=True)
class PaperOptions(TableOptions):
    """What the paper's tables are made of, where there is a choice."""

    attacks: Literal["paper", "all"] = "paper"
    """Attacks of Table 2. all: after the paper's four every other one, such as DeepFool, JSMA, L-BFGS, blur, substitute
    networks, PGD, Square and AutoAttack, each as published. Some take hours."""

    def other_attacks(self, say: Callable[[str], object]) -> dict[str, Attack]:
        """Those beyond the paper's; says which are left out, as a package is not there."""
        if self.attacks == "paper":
            return {}
        found = others()
        for name, package in missing(found).items():
            say(f"{name} is left out: it needs the package {package}")
            del found[name]
        return found


def check_least(options: Any, **least: int) -> None:
    """Raises InputError for a number below its least, or too large for torch; one that may be left out may be None."""
    for name, lowest in least.items():
        value = getattr(options, name)
        if value is not None and (value < lowest or not fits_int64(value)):
            most = " and below 2**63" if value > lowest else ""
            raise InputError(f"{name} must be at least {lowest}{most}, got {value}")


def check_confidence(value: float) -> None:
    """Raises InputError for a limit that no probability lies above, or that is none."""
    if not 0 <= value < 1:
        raise InputError(f"min_confidence must be at least 0 and below 1, got {value:g}")
