"""A tiny real training as a command, to be broken and started again: what the fault matrix needs of it, and how the
bench of another command differs."""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import numpy as np
import psutil
from PIL import Image

from shconv import cli
from shconv.commands import audit, bench, evaluate, info, report, reproduce, train  # noqa: F401 (forked with them)
from shconv.data import load_data

CLASSES, TRAIN, TEST, BATCH, EPOCHS = 3, 120, 18, 12, 6
STEPS = EPOCHS * TRAIN // BATCH
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
PATIENCE = 1800.0  # seconds that a command may take on a busy machine


class Broken(AssertionError):  # noqa: N818 (a promise is)
    """A promise that was not kept."""


def expect(holds: bool, what: str) -> None:
    """Raises Broken where it does not hold."""
    if not holds:
        raise Broken(what)


def write_images(root: Path) -> Path:
    """Photograph patches of the demo, enlarged to 80 pixels: too large to be held in memory, so read in each epoch."""
    demo = load_data("demo")
    for part, split, count in (("train", demo.train, TRAIN), ("test", demo.test, TEST)):
        assert split is not None
        for label in range(CLASSES):
            folder = root / part / demo.classes[label]
            folder.mkdir(parents=True)
            for i in np.flatnonzero(split.labels.numpy() == label)[: count // CLASSES]:
                pixels = split[int(i)][0].permute(1, 2, 0).numpy()
                Image.fromarray(pixels).resize((80, 80)).save(folder / f"{i}.png")
    return root


@dataclass
class Run:
    """One start of the command."""

    process: psutil.Process
    said: Path  # what it says, on both channels

    @property
    def text(self) -> str:
        return self.said.read_text()

    @property
    def ended(self) -> bool:
        try:
            self.process.wait(0)
        except psutil.TimeoutExpired:
            return False
        return True

    def await_that(self, holds: Callable[[], bool], what: str) -> None:
        """Raises Broken where the command ends, or a long time passes, before it holds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            expect(not self.ended and time.monotonic() < end, f"{what} never came: {self.text[-500:]}")
            time.sleep(0.005)

    def await_file(self, path: Path) -> None:
        self.await_that(path.exists, path.name)

    def end(self) -> int:
        """The exit code, once there is one."""
        try:
            return int(self.process.wait(PATIENCE))
        except psutil.TimeoutExpired:
            raise Broken("hangs") from None

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.end()

    def children(self) -> list[psutil.Process]:
        found: list[psutil.Process] = self.process.children(recursive=True)
        return found


@dataclass
class Bench:
    """Where the runs live, and what an undisturbed one ends with."""

    root: Path
    images: Path
    wanted: dict[tuple[str, ...], bytes] = field(default_factory=dict)
    starts: int = 0
    begun: ClassVar[str] = "test images"  # in the title: from here on it trains

    def words(self, out: Path) -> list[str]:
        """The command without its options."""
        words = ["train", "--data", f"folder:{self.images}", "--image-size", "16", "--width", "4"]
        words += ["--batch-size", str(BATCH), "--epochs", str(EPOCHS), "--precision", "float32"]
        return [*words, "--out", str(out)]

    def start(
        self,
        out: Path,
        *options: str,
        launcher: tuple[str, ...] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Run:
        """The command, started; with a launcher such as torchrun's, as it starts it.

        Without, the process is forked from this one, which has imported everything: it saves seconds at each start.
        """
        self.starts += 1
        said = self.root / f"said{self.starts}.txt"
        arguments = [*self.words(out), *options]
        with said.open("w") as file:
            if launcher:
                command = [sys.executable, *launcher, "-m", "shconv", *arguments]
                return Run(psutil.Popen(command, stdout=file, stderr=file, start_new_session=True), said)
            pid = os.fork()
            if pid == 0:
                os.environ.update(environment)
                _become(file.fileno(), arguments)
        return Run(psutil.Process(pid), said)

    @contextmanager
    def started(self, out: Path, *options: str, **how: Any) -> Iterator[Run]:
        """The same, at work when the body begins; nothing of it is left afterwards."""
        run = self.start(out, *options, **how)
        try:
            run.await_that(lambda: self.begun in run.text, f'"{self.begun}"')
            yield run
        finally:
            if not run.ended:
                for each in [*run.children(), run.process]:
                    each.kill()
                run.end()

    def finish(self, out: Path, *options: str, launcher: tuple[str, ...] = ()) -> str:
        """The same command again, to its end; what it said."""
        run = self.start(out, *options, launcher=launcher)
        expect(run.end() == 0, f"the same command failed: {run.text[-500:]}")
        return run.text

    def result(self, out: Path) -> bytes:
        """All that two equal trainings agree in: the weights' file, and the log without its times."""
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        expect(len(rows) == EPOCHS, f"{len(rows)} rows in the log")
        plain = [{name: value for name, value in row.items() if "second" not in name} for row in rows]
        return (out / "model.safetensors").read_bytes() + json.dumps(plain).encode()

    def undisturbed(self, launcher: tuple[str, ...] = ()) -> bytes:
        """The result of a run that nothing happens to."""
        if launcher not in self.wanted:
            out = self.root / f"undisturbed{len(self.wanted)}"
            self.finish(out, launcher=launcher)
            self.wanted[launcher] = self.result(out)
        return self.wanted[launcher]

    def expect_same(self, out: Path, launcher: tuple[str, ...] = ()) -> None:
        """Raises Broken unless the result is that of a run that nothing happened to, bit for bit."""
        expect(self.result(out) == self.undisturbed(launcher), "the result differs")


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[str]:
    """A tmpfs of its own at `place`. Raises Broken where this user may mount none."""
    place.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True, text=True
    )
    expect(mounted.returncode == 0, f"not tried: no tmpfs ({mounted.stderr.strip()})")
    try:
        yield f"a tmpfs of {size}"
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(filler: Path) -> None:
    """A file that takes all the room that its disk has left."""
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass


def _become(said: int, arguments: list[str]) -> NoReturn:
    """The forked process: a session of its own, as a started command has, and the command line."""
    os.setsid()
    os.dup2(said, 1)
    os.dup2(said, 2)
    code: int = 1
    try:
        code = cli.run(arguments)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
