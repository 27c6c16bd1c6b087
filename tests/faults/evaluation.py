"""The fault matrix of evaluation: each function breaks `shconv evaluate` in one way and returns what was seen.
Its docstring is the promise. It raises Broken where the promise is not kept."""

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench import Bench, Run, expect, fill, small_disk

KILLS = 8


class Evaluations(Bench):
    """Tables 1 and 3 of a network that is trained once, on few images: many short rows and six long searches."""

    begun: ClassVar[str] = ""  # it prints no title; rows are waited for instead

    def words(self, out: Path) -> list[str]:
        words = ["evaluate", str(self.network), "--data", f"folder:{self.images}", "--image-size", "16"]
        words += ["--tables", "1", "3", "--table3-images", "2", "--batch-size", "6"]
        return [*words, "--out", str(out)]

    @property
    def network(self) -> Path:
        folder = self.root / "network"
        if not folder.exists():
            Bench(self.root, self.images).finish(folder, "--epochs", "20")
        return folder

    def result(self, out: Path) -> bytes:
        """All that two equal evaluations agree in: rows without their times, and every number of every image."""
        expect(not (out / "partial").exists(), "partial outcomes are left")
        rows = sorted(({**row, "seconds": None} for row in rows_of(out)), key=lambda row: str(row["id"]))
        arrays = b""
        for file in sorted([*out.glob("outcomes/*"), *out.glob("arrays/*")]):
            with np.load(file) as stored:
                arrays += b"".join(name.encode() + stored[name].tobytes() for name in stored.files)
        return json.dumps(rows).encode() + arrays

    def order(self) -> list[str]:
        """The ids of all rows as they come."""
        self.undisturbed()
        return [row["id"] for row in rows_of(self.root / "undisturbed0")]


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The rows that are stored so far."""
    path = out / "rows.jsonl"
    content = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def reach(run: Run, out: Path, rows: int) -> None:
    """Until so many rows are stored."""
    run.await_that(lambda: len(rows_of(out)) >= rows, f"row {rows}")


def kill_at_random_moments(bench: Evaluations, out: Path) -> str:
    """The same command ends with exactly the rows of an undisturbed run, also within LocSearchAdv."""
    rng, order = random.Random(0), bench.order()
    starts = [i for i, (a, b) in enumerate(pairwise(order), 1) if _attack(a) != _attack(b)]
    searches = [i for i in starts if order[i].startswith("table3/")]
    killed: list[int] = []
    runs = 0
    while len(killed) < KILLS:
        folder = out / str(runs)
        for row in sorted({*rng.sample(range(1, len(order)), 2), *rng.sample(searches, 2)}):
            with bench.started(folder) as run:
                reach(run, folder, row)
                time.sleep(rng.uniform(0, 0.5))
                if not run.ended:
                    run.kill()
                    killed.append(len(rows_of(folder)))
        bench.finish(folder)
        expect(bench.result(folder) == bench.undisturbed(), f"run {runs}: the rows differ")
        runs += 1
    during = sum(rows in searches for rows in killed)
    expect(during > 0, "no search was killed")
    after = ", ".join(map(str, killed))
    return f"{len(killed)} kills in {runs} runs, after rows {after} of {len(order)}, {during} in LocSearchAdv; the same"


def _attack(id: str) -> str:
    """Of a row's id, without the column."""
    return id.partition("/")[2].rpartition("/step")[0] or id


def sigterm(bench: Evaluations, out: Path) -> str:
    """It ends at once with exit code 75; the same command ends with exactly the rows of an undisturbed run."""
    with bench.started(out) as run:
        reach(run, out, 6)
        code = run.kill(signal.SIGTERM)
    expect(code == 75, f"exit code {code}: {run.text[-300:]}")
    rows = len(rows_of(out))
    bench.finish(out)
    bench.expect_same(out)
    return f"exit code 75 after row {rows}; the same rows"


def truncated_record(bench: Evaluations, out: Path) -> str:
    """It is detected and computed again; the same command ends with the same rows."""
    parts: list[Path] = []
    while not parts:  # the row may be finished before it can be killed
        with bench.started(out) as run:
            run.await_that(lambda: bool(_parts(out)), "a partial result")
            run.kill()
        parts = _parts(out)
    content = parts[0].read_bytes()
    parts[0].write_bytes(content[:-7])
    rows = len(rows_of(out))
    bench.finish(out)
    bench.expect_same(out)
    return f"after row {rows}, {len(content)} bytes cut to {len(content) - 7}; the same rows"


def _parts(out: Path) -> list[Path]:
    """Files with a unit in them; one may vanish between two looks."""
    found = []
    for path in out.glob("partial/*/*.part"):
        with suppress(FileNotFoundError):
            found += [path] if path.stat().st_size else []
    return found


def one_of_two_processes_dies(bench: Evaluations, out: Path) -> str:
    """The other ends with exit code 75 and says so; the same command, in one process, ends with the same rows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    places = [{**common, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    with bench.started(out, environment=places[1]) as other, bench.started(out, environment=places[0]) as run:
        reach(run, out, 6)
        other.kill()
        began = time.monotonic()
        code = run.end()
        seconds = time.monotonic() - began
    said = "another of the 2 processes is gone"
    expect(code == 75 and said in run.text, f"exit code {code}: {run.text[-300:]}")
    rows = len(rows_of(out))
    bench.finish(out)
    bench.expect_same(out)
    return f'exit code 75 after {seconds:.0f} s, "{said}", after row {rows}; the same rows'


def full_disk(bench: Evaluations, out: Path) -> str:
    """Exit code 1 and a message that names the file; with free space the same command ends with the same rows."""
    with small_disk(out, "40m") as disk:
        folder, filler = out / "run", out / "filler"
        with bench.started(folder) as run:
            reach(run, folder, 6)
            fill(filler)
            code = run.end()
        said = next((line for line in run.text.splitlines() if "the disk is full" in line), "")
        expect(code == 1 and "run/" in said, f"exit code {code}: {run.text[-300:]}")
        rows = len(rows_of(folder))
        filler.unlink()
        bench.finish(folder)
        bench.expect_same(folder)
    name = said.partition("run/")[2].partition(";")[0]
    return f'{disk}: exit code 1 after row {rows}, "the disk is full: .../{name}"; the same rows'


def damaged_rows(bench: Evaluations, out: Path) -> str:
    """A truncated last line is computed again; another damaged line is an error until it is removed."""
    with bench.started(out) as run:
        reach(run, out, 6)
        run.kill()
    path = out / "rows.jsonl"
    os.truncate(path, path.stat().st_size - 20)
    bench.finish(out)
    bench.expect_same(out)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{" + lines[2], *lines[3:]]))
    refused = bench.start(out)
    code = refused.end()
    expect(code == 2 and "rows.jsonl, line 3 is damaged" in refused.text, f"exit code {code}: {refused.text[-300:]}")
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    bench.finish(out)
    bench.expect_same(out)
    return 'the same rows; exit code 2, "rows.jsonl, line 3 is damaged"; the same rows'


def two_evaluations_in_one_folder(bench: Evaluations, out: Path) -> str:
    """The second is refused and says why; the first ends with the same rows."""
    with bench.started(out) as first:
        reach(first, out, 1)
        second = bench.start(out)
        code = second.end()
        expect(code == 2 and "is in use by another process" in second.text, f"exit code {code}: {second.text[-300:]}")
        expect(first.end() == 0, f"the first failed: {first.text[-300:]}")
    bench.expect_same(out)
    return 'second: exit code 2, "is in use by another process"; first: the same rows'


FAULTS: dict[str, Callable[[Evaluations, Path], str]] = {
    f"evaluate: kill -9 at {KILLS} random moments": kill_at_random_moments,
    "evaluate: SIGTERM": sigterm,
    "evaluate: truncated record of partial results": truncated_record,
    "evaluate: one of two processes dies (kill -9)": one_of_two_processes_dies,
    "evaluate: full disk": full_disk,
    "evaluate: damaged rows.jsonl": damaged_rows,
    "evaluate: two in one run folder": two_evaluations_in_one_folder,
}
