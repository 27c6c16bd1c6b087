"""All that is to be known of a GPU in one command of at most six minutes: `make bench-gpu`, or

    python -m shconv.bench.gpu --json FILE

Every kernel checked on random data, the table of their times beside cuDNN's, networks beside their twins, attacks
beside plain passes, the default run from nothing. A part that fails says why, and the others go on; the file has what
is known so far at any moment. --rehearse runs the same with tiny shapes, without a GPU in Triton's interpreter.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from shconv.bench.gpu.from_nothing import from_nothing
from shconv.bench.gpu.networks import attacks, networks
from shconv.bench.gpu.report import KERNELS, Part, Report, Row
from shconv.bench.measurement import machine
from shconv.bench.setting import Setting
from shconv.errors import InputError
from shconv.files import check_writable

_SECONDS = 325.0  # of all parts
_GRACE = 15.0  # after that a call hangs


def main(arguments: Sequence[str] | None = None) -> int:
    told = _told(arguments)
    kernels = kernel_parts(told.rehearse) if any(told.only in name for name in KERNELS) else []
    device = torch.device("cpu" if told.rehearse else "cuda")
    about = machine(device) | {"triton": _triton(), "date": time.strftime("%F")}
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    torch.backends.cudnn.benchmark = True
    report = Report(told.json, about)
    watch = threading.Timer(_SECONDS + _GRACE, report.stop)
    watch.daemon = True
    watch.start()
    try:
        for part in kernels + other_parts(told.rehearse):
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


def _told(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says; it ends here where that cannot be done. Triton is not imported before."""
    parser = argparse.ArgumentParser(prog="python -m shconv.bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, default=Path("bench-gpu.json"), help="where all numbers go")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes in Triton's interpreter, without a GPU")
    parser.add_argument("--only", default="", help="the parts whose names have this in them")
    told = parser.parse_args(arguments)
    names = [*KERNELS, *(part.name for part in other_parts(told.rehearse))]
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
    return told


def kernel_parts(rehearse: bool) -> list[Part]:
    """The first two, or parts that say why there are none."""
    try:
        from shconv.bench.gpu import kernels

        return kernels.parts(rehearse)
    except Exception as error:
        reason = error

    def fails(left: Callable[[], float]) -> Iterator[Row]:
        raise reason

    return [Part(name, 0, fails) for name in KERNELS]


def other_parts(rehearse: bool) -> list[Part]:
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


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return "not installed"
    return str(triton.__version__)
