"""A run folder as the experiments fill it: rows appended as they come, per-image outcomes, arrays, what was asked for.
One run at a time; what is there already is not computed again, so the same command continues where it stopped."""

import csv
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.errors import InputError
from shconv.files import InUse, check_held, named, replace_file, replace_json, replace_text
from shconv.processes import Processes
from shconv.toml import read_toml, to_toml
from shconv.training.checkpoint import first_difference

Row = dict[str, Any]
Arrays = Mapping[str, Any]  # what numpy makes arrays of
LONGEST = 200  # bytes of a file's name, without its ending


@dataclass(frozen=True)
class Asked:
    """What a command asks of a run folder: its options, and those in which a later command may differ.

    usual: by option its default, which a folder has that does not know the option, being of an earlier version. So a
    new option's default has to mean what was done before there was the option.
    """

    options: Mapping[str, Any]
    usual: Mapping[str, Any] = field(default_factory=dict)
    free: Collection[str] = ()

    @property
    def plain(self) -> Row:
        return as_json({name: value for name, value in self.options.items() if value is not None})

    def check(self, folder: Path) -> None:
        """Raises InputError where a folder holds a run with another option, naming it, or a damaged config.toml."""
        path, plain = folder / "config.toml", self.plain
        with whole(path):
            stored = {**as_json(self.usual), **read_toml(path)} if path.exists() else plain
        _check_same(folder, stored, plain, {**stored, **plain}.keys() - {*self.free})

    def is_refused(self, folder: Path) -> bool:
        try:
            self.check(folder)
        except (OSError, InputError):
            return True
        return False


class RunFolder:
    """Open with RunFolder.opened(path). `rows` holds what rows.jsonl holds, by id; writes=False: only reads files."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.rows: dict[str, Row] = {row["id"]: row for row in _stored_rows(path / "rows.jsonl", writes)}

    @staticmethod
    @contextmanager
    def opened(path: Path, processes: Processes = Processes()) -> Iterator["RunFolder"]:  # noqa: B008 (frozen)
        """Lock the folder, making it if need be; of several processes the first does, and alone writes.

        Raises InputError where another run works in it.
        """
        with processes.alone_in(path), taken_back(path) if processes.is_first else nullcontext():
            folder = RunFolder(path, writes=processes.is_first)
            processes.wait()  # all have the same rows, before the first adds one
            yield folder

    def settle(self, asked: Asked) -> None:
        """Store the resolved options as config.toml; those of an earlier command must agree but for the free ones.

        Raises InputError naming the first option that differs.
        """
        asked.check(self.path)
        if self.writes:
            replace_text(self._file("config.toml"), to_toml(asked.plain))

    def settle_json(
        self,
        name: str,
        facts: Mapping[str, Any],
        *,
        grows: bool = False,
        usual: Mapping[str, Any] = MappingProxyType({}),
        later: Collection[str] = (),
    ) -> None:
        """Store facts that the rows rest on; those of an earlier command must agree. grows: new ones may join them.

        usual: as which facts count that a file of an earlier version lacks. later: what such a file's records lack.
        Raises InputError naming the first fact that differs.
        """
        plain = as_json(facts)
        stored = {**as_json(usual), **self.read_json(name)} if (self.path / name).exists() else plain
        plain = _known(plain, stored, later)
        _check_same(self.path, stored, plain, stored.keys() & plain.keys() if grows else {**stored, **plain})
        self.save_json(name, {**stored, **plain})

    def add(self, row: Row, arrays: Arrays) -> Row:
        """Append a row; its per-image arrays are on disk before it."""
        self.save_arrays(f"outcomes/{file_name(row['id'])}", arrays)
        if self.writes:
            path = self._file("rows.jsonl")
            with named(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, default=_other) + "\n")
                file.flush()
                os.fsync(file.fileno())  # what it was computed from is removed next
        self.rows[row["id"]] = row
        return row

    def save_arrays(self, name: str, arrays: Arrays) -> None:
        if not self.writes:
            return
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        replace_file(self._file(f"{name}.npz"), buffer.getvalue())

    def save_json(self, name: str, value: Any) -> None:
        if self.writes:
            replace_json(self._file(name), value)

    def read_json(self, name: str) -> Row:
        """What save_json stored; {} where nothing is. Raises InputError for a damaged file."""
        return read_facts(self.path / name)

    def save_images(self, names: Sequence[str], labels: NDArray[Any]) -> None:
        """images.csv: every test image's place, file and label. Raises InputError where it is about other images; the
        folder of the files may be another one."""
        path, text = self.path / "images.csv", io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("index", "file", "label"))
        writer.writerows((place, names[place], int(label)) for place, label in enumerate(labels))
        content = text.getvalue().encode("utf-8", "backslashreplace")
        if path.exists():
            if _told(path.read_bytes()) != _told(content):
                raise InputError(f"{path} has other files or labels than the data now; take another folder")
        elif self.writes:
            replace_file(self._file(path.name), content)

    def _file(self, name: str) -> Path:
        """Where a file is written: the folder that it is in is made. Raises InputError where the run's is not there."""
        check_held(self.path)
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        return path

    def outcomes(self, id: str) -> dict[str, NDArray[Any]]:
        """The per-image arrays of a row that is there. Raises InputError where their file is missing or damaged."""
        return outcomes_in(self.path, id)

    def kept(self, id: str) -> bool:
        """Whether the adversarial images of a row that is there were kept; errors as in `outcomes`."""
        with _outcomes(self.path, id) as arrays:
            return "adversarial" in arrays


@contextmanager
def taken_back(path: Path) -> Iterator[None]:
    """What a run is refused for before it computes anything leaves no options or facts in its folder, so that another
    try may have others."""
    before = {*path.iterdir()} if path.is_dir() else set()
    try:
        yield
    except InUse:
        raise
    except InputError:
        new = {*path.iterdir()} - before if path.is_dir() else set()
        if path / "config.toml" in new and not any(each.is_dir() or each.suffix == ".jsonl" for each in new):
            for each in new - {path / ".lock"}:
                each.unlink(missing_ok=True)
        raise


def outcomes_in(folder: Path, id: str) -> dict[str, NDArray[Any]]:
    """The per-image arrays of a row in a run folder, each with a line for every image of `index`. Raises InputError
    where their file is missing or damaged."""
    with _outcomes(folder, id) as arrays:
        held = dict(arrays)
        n = len(np.unique(held["index"]))
        if not {"correct", "success"} & held.keys() or any(each.shape[:1] != (n,) for each in held.values()):
            raise ValueError("no outcome for each image")
        return held


@contextmanager
def _outcomes(folder: Path, id: str) -> Iterator[Any]:
    path = folder / "outcomes" / f"{file_name(id)}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise InputError(
            f"{path} is missing or damaged; to compute it again, remove the row {id} from rows.jsonl"
        ) from None


def read_facts(path: Path) -> Row:
    """What a file of facts holds; {} where there is none. Raises InputError for a damaged one."""
    with whole(path):
        stored: Row = json.loads(path.read_bytes()) if path.exists() else {}
        if not isinstance(stored, dict):
            raise ValueError("it is not a JSON object")
    return stored


def holds_other(folder: Path, name: str, facts: Mapping[str, Any], later: Collection[str] = ()) -> bool:
    """Would settle_json, with grows, refuse these facts?"""
    try:
        stored = read_facts(folder / name)
    except (OSError, InputError):
        return True
    plain = _known(as_json(facts), stored, later)
    return any(stored[each] != plain[each] for each in stored.keys() & plain.keys())


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """What is read in here has to be whole. Raises InputError, naming the file, where it is damaged."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); take another folder") from error


def _told(images: bytes) -> list[tuple[str, str]]:
    """Of the lines of images.csv a file's own name and its label."""
    lines = csv.reader(io.StringIO(images.decode("utf-8", "backslashreplace"), newline=""))
    return [(re.split(r"[/\\]", line[1])[-1], line[2]) for line in lines if len(line) == 3]


def file_name(id: str) -> str:
    """A row's id, or a network's name, as that of a file: table1/plain10/clean -> table1--plain10--clean. One that is
    longer than a file's name may be ends in its digest."""
    name = id.replace("/", "--")
    if len(os.fsencode(name)) <= LONGEST:
        return name
    return f"{os.fsencode(name)[:LONGEST].decode('utf-8', 'ignore')}-{hashlib.sha256(os.fsencode(id)).hexdigest()[:8]}"


def _stored_rows(path: Path, writes: bool) -> Iterator[Row]:
    """The rows of a file; a last one that a stopped run left half written is cut off the file."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content and writes:
        replace_file(path, whole)
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                raise ValueError("no row with an id")
        except ValueError as error:
            raise InputError(
                f"{path}, line {number} is damaged ({error}); remove the line to compute it again"
            ) from error
        yield row


def _check_same(folder: Path, stored: Row, asked: Row, bound: Collection[str]) -> None:
    names = [name for name in {**asked, **stored} if name in bound]  # the command comes first
    difference = first_difference({n: stored.get(n) for n in names}, {n: asked.get(n) for n in names})
    if difference is not None:
        name, there, here = difference
        raise InputError(
            f"{folder} holds a run with {name} = {there!r}, asked for is {here!r}; "
            "take another folder, or the same as there"
        )


def _known(asked: Row, stored: Any, later: Collection[str]) -> Row:
    """`asked` without what is `later` than the stored records of the same name."""
    if not isinstance(stored, dict):
        return asked
    return {
        name: _known(value, stored.get(name), later) if isinstance(value, dict) else value
        for name, value in asked.items()
        if name in stored or name not in later
    }


def as_json(values: Mapping[str, Any]) -> Row:
    """As JSON and TOML give them back: lists, no tuples, and numbers of Python."""
    plain: Row = json.loads(json.dumps(dict(values), default=_other))
    return plain


def _other(value: Any) -> Any:
    """What JSON has no word for, so that what was computed is not lost: numbers of numpy, the rest as text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
