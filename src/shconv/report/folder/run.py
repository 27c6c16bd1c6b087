"""A run folder as one object: rows, audits, per-image outcomes, data, configuration, machine, trained networks.
Read only; what is missing or left out is said in ``notes``."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from shconv.errors import InputError
from shconv.folders import what_is_at
from shconv.report.folder.audits import Audit, read_audits
from shconv.report.folder.fields import Counts, Texts, damaged, read
from shconv.report.folder.rows import Outcomes, Row, by_seed, decoded, read_json_lines, read_outcomes, read_rows
from shconv.report.published import NETWORKS, is_shc, twin
from shconv.toml import read_toml

T = TypeVar("T")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class DataInfo:
    """The data set of a run, as data.json tells it."""

    name: str
    classes: Texts = ()
    image_size: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    note: str = ""

    @property
    def is_demo(self) -> bool:
        return self.name == "demo"

    @property
    def title(self) -> str:
        """The name as it stands in a sentence."""
        if self.is_demo:
            return "the demo data"
        return f"{self.name} ({len(self.classes):,} classes)" if self.classes else self.name

    @property
    def is_imagenet(self) -> bool:
        """Is this the paper's data: the 1000 classes of ILSVRC-2012?"""
        return self.name.startswith("imagenet") and len(self.classes) == 1000


@dataclass(frozen=True)
class Selection:
    """Images that both networks of a pair classify correctly with confidence above ``min_confidence``."""

    pair: Texts
    seed: int
    wanted: int
    found: int
    min_confidence: float = 0.9
    highest_confidence: float | None = None  # of any image that both get right
    classes: Counts = field(default_factory=dict)  # images of each; empty where it was not stored


@dataclass(frozen=True)
class Trained:
    """A checkpoint folder: ``log`` has one record an epoch, ``parameters`` is None where no weights lie there."""

    model: str
    seed: int
    parameters: int | None
    log: tuple[Mapping[str, Any], ...]

    @property
    def key(self) -> tuple[str, int]:
        return self.model, self.seed


@dataclass(frozen=True, eq=False)
class Run:
    folder: Path
    rows: tuple[Row, ...]
    outcomes: Mapping[str, Outcomes]  # by row id
    data: DataInfo
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    trained: tuple[Trained, ...]
    selections: tuple[Selection, ...]
    notes: tuple[str, ...]
    audits: tuple[Audit, ...] = ()

    def find(
        self,
        experiment: str,
        model: str,
        attack: str,
        objective: str | None = None,
        route: str | None = None,
        sigma: float | None = None,
    ) -> dict[int, Row]:
        """Rows of one cell by seed. A row without a route counts as "both"; an argument that is None takes any."""
        return by_seed(
            row
            for row in self.rows
            if (row.experiment, row.model, row.attack) == (experiment, model, attack)
            and objective in (None, row.objective)
            and route in (None, row.route or "both")
            and sigma in (None, row.parameter("sigma"))
        )

    @property
    def models(self) -> tuple[str, ...]:
        """Networks that the run holds, in the paper's order, then any other."""
        held = dict.fromkeys([*(row.model for row in self.rows), *(each.model for each in self.trained)])
        return (*(name for name in NETWORKS if name in held), *(name for name in held if name not in NETWORKS))

    @property
    def is_own(self) -> bool:
        """Does it hold attacks that were named, and nothing of the paper's tables but clean accuracy?"""
        return {row.experiment for row in self.rows if row.attack != "clean"} == {"evaluate"}

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({row.seed for row in self.rows}))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(vanilla, SHC) pairs of which the run holds both."""
        return tuple((twin(name), name) for name in self.models if is_shc(name) and twin(name) in self.models)


def load_run(run_folder: Path | str) -> Run:
    """Read a run folder.

    Raises
    ------
    InputError
        Where the folder is missing, holds no row yet, or has a damaged file or line; the message names it.
    """
    folder = Path(run_folder)
    path = folder / "rows.jsonl"
    if not path.is_file():
        if (folder / "config.toml").is_file():
            raise InputError(f"{folder} holds no results yet: its rows.jsonl is missing.")
        raise InputError(
            f"{folder} {what_is_at(folder)}. Wanted: a folder that shconv reproduce, evaluate or audit wrote."
        )
    rows, notes = read_rows(path)
    audits, audit_notes = read_audits(path)
    if not rows and not audits:
        raise InputError(f"{folder} holds no results yet: its rows.jsonl has no whole row.")
    outcomes, outcome_notes = _read_outcomes(folder, rows)
    options = ("config.toml" if rows else "audit.json", "data.json", "environment.json")
    missing = [name for name in options if not (folder / name).is_file()]
    if missing:
        notes.append(f"Missing from the run folder: {', '.join(missing)}.")
    config, of_audit = _read(folder / "config.toml", read_toml), _read(folder / "audit.json")
    trained, log_notes = _read_trained(folder / "models")
    return Run(
        folder=folder,
        rows=rows,
        outcomes=outcomes,
        data=_read_as(DataInfo, folder / "data.json") if "data.json" not in missing else DataInfo("unknown data"),
        config=config | ({"audit": of_audit} if of_audit else {}),
        environment=_read(folder / "environment.json"),
        trained=trained,
        selections=tuple(_read_as(Selection, path) for path in sorted((folder / "selection").glob("*.json"))),
        notes=(*notes, *audit_notes, *outcome_notes, *log_notes),
        audits=audits,
    )


def _read_outcomes(folder: Path, rows: tuple[Row, ...]) -> tuple[dict[str, Outcomes], list[str]]:
    outcomes: dict[str, Outcomes] = {}
    disagreeing = []
    for row in rows:
        path = folder / "outcomes" / f"{row.id.replace('/', '--')}.npz"
        if not row.n or not path.is_file():
            continue
        found = read_outcomes(path)
        if len(found.index) != row.n or (row.accuracy is not None and abs(found.accuracy - row.accuracy) > 1e-6):
            disagreeing.append(row.id)
        else:
            outcomes[row.id] = found
    if not disagreeing:
        return outcomes, []
    names = f"{', '.join(disagreeing[:3])}{' ...' if len(disagreeing) > 3 else ''}"
    return outcomes, [f"The outcomes of {len(disagreeing)} rows disagree with the row and are left out: {names}."]


def _read_trained(folder: Path) -> tuple[tuple[Trained, ...], list[str]]:
    trained, notes = [], []
    for path in sorted(folder.glob("*-seed*")):
        match = re.fullmatch(r"(.+)-seed(\d+)", path.name)
        if match is None or not path.is_dir():
            continue
        log, weights = path / "log.jsonl", path / "model.safetensors"
        records, note = read_json_lines(log) if log.is_file() else ([], None)
        if note:
            notes.append(f"{path.name}: {note}")
        parameters = _count_parameters(weights) if weights.is_file() else None
        trained.append(Trained(match[1], int(match[2]), parameters, tuple(record for _, record in records)))
    return tuple(trained), notes


def _count_parameters(path: Path) -> int:
    """Parameters in a safetensors file, from its header alone; batch norm's running statistics are not parameters."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys() if not key.endswith(_BUFFERS)]  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    return sum(math.prod(shape) for shape in shapes)


def _read_as(kind: type[T], path: Path) -> T:
    with damaged(path):
        return read(kind, _read(path))


def _json(path: Path) -> dict[str, Any]:
    return decoded(path.read_bytes())


def _read(path: Path, decode: Callable[[Path], dict[str, Any]] = _json) -> dict[str, Any]:
    """What a file holds; nothing where it is not there."""
    with damaged(path):
        return decode(path) if path.is_file() else {}
