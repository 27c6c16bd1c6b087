"""The report of a GPU: its parts, each within its time, printed and in a file as they come. A part that fails says why,
and the others go on."""

import contextlib
import gc
import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from shconv.errors import one_line
from shconv.files import replace_json

Row = dict[str, Any]
KERNELS = (
    "kernels on random data",
    "kernels beside cuDNN",
)  # parts that import Triton
_PLAIN = ("layer", "pass", "tile", "dtype", "network", "work", "mode")


class Part(NamedTuple):
    """One heading of the report: rows while time is left."""

    name: str
    until: float  # seconds after the start, when it should have ended
    rows: Callable[[Callable[[], float]], Iterator[Row]]  # given what tells the seconds it has left


class Report:
    """What was found, printed and in a file after every part."""

    def __init__(self, path: Path, about: dict[str, str]) -> None:
        self.path, self.started = path, time.monotonic()
        self.found: dict[str, Any] = {"about": about, "parts": {}}

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def run(self, part: Part) -> None:
        start, entry = self.seconds(), {"rows": [], "error": "", "seconds": 0.0}
        self.found["parts"][part.name] = entry
        print(f"\n[{start:5.1f} s] {part.name}", flush=True)
        try:
            for row in part.rows(lambda: part.until - self.seconds()):
                entry["rows"].append(row)  # type: ignore[attr-defined]
                print("   " + line(row), flush=True)
        except Exception as error:
            entry["error"] = one_line(error, slice(500))
            print(f"   FAILED {entry['error']}\n{traceback.format_exc(limit=-4)}", flush=True)
        finally:
            entry["seconds"] = self.seconds() - start
            self.write()
        gc.collect()
        if torch.cuda.is_available():
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache()

    def write(self) -> None:
        self.found["seconds"] = self.seconds()
        replace_json(self.path, self.found)

    def stop(self) -> None:
        """Called where a kernel hangs, from another thread: the file is what is left."""
        try:
            print("a call hangs: stopped", flush=True)
            self.found["error"] = "a call hung"
            self.write()
        finally:
            os._exit(3)

    def failures(self) -> list[str]:
        """What went wrong, in a line each."""
        found = [f"{name}: {entry['error']}" for name, entry in self.found["parts"].items() if entry["error"]]
        for name, entry in self.found["parts"].items():
            found += [f"{name}: {line(row)}" for row in entry["rows"] if row.get("error")]
        return found


def line(row: Row) -> str:
    """A row as text: numbers short."""
    return "  ".join(f"{name} {value:.4g}" if isinstance(value, float) else str(value) if name in _PLAIN else
                     f"{name} {value}" for name, value in row.items())  # fmt: skip


def until(left: Callable[[], float], rows: Iterator[Row]) -> Iterator[Row]:
    """The rows for which there is time; then one that says so."""
    for row in rows:
        yield row
        if left() <= 0:
            yield {"error": "the rest was left out: no time left"}
            return
