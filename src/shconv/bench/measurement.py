"""One number and what it is compared with: the rows of the benchmark's table and of its CSV file."""

import csv
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from shconv.machine import processor
from shconv.ops.cuda import runtime


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A contender against a baseline, or the reason why there is no number."""

    subject: str
    dtype: str
    layout: str
    measure: str
    contender: str
    baseline: str
    unit: str
    """Of value and baseline_value: "ms", "MiB" or "images/s"."""
    value: float | None = None
    baseline_value: float | None = None
    reason: str = ""
    wrong: bool = False
    """The result differs from the definition, so that its speed means nothing."""

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline_value if self.value is not None and self.baseline_value else None


def machine(device: torch.device) -> dict[str, str]:
    """Where the numbers come from."""
    gpu = _gpu(device) if device.type == "cuda" else {}
    threads = str(torch.get_num_threads())
    return {"processor": processor(), **gpu, "threads": threads, "torch": torch.__version__}


def _gpu(device: torch.device) -> dict[str, str]:
    """float32 convolutions may be TF32, on both sides of a ratio."""
    cuda, cudnn = str(torch.version.cuda), str(torch.backends.cudnn.version())
    tf32 = "allowed" if runtime.tf32() else "not allowed"
    return {"gpu": torch.cuda.get_device_name(device), "cuda": cuda, "cudnn": cudnn, "tf32": tf32}


def table(title: str, measurements: Sequence[Measurement]) -> Group:
    """Ratios, a line for each subject, layout and measure, with reasons below where a number is missing."""
    contenders = list(dict.fromkeys(each.contender for each in measurements))
    reasons = list(dict.fromkeys(f"{each.contender}: {each.reason}" for each in measurements if each.reason))
    marks = {reason: _letters(number) for number, reason in enumerate(reasons)}
    lines: dict[tuple[str, ...], dict[str, Measurement]] = {}
    for each in measurements:
        lines.setdefault((each.subject, each.layout, each.measure), {})[each.contender] = each
    drawn = Table("", "layout", "", "baseline", title=title, title_justify="left")
    for contender in contenders:
        drawn.add_column(contender, justify="right")
    for key, cells in lines.items():
        columns = [_cell(cells.get(contender), marks) for contender in contenders]
        drawn.add_row(*key, _baseline(next(iter(cells.values()))), *columns)
    return Group(drawn, *(Text(f"{mark}  {reason}") for reason, mark in marks.items()))


def write_csv(path: Path, measurements: Sequence[Measurement], about: dict[str, str]) -> None:
    """A line for each measurement, with the machine on every line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [{**asdict(each), "ratio": each.ratio, **about} for each in measurements]
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def _cell(measurement: Measurement | None, marks: dict[str, str]) -> str:
    if measurement is None:
        return ""
    if measurement.reason:
        return ("wrong " if measurement.wrong else "- ") + marks[f"{measurement.contender}: {measurement.reason}"]
    return "-" if measurement.ratio is None else f"{measurement.ratio:.2f}"


def _baseline(measurement: Measurement) -> str:
    value = measurement.baseline_value
    return measurement.baseline if value is None else f"{measurement.baseline} {value:,.4g} {measurement.unit}"


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    rest, letter = divmod(number, 26)
    return (_letters(rest - 1) if rest else "") + string.ascii_lowercase[letter]
