"""A shconv command as on a new machine: no choice kept, no kernel compiled."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shconv.bench.gpu.report import Row


def from_nothing(command: list[str], left: Callable[[], float]) -> Iterator[Row]:
    """Seconds of a shconv command with no choice kept and no kernel compiled."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {"SHCONV_CACHE": f"{folder}/shconv", "TRITON_CACHE_DIR": f"{folder}/triton"}
        environment = {**os.environ, **kept}
        environment.pop("TRITON_INTERPRET", None)
        source = str(Path(__file__).resolve().parents[3])  # however this one was found
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH")]))
        start = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen([sys.executable, "-m", "shconv", *command], cwd=folder, env=environment,
                                       stdout=output, stderr=output, start_new_session=True)  # fmt: skip
            try:
                code = process.wait(max(10.0, left()))
                error = f"exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                error = f"had not finished after {time.monotonic() - start:.0f} s"
            finally:
                _end(process)
            row: Row = {"work": " ".join(command), "seconds": time.monotonic() - start}
            output.seek(0)
            if error:
                row["error"] = f"{error}: {' '.join(output.read().decode(errors='replace').split())[-400:]}"
        yield row


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
