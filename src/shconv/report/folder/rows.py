"""Rows and per-image outcomes of a run: one typed object for each line of rows.jsonl and each file of outcomes/.
A damaged line is an error that names it; a half-written last line, left by a stopped run, is skipped and said."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shconv.errors import InputError
from shconv.intervals import wilson
from shconv.report.folder.arrays import check, load
from shconv.report.folder.fields import Ends, Options, Share, damaged, measured, read

MEASURED = ("table1", "table2", "table3", "table4")
AUDIT = "audit"  # an experiment with rows of another kind, read by audits.py
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network under one attack. Shares are in 0..1; ``accuracy`` is None where there was no image."""

    id: str
    experiment: str
    model: str
    seed: int = 0
    attack: str
    parameters: Options = field(default_factory=dict)
    objective: str | None
    route: str | None
    step: int | None
    n: int = 0
    wanted: int | None
    accuracy: Share | None
    interval: Ends | None
    rcd_mean: float | None
    rcd_median: float | None
    rcd_floored: int | None
    linf: float | None
    linf_max: float | None
    l2: float | None
    queries: float | None
    seconds: float | None
    extra: Options

    def parameter(self, name: str) -> float | None:
        """A parameter of the attack, where it has one of that name that is a number."""
        return measured(self.parameters, name)

    def measured(self, name: str) -> float | None:
        """A number that only some experiments measure."""
        return measured(self.extra, name)

    @classmethod
    def of(cls, record: Options) -> "Row":
        """Check one decoded line; an interval that it has not is Wilson's. Raises ValueError, naming a wrong field."""
        extra = {key: value for key, value in record.items() if key not in cls.__dataclass_fields__}
        if not record.get("n"):
            record = {**record, "accuracy": None, "interval": None}
        row = read(cls, record, extra=extra)
        if row.accuracy is None and row.n and row.experiment in MEASURED:
            raise ValueError(f'"accuracy" is missing although n is {row.n}')
        if row.accuracy is None:
            return replace(row, interval=None)
        return replace(row, interval=row.interval or wilson(round(row.accuracy * row.n), row.n))


def read_json_lines(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], str | None]:
    """(line number, object) of each line, and a note where a half-written last line was left out.

    Raises InputError, naming the line, where another line is not a JSON object.
    """
    *whole, last = path.read_bytes().split(b"\n")
    records, note = [], None
    for place, line in enumerate([*whole, last], start=1):
        if not line.strip():
            continue
        try:
            with damaged(f"{path}, line {place}"):
                records.append((place, decoded(line)))
        except InputError:
            if place <= len(whole):
                raise
            note = f"{path.name}: line {place} was only half written (a stopped run) and is left out."
    return records, note


def decoded(text: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    return record


def completed(record: Options) -> dict[str, Any]:
    """A decoded line as it is, with what `Row` says where it is silent. Raises ValueError, naming a wrong field."""
    row = vars(Row.of(record))
    return {**record, **{key: row[key] for key in row if key != "extra" and record.get(key) is None}}


def read_rows(path: Path, parse: Callable[[Options], Any] = Row.of) -> tuple[tuple[Any, ...], list[str]]:
    """All rows but an audit's, in the order written, a repeated id replaced by its last; notes on what is left out."""
    records, note = read_json_lines(path)
    rows, notes = parsed(path, [each for each in records if each[1].get("experiment") != AUDIT], parse)
    return rows, [*([note] if note else []), *notes]


def parsed(
    path: Path, records: Iterable[tuple[int, dict[str, Any]]], parse: Callable[[Options], R]
) -> tuple[tuple[R, ...], list[str]]:
    """Rows from (line number, object), the last of each id. Raises InputError, naming the line, where parse cannot."""
    rows: dict[str, R] = {}
    repeated = 0
    for line, record in records:
        with damaged(f"{path}, line {line}"):
            row = parse(record)
        repeated += record["id"] in rows
        rows[record["id"]] = row
    notes = [f"{path.name}: {repeated} rows were written again later; the last one of each counts."] if repeated else []
    return tuple(rows.values()), notes


@dataclass(frozen=True)
class Outcomes:
    """Which images a row is about, index (n,) ascending, and whether the network was right on each, correct (n,)."""

    index: NDArray[np.int64]
    correct: NDArray[np.bool_]
    l2: NDArray[np.float64] | None = None  # (n,), how far each image was moved, where that is stored

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(int(self.correct.sum()), len(self.index))


def read_outcomes(path: Path) -> Outcomes:
    """Outcomes of one row, sorted by index. Raises InputError where the file cannot be one."""
    arrays = load(path, "index", "correct", "l2")
    check(path, arrays, {"index": ("n",), "correct": ("n",)})
    index, l2 = arrays["index"], arrays.get("l2")
    if len(np.unique(index)) != len(index):
        raise InputError(f"{path} is damaged: it wants one index and one outcome for each image.")
    order = np.argsort(index)
    moved = None if l2 is None or l2.shape != index.shape else l2[order].astype(np.float64)
    return Outcomes(index[order].astype(np.int64), arrays["correct"][order].astype(bool), moved)


def on_shared_images(outcomes: Sequence[Outcomes]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The images that all outcomes hold, index (n,), and correct (len(outcomes), n) on them."""
    index = reduce(np.intersect1d, (each.index for each in outcomes))
    return index, np.stack([each.correct[np.searchsorted(each.index, index)] for each in outcomes])


def by_seed(rows: Iterable[Row]) -> dict[int, Row]:
    """Rows of one cell, the last of each seed, in the order of the seeds."""
    return {row.seed: row for row in sorted(rows, key=lambda row: row.seed)}
