"""Options that several sub-commands share. A TOML file can hold any of them; a run folder keeps the resolved ones."""

import re
import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from shconv.data import ImageData, load_data
from shconv.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images, and how they are read."""

    data: str = "demo"
    """demo, cifar10, cifar10:PATH, folder:PATH (train/ and test/ or val/, a folder for each class) or imagenet:PATH."""
    image_size: int | None = None
    """Side of the images as tested; by default that of small square images, else the paper's 256."""
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do about a file that is no image: stop and name it, or leave it out and count it."""
    test_preset: Literal["paper", "imagenet"] = "paper"
    """Test preprocessing: the paper's distorting 299 -> 256, or the usual 256 -> 224; scaled to other sizes."""
    workers: int = 0
    """Processes that read images."""
    download: bool = False
    """Let cifar10 be downloaded where there is a network."""

    def load(self, want_train: bool) -> ImageData:
        data = load_data(
            self.data,
            image_size=self.image_size,
            on_corrupt=self.on_corrupt,
            test_preset=self.test_preset,
            download=self.download,
            want_train=want_train,
        )
        if len(data.classes) < 3:
            raise InputError(f"{data.name} has {len(data.classes)} classes; relative confidence needs at least 3")
        return data


@dataclass(frozen=True, kw_only=True)
class TableOptions(DataOptions):
    """How many images the tables use, and where the run folder is."""

    table1_images: int = 2_000
    """Images of Table 1; the paper takes all 50,000."""
    table2_images: int = 500
    """Pair-selected images of Tables 2 and 4; the paper takes 5,000."""
    table3_images: int = 16
    """Pair-selected images of Table 3 (LocSearchAdv is slow); the paper takes 500."""
    full: bool = False
    """Take as many images as the paper does in every table."""
    batch_size: int = 128
    """The fixed batch shape of attacks and evaluation."""
    attack_seed: int = 0
    """Of the attacks' randomness and of the choice of images."""
    out: Path | None = None
    """Run folder; by default runs/ and the name of the data. The same command goes on where it stopped."""

    def __post_init__(self) -> None:
        for name in ("table1_images", "table2_images", "table3_images", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.attack_seed < 0:
            raise InputError(f"attack_seed must be at least 0, got {self.attack_seed}")

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / re.sub(r"[^\w.-]+", "-", self.data).strip("-.")


def from_toml(kind: type[Any], path: Path, base: Any | None) -> Any:
    """Options of this kind from a TOML file; what it leaves out is base's, or has to be given otherwise.

    Raises InputError for a missing or damaged file, an unknown option or a wrong value.
    """
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--config {path} cannot be read: {error}") from error
    stored.pop("command", None)
    known = sorted(field.name for field in fields(kind))
    unknown = [name for name in stored if name not in known]
    if unknown:
        raise InputError(f"--config {path} has unknown options {', '.join(unknown)}; known are {', '.join(known)}")
    paths = {field.name for field in fields(kind) if "Path" in str(field.type)}
    values: dict[str, Any] = {} if base is None else {field.name: getattr(base, field.name) for field in fields(kind)}
    for name, value in stored.items():
        values[name] = tuple(value) if isinstance(value, list) else Path(value) if name in paths else value
    required = {field.name for field in fields(kind) if field.default is MISSING}
    try:
        return kind(**{name: tyro.MISSING for name in required if name not in values}, **values)
    except TypeError as error:
        raise InputError(f"--config {path}: {error}") from error


def plain(options: Any) -> dict[str, Any]:
    """Options as TOML takes them: paths as text, nothing that is None."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items() if value is not None
    }


def best_device() -> torch.device:
    """The accelerator that accelerate would take, else the CPU."""
    from accelerate import PartialState

    return PartialState().device  # type: ignore[no-any-return]
