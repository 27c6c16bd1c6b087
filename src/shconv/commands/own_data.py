"""--data module:object, for commands that train nothing: images of a user's own, taken as they are."""

from dataclasses import dataclass
from typing import ClassVar

from shconv.commands.options import DataOptions
from shconv.commands.own_objects import own_result
from shconv.data import ImageData, Preparation
from shconv.data.given import as_data
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress


@dataclass(frozen=True, kw_only=True)
class OwnDataOptions(DataOptions):
    """Which images; a user's own too."""

    takes_own_data: ClassVar[bool] = True

    data: str = "demo"
    """demo, cifar10, cifar10:PATH, folder:PATH (test/ or val/, a folder for each class), imagenet:PATH (class folders,
    Parquet files or WebDataset tars), or your own as module:object: (images, labels), a torch Dataset or DataLoader, a
    Hugging Face dataset, or a function that returns one."""

    def check(self) -> None:
        super().check()
        if self.own_data and (self.image_size is not None or self.test_preset != "auto"):
            raise InputError(
                f"--data {self.data}: its images are taken as they are; leave out --image-size, --test-preset"
            )

    def load(self, progress: ExperimentProgress, want_train: bool, preparation: Preparation | None = None) -> ImageData:
        if not self.own_data:
            return super().load(progress, want_train, preparation)
        return as_data(own_result("--data", self.data), self.data)
