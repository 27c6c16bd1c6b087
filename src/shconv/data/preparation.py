"""How images are made ready for a network: their side and the way there. A checkpoint keeps it, and whatever reads the
checkpoint prepares images likewise: a network that sees other sizes than those it was trained on is worth nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from shconv.errors import InputError

Preset = Literal["paper", "imagenet"]

TRAIN_SIZE, TEST_SIZE = 224, 256  # section 3.2
LARGEST = 2**14  # pixels a side: more is no size of images


@dataclass(frozen=True)
class Preparation:
    """How images were prepared for a network. None: not known, and left to the data."""

    image_size: int | None = None  # side in test
    train_size: int | None = None  # side in training
    test_preset: Preset | None = None
    channels: int = 3  # 1: grey

    @classmethod
    def of(cls, info: Mapping[str, Any], where: object) -> Self:
        """As a config.json or a run folder's data.json has it under "data". Raises InputError for what can't be it.

        Earlier versions stored the size alone, and took the paper's preset where none was given.
        """
        about, model = (part if isinstance(part := info.get(key), Mapping) else {} for key in ("data", "model"))
        channels = 1 if 1 in (about.get("channels"), model.get("in_channels")) else 3
        if about.get("image_size") is None:
            return cls(channels=channels)
        size, preset = about["image_size"], about.get("test_preset", "paper")
        train_size = about.get("train_size", TRAIN_SIZE if size == TEST_SIZE else size)
        for name, value in (("image_size", size), ("train_size", train_size)):
            if type(value) is not int or not 0 < value <= LARGEST:
                raise InputError(f"{where} has the {name} {value!r}; wanted: pixels, 1 to {LARGEST}")
        if preset not in get_args(Preset):
            raise InputError(f"{where} has the test_preset {preset!r}; wanted: {' or '.join(get_args(Preset))}")
        return cls(size, train_size, preset, channels)

    def stored(self) -> dict[str, Any]:
        """The known fields, as plain values; channels where they are not the usual three."""
        usual = {"channels": 3}
        return {name: value for name, value in vars(self).items() if value is not None and usual.get(name) != value}

    def unlike(self, taken: Self, name: object) -> str | None:
        """The warning for a network of this preparation that sees images of another; None for the same or unknown."""
        if self.image_size is None or (self.image_size, self.test_preset) == (taken.image_size, taken.test_preset):
            return None
        return f"warning: {name} was trained for images of {self}; here they are prepared at {taken}"

    def __str__(self) -> str:
        return f"{self.image_size} px, test preset {self.test_preset}"
