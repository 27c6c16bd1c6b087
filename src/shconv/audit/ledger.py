"""What was tried on which image of one network, and what broke it; kept in a run folder, so that a stopped audit can
continue. A finished attack is a row; one under way is a file that grows with every batch of images."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.audit.findings import Finding, Flags
from shconv.errors import InputError
from shconv.experiments.run_folder import Row, RunFolder

THREATS = ("linf", "l2", "pixels", "undetected")  # any change of few pixels; within eps, past a detector too
FIRST_LOOK = "first look"  # what the attacks before the first check are filed under


@dataclass(eq=False)
class Record:
    """One attack on the audit's N images, as far as it has come."""

    question: str  # digest of what was asked: the attack, the images, through which route
    attempted: Flags  # (N,)
    success: Flags  # (N,)
    queries: NDArray[np.int64]  # (N,)
    outside: int = 0  # misclassified examples that left the ball or the box: they do not count
    nan: int = 0  # examples on which the network returned NaN
    seconds: float = 0.0
    complete: bool = False
    adversarial: NDArray[np.float32] | None = None  # (attempted, C, H, W) in the images' order, where kept

    @classmethod
    def empty(cls, question: str, n: int) -> "Record":
        return cls(question, np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, np.int64))

    def arrays(self) -> dict[str, NDArray[Any]]:
        held = {"attempted": self.attempted, "success": self.success, "queries": self.queries}
        return held if self.adversarial is None else {**held, "adversarial": self.adversarial}

    def facts(self) -> dict[str, Any]:
        names = ("question", "outside", "nan", "seconds", "complete")
        return {name: getattr(self, name) for name in names}

    def then(self, at: NDArray[np.int64], part: "Record") -> "Record":
        """With the images at places `at` attempted as `part`, whose arrays are about these images alone, says."""
        after = replace(self, attempted=self.attempted.copy(), success=self.success.copy(), queries=self.queries.copy())
        after.attempted[at], after.success[at], after.queries[at] = True, part.success, part.queries
        after.outside, after.nan = self.outside + part.outside, self.nan + part.nan
        after.seconds = self.seconds + part.seconds
        if part.adversarial is not None:
            before = self.adversarial if self.adversarial is not None else part.adversarial[:0]
            after.adversarial = np.concatenate([before, part.adversarial])
        return after


@dataclass(eq=False)
class Ledger:
    """The attacks and findings on one network: `key` is NAME/seedS, `index` (N,) the images' places in their data."""

    folder: RunFolder
    key: str
    index: NDArray[np.int64]
    check: str = ""  # under way
    looked: bool = False  # is the first look over
    _broken: dict[tuple[str, bool], list[str | None]] = field(default_factory=dict)  # by threat, and shared or all
    _tried: dict[tuple[str, bool], NDArray[np.int64]] = field(default_factory=dict)
    _counted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Take in the attacks of the checks that are finished; those of an interrupted one when it asks for them.

        So that every attack, asked again, finds the same images standing as it did before.
        """
        finished = {row["slug"] for row in self._rows("finding")} | ({FIRST_LOOK} if self.looked else set())
        for row in self._rows("attack"):
            if row["checked_by"] in finished:
                self._count(row, self._read(row))

    def broken_by(self, threat: str, shared: bool = False) -> list[str | None]:
        """Of every image, the label of the headline's attack that broke it first, or None.

        shared: of the attacks that every network can meet (see Audit.attack).
        """
        return self._broken.get((threat, shared), [None] * len(self.index))

    def tried(self, threat: str, shared: bool = False) -> NDArray[np.int64]:
        """(N,): how many of the headline's attacks were tried on each image."""
        return self._tried.get((threat, shared), np.zeros(len(self.index), np.int64))

    def headline(self, threat: str) -> list[tuple[Row, Record]]:
        """The attacks that count for the worst case under the threat, with what they did to each image."""
        rows = (row for row in self.attacks() if row["headline"] and row["threat"] == threat)
        return [(row, self._read(row)) for row in rows]

    def attacks(self) -> list[Row]:
        """The rows of the attacks of this network, in the order in which they were finished."""
        return [row for row in self._rows("attack") if row["id"] in self._counted]

    def attack(self, slug: str, question: str) -> Record | None:
        """A finished attack. Raises InputError where it was another attack, or on other images."""
        row = self.folder.rows.get(self._id("attack", slug))
        if row is None:
            return None
        if row["question"] != question:
            raise InputError(
                f"{row['id']} was another attack, or ran on other images. One label names one attack, and one folder "
                "holds one version of the checks: use another folder"
            )
        record = self._read(row)
        self._count(row, record)
        return record

    def add_attack(self, slug: str, record: Record, about: Mapping[str, Any]) -> Row:
        id = self._id("attack", slug)
        said = {"id": id, "experiment": "audit", "kind": "attack", **self._network, **about, "checked_by": self.check}
        row = self.folder.add({**said, **record.facts()}, {"index": self.index, **record.arrays()})
        self._under_way(slug).unlink(missing_ok=True)
        self._count(row, record)
        return row

    def begun(self, slug: str, question: str) -> Record:
        """An attack that was stopped on its way, or a new one."""
        try:
            with np.load(self._under_way(slug), allow_pickle=False) as stored:
                arrays: dict[str, Any] = dict(stored)
            facts = json.loads(str(arrays.pop("facts")))
            if facts["question"] == question:
                return Record(**facts, **arrays)
        except FileNotFoundError:
            pass
        except Exception:  # a damaged file of a stopped run: its images are attacked again
            self._under_way(slug).unlink(missing_ok=True)
        return Record.empty(question, len(self.index))

    def keep(self, slug: str, record: Record) -> None:
        """Store an attack under way."""
        name = f"partial/{self._under_way(slug).name.removesuffix('.npz')}"
        self.folder.save_arrays(name, {**record.arrays(), "facts": np.array(json.dumps(record.facts()))})

    def finding(self, number: int, name: str) -> Row | None:
        return self.folder.rows.get(self._id("check", check_slug(number, name)))

    def add_finding(self, finding: Finding) -> Row:
        slug, array = check_slug(finding.check, finding.name), None
        if finding.arrays:
            array = f"audit-{file_slug(self.key)}-{finding.figure or slug}.npz"
            self.folder.save_arrays(f"arrays/{array.removesuffix('.npz')}", finding.arrays)
        names = ("check", "name", "alarm", "text", "not_run", "source")
        said = {name: getattr(finding, name) for name in names}
        return self.folder.add(
            {
                "id": self._id("check", slug),
                "experiment": "audit",
                "kind": "finding",
                **self._network,
                "slug": slug,
                **said,
                "numbers": _plain(finding.numbers),
                "array": array,
                "seconds": round(finding.seconds, 3),
            },
            {},
        )

    def findings(self) -> list[Row]:
        return self._rows("finding")

    def read_finding(self, row: Row) -> Finding:
        """The finding of a row of these, with its arrays."""
        names = ("check", "name", "alarm", "text", "not_run", "source", "numbers", "seconds")
        arrays = self.folder.path / "arrays" / row["array"] if row["array"] else None
        held = {}
        if arrays is not None and arrays.exists():
            with np.load(arrays, allow_pickle=False) as stored:
                held = dict(stored)
        return Finding(**{name: row[name] for name in names}, arrays=held)

    def add_verdict(self, said: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Row:
        about = {"id": self.verdict_id, "experiment": "audit", "kind": "verdict", **self._network}
        return self.folder.add({**about, **_plain(said)}, {"index": self.index, **arrays})

    @property
    def verdict_id(self) -> str:
        return f"audit/{self.key}/verdict"

    @property
    def _network(self) -> dict[str, Any]:
        name, _, seed = self.key.rpartition("/seed")
        return {"model": name, "seed": int(seed)}

    def _id(self, kind: str, slug: str) -> str:
        return f"audit/{self.key}/{kind}/{slug}"

    def _under_way(self, slug: str) -> Path:
        return self.folder.path / "partial" / f"{file_slug(self.key)}--{slug}.npz"

    def _rows(self, kind: str) -> list[Row]:
        part = "check" if kind == "finding" else kind
        return [row for id, row in self.folder.rows.items() if id.startswith(f"audit/{self.key}/{part}/")]

    def _read(self, row: Row) -> Record:
        arrays: dict[str, Any] = self.folder.outcomes(row["id"])
        arrays.pop("index")
        names = ("question", "outside", "nan", "seconds", "complete")
        return Record(**{name: row[name] for name in names}, **arrays)

    def _count(self, row: Row, record: Record) -> None:
        """What the attack did to the headline, once."""
        if row["id"] in self._counted:
            return
        self._counted.add(row["id"])
        if not row["headline"]:
            return
        for shared in (False, True) if row.get("shared") else (False,):
            key = row["threat"], shared
            self._tried[key] = self.tried(*key) + record.attempted
            self._broken[key] = [
                was if was is not None or not now else row["attack"]
                for was, now in zip(self.broken_by(*key), record.success, strict=True)
            ]


def question(*parts: object) -> str:
    """A digest that tells one attack on some images from another."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return sha.hexdigest()[:16]


def file_slug(text: str) -> str:
    """Words as part of a file's name: "PGD-50, cross-entropy" -> "PGD-50-cross-entropy"."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")


def check_slug(number: int, name: str) -> str:
    """5, "transfer" -> "05-transfer"."""
    return f"{number:02}-{file_slug(name)}"


def _plain(values: Mapping[str, Any]) -> Any:
    """As JSON has them; numbers of numpy become Python's."""
    return json.loads(
        json.dumps(values, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
    )
