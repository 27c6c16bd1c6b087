"""The hyper-parameters of a LocSearchAdv search; what each one does stands at LocSearchAdv."""

from dataclasses import dataclass
from typing import Literal

from shconv.attacks.checks import check_choice, check_count, check_flag
from shconv.numbers import read_numbers

Probe = Literal["perturb", "cyclic"]
Order = Literal["lowest", "highest", "random"]


@dataclass(frozen=True)
class Rules:
    """Raises InputError for a value out of range."""

    pixels_per_step: int = 10  # t
    steps: int = 150  # R
    half_width: int = 5  # d
    r: float = 1.5
    initial_fraction: float = 0.1
    probe: Probe = "perturb"
    order: Order = "lowest"
    max_probes: int | None = 128
    exclude_rounds: int = 30
    p: float = 1.0
    adapt_p: bool = True
    stop_on_success: bool = False
    k: int = 1
    batch_size: int = 128

    def __post_init__(self) -> None:
        for name in ("pixels_per_step", "steps", "k", "batch_size"):
            check_count(name, getattr(self, name), 1)
        for name in ("half_width", "exclude_rounds"):
            check_count(name, getattr(self, name), 0)
        if self.max_probes is not None:
            check_count("max_probes", self.max_probes, self.pixels_per_step)
        read_numbers(self, "r", high=2)  # beyond 2, wrapping once would not bring a value back into the box
        read_numbers(self, "initial_fraction", high=1)
        read_numbers(self, "p")  # no budget: the probe may leave the box
        check_choice("probe", self.probe, Probe)
        check_choice("order", self.order, Order)
        check_flag("adapt_p", self.adapt_p)
        check_flag("stop_on_success", self.stop_on_success)
