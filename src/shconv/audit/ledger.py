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

from shconv.audit.findings import FACTS, Finding, Flags, Outcome, any_of
from shconv.errors import InputError
from shconv.experiments.run_folder import Row, RunFolder, as_json

THREATS = ("linf", "l2", "pixels", "undetected")  # any change of few pixels; within eps, past a detector too
FIRST_LOOK = "first look"  # what the attacks before the first check are filed under
_SAID = ("check", "name", "alarm", "text", "not_run", "source")  # fields of a finding as its row has them


@dataclass(eq=False)
class Ledger:
    """The attacks and findings on one network: `key` is NAME/seedS, `index` (N,) the images' places in their data."""

    folder: RunFolder
    key: str
    index: NDArray[np.int64]
    check: str = ""  # under way
    looked: bool = False  # is the first look over
    _counted: dict[str, tuple[Row, Outcome]] = field(default_factory=dict)  # by their rows' ids, as they came

    def __post_init__(self) -> None:
        """Take in the attacks of the checks that are finished; those of an interrupted one when it asks for them.

        So that every attack, asked again, finds the same images standing as it did before.
        """
        finished = {row["slug"] for row in self.findings()} | ({FIRST_LOOK} if self.looked else set())
        for row in self._rows("attack"):
            if row["checked_by"] in finished:
                self._count(row, self._read(row))

    def attacks(self) -> list[Row]:
        """The rows of the attacks of this network, in the order in which they were finished."""
        return [row for row, _ in self._counted.values()]

    def under(self, threat: str, shared: bool = False) -> list[tuple[Row, Outcome]]:
        """The attacks under a threat, with what they did to each image.

        shared: those that every network can meet (see Audit.attack).
        """
        held = [each for each in self._counted.values() if each[0]["threat"] == threat]
        return [each for each in held if each[0].get("shared")] if shared else held

    def broken(self, threat: str, shared: bool = False) -> Flags:
        """(N,): which images an attack broke."""
        return any_of([outcome.success for _, outcome in self.under(threat, shared)], len(self.index))

    def tried(self, threat: str, shared: bool = False) -> Flags:
        """(N,): on which images an attack was tried."""
        return any_of([outcome.attempted for _, outcome in self.under(threat, shared)], len(self.index))

    def broken_by(self, threat: str) -> list[str | None]:
        """Of every image, the label of the attack that broke it first, or None."""
        first: list[str | None] = [None] * len(self.index)
        for row, outcome in self.under(threat):
            for at in np.flatnonzero(outcome.success):
                first[at] = first[at] or row["attack"]
        return first

    def attack(self, slug: str, question: str) -> Outcome | None:
        """A finished attack. Raises InputError where it was another attack, or on other images."""
        row = self.folder.rows.get(self._id("attack", slug))
        if row is None:
            return None
        if row["question"] != question:
            raise InputError(
                f"{row['id']} was another attack, or ran on other images. One label names one attack, and one folder "
                "holds one version of the checks: use another folder"
            )
        outcome = self._read(row)
        self._under_way(slug).unlink(missing_ok=True)  # a kill may have left it
        self._count(row, outcome)
        return outcome

    def add_attack(self, slug: str, outcome: Outcome, about: Mapping[str, Any]) -> Row:
        said = {**self._about("attack", self._id("attack", slug)), **about, "checked_by": self.check}
        row = self.folder.add({**said, **outcome.facts()}, {"index": self.index, **outcome.arrays()})
        self._under_way(slug).unlink(missing_ok=True)
        self._count(row, outcome)
        return row

    def begun(self, slug: str, question: str) -> Outcome:
        """An attack that was stopped on its way, or a new one."""
        try:
            with np.load(self._under_way(slug), allow_pickle=False) as stored:
                arrays: dict[str, Any] = dict(stored)
            facts = json.loads(str(arrays.pop("facts")))
            if facts["question"] == question:
                return Outcome(**facts, **arrays)
        except FileNotFoundError:
            pass
        except Exception:  # a damaged file of a stopped run: its images are attacked again
            self._under_way(slug).unlink(missing_ok=True)
        return Outcome.none(question, len(self.index))

    def keep(self, slug: str, outcome: Outcome) -> None:
        """Store an attack under way."""
        name = f"partial/{self._under_way(slug).stem}"
        self.folder.save_arrays(name, {**outcome.arrays(), "facts": np.array(json.dumps(outcome.facts()))})

    def finding(self, number: int, name: str) -> Row | None:
        return self.folder.rows.get(self._id("check", check_slug(number, name)))

    def add_finding(self, finding: Finding) -> None:
        slug, array = check_slug(finding.check, finding.name), None
        if finding.arrays:
            array = f"audit-{file_slug(self.key)}-{finding.figure or slug}.npz"
            self.folder.save_arrays(f"arrays/{array.removesuffix('.npz')}", finding.arrays)
        said = {"slug": slug, **{name: getattr(finding, name) for name in _SAID}, "numbers": as_json(finding.numbers)}
        end = {"array": array, "seconds": round(finding.seconds, 3)}
        self.folder.add({**self._about("finding", self._id("check", slug)), **said, **end}, {})

    def findings(self) -> list[Row]:
        return self._rows("check")

    def read_finding(self, row: Row) -> Finding:
        """The finding of a row of these, with its arrays."""
        path, arrays = self.folder.path / "arrays" / (row["array"] or ""), {}
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
        return Finding(**{name: row[name] for name in (*_SAID, "numbers", "seconds")}, arrays=arrays)

    def add_verdict(self, said: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.folder.add({**self._about("verdict", self.verdict_id), **as_json(said)}, {"index": self.index, **arrays})

    @property
    def verdict_id(self) -> str:
        return f"audit/{self.key}/verdict"

    def _about(self, kind: str, id: str) -> Row:
        name, _, seed = self.key.rpartition("/seed")
        return {"id": id, "experiment": "audit", "kind": kind, "model": name, "seed": int(seed)}

    def _id(self, part: str, slug: str) -> str:
        return f"audit/{self.key}/{part}/{slug}"

    def _under_way(self, slug: str) -> Path:
        return self.folder.path / "partial" / f"{file_slug(self.key)}--{slug}.npz"

    def _rows(self, part: str) -> list[Row]:
        return [row for id, row in self.folder.rows.items() if id.startswith(self._id(part, ""))]

    def _read(self, row: Row) -> Outcome:
        arrays = self.folder.outcomes(row["id"])
        held: dict[str, Any] = {name: arrays[name] for name in ("attempted", "success", "queries")}
        return Outcome(**held, **{name: row[name] for name in FACTS})

    def _count(self, row: Row, outcome: Outcome) -> None:
        self._counted.setdefault(row["id"], (row, replace(outcome, adversarial=None)))


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
