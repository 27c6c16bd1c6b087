"""All that is to be known of a GPU in one command of at most six minutes: `make bench-gpu`, or

    python -m shconv.bench.gpu --json FILE

Every kernel checked on random data, the table of their times beside cuDNN's, networks beside their twins, attacks
beside plain passes, the default run from nothing. A part that fails says why, and the others go on; the file has what
is known so far at any moment. --rehearse runs the same with tiny shapes, without a GPU in Triton's interpreter.
"""

import argparse
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from shconv.bench import attack
from shconv.bench.check import layers_deviation
from shconv.bench.device import Times, captured, times
from shconv.bench.measurement import machine
from shconv.bench.setting import Setting
from shconv.errors import InputError
from shconv.files import check_writable, replace_json

Row = dict[str, Any]
_SECONDS = 325.0  # of all parts
_GRACE = 15.0  # after that a call hangs
_FEW_IMAGES = 8  # that the layers of a network are checked with
_COMPILING = 45.0  # seconds that torch.compile takes for a network, about


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
        begun, entry = self.seconds(), {"rows": [], "error": "", "seconds": 0.0}
        self.found["parts"][part.name] = entry
        print(f"\n[{begun:5.1f} s] {part.name}", flush=True)
        try:
            for row in part.rows(lambda: part.until - self.seconds()):
                entry["rows"].append(row)  # type: ignore[attr-defined]
                print("   " + line(row), flush=True)
        except Exception as error:
            entry["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            print(f"   FAILED {entry['error']}\n{traceback.format_exc(limit=-4)}", flush=True)
        finally:
            entry["seconds"] = self.seconds() - begun
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


_KERNELS = ("kernels on random data", "kernels beside cuDNN")
_PLAIN = ("layer", "pass", "tile", "dtype", "network", "work", "mode")


def kernel_parts(rehearse: bool) -> list[Part]:
    """The first two. Processes that compile ahead for both are forked here."""
    from shconv.bench import gpu_kernels as kernels

    device = torch.device("cpu" if rehearse else "cuda")
    if rehearse:
        odd = kernels.jobs((kernels.Layer(2, 32, 40, 6, 1),), torch.bfloat16, tiles=1)
        table = kernels.jobs((kernels.Layer(2, 32, 32, 6, 2),), torch.bfloat16, tiles=1)
        compiler = kernels.Compiler([])
    else:
        odd = kernels.jobs(kernels.ODD, torch.bfloat16, tiles=9)
        odd += kernels.jobs(kernels.ODD[:2], torch.float16, tiles=1) + kernels.jobs(
            kernels.ODD[:2], torch.float32, tiles=1
        )
        table = kernels.jobs(kernels.LAYERS, torch.bfloat16, tiles=9)
        compiler = kernels.Compiler(odd + table)

    def timed(left: Callable[[], float]) -> Iterator[Row]:
        try:
            yield from chosen(kernels.table(table, device, compiler, left))
        finally:
            compiler.close()  # what still compiles would take the host's time from what follows

    return [
        Part(_KERNELS[0], 70, lambda left: until(left, kernels.check(odd, device, compiler, left))),
        Part(_KERNELS[1], 155, timed),
    ]


def begun(rehearse: bool) -> list[Part]:
    """The first two, or parts that say why there are none."""
    try:
        return kernel_parts(rehearse)
    except Exception as error:
        reason = error

    def fails(left: Callable[[], float]) -> Iterator[Row]:
        raise reason

    return [Part(name, 0, fails) for name in _KERNELS]


def parts(rehearse: bool) -> list[Part]:
    device = torch.device("cpu" if rehearse else "cuda")
    size = ("plain10", 4, 32, 8) if rehearse else ("resnet18", 128, 224, 64)
    setting = Setting(*size, "bfloat16", "channels_last", str(device))
    pairs = [setting] if rehearse else [setting, replace(setting, name="resnet50")]
    attacked = replace(setting, dtype="float32", batch=4 if rehearse else 16, image_size=32 if rehearse else 256)
    command = ["--version"] if rehearse else ["reproduce"]
    return [
        Part("networks beside their twins", 215, lambda left: networks(pairs, ("eager", "captured"), left)),
        Part("attacks", 240, lambda left: attacks(attacked)),
        Part("networks compiled", 265, lambda left: networks(pairs[:1], ("compiled",), left)),
        Part("the default run from nothing", _SECONDS, lambda left: from_nothing(command, left)),
    ]


def until(left: Callable[[], float], rows: Iterator[Row]) -> Iterator[Row]:
    """The rows for which there is time; then one that says so."""
    for row in rows:
        yield row
        if left() <= 0:
            yield {"error": "the rest was left out: no time left"}
            return


def chosen(rows: Iterator[Row]) -> Iterator[Row]:
    """Those rows, and after each layer and pass what the rule takes and the fastest of all, over cuDNN's."""
    best: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "layer" in row:
            best.setdefault((row["layer"], row["pass"]), []).append(row)
        yield row
    for (layer, name), found in best.items():
        timed = [row for row in found if "ratio" in row]
        if timed:
            fastest = min(timed, key=lambda row: row["ratio"])
            rule = found[0].get("ratio", "no number")
            yield {"layer": layer, "pass": name, "cudnn_us": fastest["cudnn_us"], "rule": rule,
                   "best": fastest["ratio"], "tile": fastest["tile"]}  # fmt: skip


def networks(settings: list[Setting], modes: tuple[str, ...], left: Callable[[], float]) -> Iterator[Row]:
    """A training step and inference of each pair: milliseconds of the SHC network and ratios to the twin, of the card,
    of the host and of both."""
    for setting in settings:
        pair = [setting, setting.shc()]
        shc = pair[1].build()
        with setting.autocast():
            reason = layers_deviation(shc, setting.images()[0][:_FEW_IMAGES])
        del shc
        if reason:
            yield {"network": setting.name, "error": reason}
            continue
        for mode in modes:
            for work in ("training step", "inference"):
                row = {"network": setting.name, "work": work, "mode": mode}
                if left() <= (_COMPILING if mode == "compiled" and setting.device != "cpu" else 0):
                    yield row | {"error": "no time left"}
                    continue
                try:
                    (twin, less), (own, more) = (_timed(each, work, mode) for each in pair)
                    yield row | _ratios(own, twin) | ({"memory_ratio": more / less} if less and mode == "eager" else {})
                except Exception as error:  # out of memory, what a graph cannot hold
                    yield row | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _timed(setting: Setting, work: str, mode: str) -> tuple[Times, int]:
    """And the most bytes that the work held, with network and images; 0 on a CPU."""
    device = torch.device(setting.device)
    on_card = device.type == "cuda"
    setting = replace(setting, compiled=mode == "compiled" and on_card)
    network = setting.build()
    setting.prepare(network)
    run = setting.training_step(network) if work == "training step" else setting.inference(network.eval())
    found = times(captured(run) if mode == "captured" and on_card else run, device, calls=1)
    if not on_card:
        return found, 0
    torch.cuda.reset_peak_memory_stats()
    run()
    return found, torch.cuda.max_memory_allocated()


def _ratios(own: Times, twin: Times) -> Row:
    return {f"{name}_ms": getattr(own, name) * 1e3 for name in Times._fields} | {
        f"{name}_ratio": getattr(own, name) / getattr(twin, name) for name in Times._fields
    }


def attacks(setting: Setting) -> Iterator[Row]:
    """FGSM over one forward pass and input gradient, LocSearchAdv's images a second over plain ones."""
    for each in attack.measure(setting, rounds=3):
        yield {"network": each.subject, "work": each.measure, "ratio": each.ratio} | (
            {"error": each.reason} if each.reason else {}
        )


def from_nothing(command: list[str], left: Callable[[], float]) -> Iterator[Row]:
    """Seconds of a shconv command with no choice kept and no kernel compiled."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {"SHCONV_CACHE": f"{folder}/shconv", "TRITON_CACHE_DIR": f"{folder}/triton"}
        environment = {**os.environ, **kept}
        environment.pop("TRITON_INTERPRET", None)
        source = str(Path(__file__).resolve().parents[2])  # however this one was found
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH")]))
        begun = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen([sys.executable, "-m", "shconv", *command], cwd=folder, env=environment,
                                       stdout=output, stderr=output, start_new_session=True)  # fmt: skip
            try:
                code = process.wait(max(10.0, left()))
                error = f"exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                error = f"had not finished after {time.monotonic() - begun:.0f} s"
            finally:
                _end(process)
            row: Row = {"work": " ".join(command), "seconds": time.monotonic() - begun}
            output.seek(0)
            if error:
                row["error"] = f"{error}: {' '.join(output.read().decode(errors='replace').split())[-400:]}"
        yield row


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shconv.bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, default=Path("bench-gpu.json"), help="where all numbers go")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes in Triton's interpreter, without a GPU")
    parser.add_argument("--only", default="", help="the parts whose names have this in them")
    told = parser.parse_args(arguments)
    names = [*_KERNELS, *(part.name for part in parts(told.rehearse))]
    if not any(told.only in name for name in names):
        parser.error(f"--only {told.only}: no part has this in its name; there are {', '.join(names)}")
    if told.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():  # asks the driver only how many there are
        parser.error("torch finds no GPU here; --rehearse tries the command without one")
    try:
        check_writable(told.json)
    except InputError as error:
        parser.error(f"--json: {error}")
    first = begun(told.rehearse) if any(told.only in name for name in _KERNELS) else []
    about = machine(torch.device("cpu" if told.rehearse else "cuda")) | {
        "triton": _triton(),
        "date": time.strftime("%F"),
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    torch.backends.cudnn.benchmark = True
    report = Report(told.json, about)
    watch = threading.Timer(_SECONDS + _GRACE, report.stop)
    watch.daemon = True
    watch.start()
    try:
        for part in first + parts(told.rehearse):
            if told.only in part.name:
                report.run(part)
    except KeyboardInterrupt:
        print(f"\nstopped: what was found until now is in {told.json}", flush=True)
        return 130
    finally:
        watch.cancel()
    failures = report.failures()
    print(f"\n[{report.seconds():5.1f} s] {len(failures)} failures; all numbers are in {told.json}")
    print("".join(f"   {each}\n" for each in failures), end="", flush=True)
    return 1 if failures else 0


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return "not installed"
    return str(triton.__version__)


if __name__ == "__main__":
    sys.exit(main())
