"""shconv bench: what Statistical Hyper-Convolution costs, as ratios within one run, with the machine above."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import torch

from shconv.bench import attack, host, model, op
from shconv.bench.measurement import Measurement, machine, table, write_csv
from shconv.bench.setting import SIZES, Setting
from shconv.commands.options import check_least
from shconv.commands.parser import POSITIONAL
from shconv.devices import device_named
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.files import check_writable
from shconv.ops import FORMULATIONS
from shconv.terminal import console

TITLES = {
    "op": "Filtered convolution: times over F.conv2d's",
    "host": "Cost of a call without the computation: SHConv2d and its relatives over nn.Conv2d",
    "model": "SHC networks: time and memory over their twins'",
    "attack": "Attacks: time over the passes they need (low is good), images a second over plain ones (high is good)",
}
_ONLY = {"rows": ("op",), "formulations": ("op",), "networks": ("model", "attack"), "batch": ("model", "attack"),
         "image_size": ("model", "attack"), "width": ("model", "attack"),
         "compiled": ("host", "model", "attack")}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time the op against F.conv2d, SHC networks against their twins, or attacks against the passes they need.

    Shows medians of interleaved runs. Before the timing, each result is compared with the definition in float64. A
    result that is wrong by more than rounding gets no time, and the exit code is 1.
    """

    what: Annotated[Literal["op", "host", "model", "attack"], POSITIONAL]
    """op: the filtered convolution, by every formulation (way to compute it). host: microseconds of a call, also of
    SHC's relatives. model: training step, inference, memory. attack: FGSM, LocSearchAdv."""
    rows: tuple[str, ...] = ()
    """op: shapes NxDxH (stride 1) or NxDxH/2 (stride 2), or prefixes of the table's shapes; by default all of them."""
    formulations: tuple[str, ...] = ()
    """op: formulations to time: auto, and those that info lists; by default all."""
    networks: tuple[str, ...] = ()
    """model, attack: by default plain10 (slim, 128 images of 32 px) and resnet18 (16 images of 256 px)."""
    batch: int | None = None
    """model, attack: images in a batch, for all networks."""
    image_size: int | None = None
    """model, attack: side of the images, for all networks; up to 64 px with the small stem and 10 classes."""
    width: int | None = None
    """model, attack: channels of the first stage, for all networks."""
    compiled: bool = False
    """model, attack: torch.compile the networks. host: 20 layers in a row, eager and compiled."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """op, host: number type of the images and the weight. model, attack: bfloat16 is mixed precision."""
    layout: Literal["contiguous", "channels_last", "both"] = "both"
    """Memory layout of the images and weights."""
    device: str | None = None
    """cpu, cuda, cuda:1 ...; by default cuda where there is one."""
    threads: int | None = None
    """torch's threads on the CPU; by default torch's choice. 1 takes the processor's time, not a clock's: for a machine
    that is busy with other things."""
    rounds: int = 9
    """How often everything is timed; the median is shown."""
    csv: Path | None = None
    """Also write the numbers to this file."""

    def check(self) -> None:
        """Raises InputError for options out of range or of another benchmark, before anything runs."""
        for field in fields(self):
            if self.what not in _ONLY.get(field.name, (self.what,)) and getattr(self, field.name) != field.default:
                raise InputError(f"{field.name} is an option of bench {' and '.join(_ONLY[field.name])}")
        check_least(self, rounds=1, threads=1, batch=1, image_size=16, width=1)
        _known("formulation", self.formulations, ("auto", *FORMULATIONS))
        _known("network", self.networks, tuple(SIZES))
        device_named(self.device)
        op.select(self.rows)
        if self.csv is not None:
            check_writable(self.csv)

    def run(self) -> None:
        self.check()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = True  # cuDNN measures its choices as we do ours
        about = machine(self._device)
        wide = sys.stdout.isatty() or "COLUMNS" in os.environ
        out = console(width=None if wide else 160)  # a file has room for the table
        out.print(", ".join(f"{name} {value}" for name, value in about.items()), soft_wrap=True)
        measurements: list[Measurement] = []
        try:
            with ExperimentProgress().task(f"bench {self.what}", self._timings() * (self.rounds + 1)) as tick:
                measurements.extend(self._measurements(tick))
        finally:  # a stopped benchmark shows what it has
            if measurements:
                out.print(table(f"{TITLES[self.what]} ({self.dtype})", measurements))
            if measurements and self.csv is not None:
                write_csv(self.csv, measurements, about)
        if wrong := [each for each in measurements if each.wrong]:
            print(f"shconv: no speed for a result that is wrong: {_first(wrong)}", file=sys.stderr)
            raise SystemExit(1)

    def _measurements(self, tick: Callable[[], object]) -> Iterator[Measurement]:
        if self.what == "op":
            names = self.formulations or (*FORMULATIONS, "auto")
            rows = op.select(self.rows)
            yield from op.measure(rows, names, self.dtype, self._layouts, self._device, self.rounds, tick)
        if self.what == "host":
            measure = host.compiled if self.compiled else host.measure
            yield from measure(self.dtype, self._layouts, self._device, self.rounds, tick)
        for setting in self._settings():
            yield from (model if self.what == "model" else attack).measure(setting, self.rounds, tick)

    def _timings(self) -> int:
        """How many sets of contenders there are to time."""
        if self.what == "op":
            return len(op.select(self.rows)) * len(self._layouts) * len(op.PASSES)
        return 2 * (len(self._layouts) if self.what == "host" else len(self._settings()))

    def _settings(self) -> list[Setting]:
        networks = () if self.what in ("op", "host") else self.networks or ("plain10", "resnet18")
        return [self._setting(name, layout) for name in networks for layout in self._layouts]

    def _setting(self, name: str, layout: str) -> Setting:
        given = (self.batch, self.image_size, self.width)
        batch, image_size, width = (own or usual for own, usual in zip(given, SIZES[name], strict=True))
        return Setting(name, batch, image_size, width, self.dtype, layout, str(self._device), self.compiled)

    @property
    def _layouts(self) -> tuple[str, ...]:
        return tuple(op.LAYOUTS) if self.layout == "both" else (self.layout,)

    @property
    def _device(self) -> torch.device:
        return device_named(self.device) or torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _known(kind: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"unknown {kind} {name!r}, choose from {', '.join(known)}")


def _first(wrong: list[Measurement]) -> str:
    first, more = wrong[0], len({(each.subject, each.layout, each.contender) for each in wrong}) - 1
    said = f"{first.contender}, {first.subject}, {first.layout}: {first.reason}"
    return said + (f" (and {more} more)" if more else "")
