"""The command line: one sub-command, one dataclass of options. Bad input ends in a line or two and exit code 2.
Ctrl-C (130), SIGTERM, SIGHUP and the loss of another process (75) leave a run that the same command resumes."""

import errno
import io
import os
import re
import shutil
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import shconv
from shconv.commands.config_file import from_toml
from shconv.commands.parser import parse
from shconv.errors import GOES_ON, InputError, is_short_of_memory, near

_ABOUT = """Statistical Hyper-Convolution: reproduce the paper, train, attack, and report."""
_SOURCES = """`shconv COMMAND --help` lists a command's options. `shconv reproduce --preset paper` uses the paper's
settings. All commands but info accept --config FILE, a TOML file of options by name; every run folder's config.toml is
such a file. Options on the command line override both."""
_CONFIG = (
    "A TOML file with options by name, such as a run folder's config.toml; options on the command line override it."
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `shconv` command."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Parse, run, and turn what goes wrong into a message; the exit code."""
    options = None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be no text, and a terminal's alphabet small
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            options = _parse(arguments)
            _run(options)
        except SystemExit as stopped:
            if not stopped.code:  # after --help
                _flush()
            raise
        _flush()
    except InputError as error:
        return _failed(str(error), 2)
    except (ConnectionAbortedError, ChildProcessError) as error:  # another process is gone, or one that reads images
        return _failed(str(error.strerror), GOES_ON)
    except KeyboardInterrupt:
        return _failed(_stopped(options), 130)
    except SystemExit as stopped:
        if stopped.code != GOES_ON:
            raise
        return _failed(_stopped(options), GOES_ON)
    except BrokenPipeError:  # such as `| head`
        _leave_stdout()
        return 141
    except OSError as error:
        place = f": {error.filename}" if error.filename is not None else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            if not place:  # files are named
                place = ": standard output could not be written"
                _leave_stdout()
            return _failed(f"the disk is full{place}; what was written is intact, and the same command continues", 1)
        if error.strerror is None:
            raise
        return _failed(f"{error.strerror}{place}", 2)
    except (RuntimeError, MemoryError) as error:
        from shconv.training import TrainingDiverged

        if said := _short_of_memory(error, options):
            return _failed(said, 1)
        if type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):
            reason = " ".join(str(error).partition("\nSet TORCH")[0].split())[:300]
            return _failed(f"torch.compile cannot compile here: {reason}; run the same command without it", 2)
        if not isinstance(error, TrainingDiverged):
            raise
        return _failed(str(error), 1)
    return 0


def _flush() -> None:
    """What is still to be printed: at its end Python would complain in words of its own."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _leave_stdout() -> None:
    """What standard output still does not take goes nowhere."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(options: Any) -> None:
    from shconv.capturing import graphs
    from shconv.data.worker_failures import naming_dead_workers
    from shconv.switches import SWITCHES, switch
    from shconv.terminal import Lines, progress_line
    from shconv.training.signals import ended_by_sigterm

    for name in SWITCHES:
        switch(name)  # refused before anything runs
    lines, began = Lines(show=os.environ.get("RANK", "0") == "0"), time.monotonic()
    still = lines.alive(lambda: progress_line("shconv", 0, None, time.monotonic() - began))
    with still, ended_by_sigterm(), naming_dead_workers(), graphs(getattr(options, "graphs", True)):
        try:
            options.run()
        except Exception as error:
            if interruption := _interruption(error):
                raise interruption from None
            raise


def _interruption(error: BaseException | None) -> BaseException | None:
    """The Ctrl-C or SIGTERM that an error came of: where a file was half written, closing it may fail in turn."""
    from shconv.training.signals import Preempted

    while error is not None and not isinstance(error, KeyboardInterrupt | Preempted):
        error = error.__context__
    return error


def _stopped(options: Any) -> str:
    return "stopped; the same command continues from here" if hasattr(options, "out") else "stopped"


def _short_of_memory(error: Exception, options: Any) -> str:
    """What to say where memory ran out, on the device or off it; "" where something else is the matter."""
    if not is_short_of_memory(error):
        return ""
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    ways = {"accumulation": "--accumulation 2 (a step in two parts)", "batch_size": "a smaller --batch-size",
            "batch": "a smaller --batch"}  # fmt: skip
    if not getattr(options, "defences", True):  # compare trains nothing then
        del ways["accumulation"]
    hints = " or ".join(way for name, way in ways.items() if hasattr(options, name))
    said = "memory ran out" + (f": {asked[1]} more were wanted" if asked else "")
    said += ", or more threads than may run (ulimit -u) were wanted" if "thread" in str(error) else ""
    return said + (f"; try {hints}" if hints else "") + "; what was written is intact"


def _parse(arguments: list[str]) -> Any:
    from shconv.commands.reproduce import PRESETS

    arguments, preset = _taken(arguments, "--preset")
    arguments, config = _taken(arguments, "--config")
    name, *arguments = arguments or [""]
    kinds = _commands()
    if name == "help" and arguments:
        name, arguments = arguments[0], ["--help"]
    if name in ("-h", "--help", "help", "-V", "-v", "--version", "version"):
        print(f"shconv {shconv.__version__}" if "v" in name.lower() else _overview(kinds))
        raise SystemExit(0)
    if name not in kinds:
        said = f"there is no command {name}" if name and not name.startswith("-") else "a command comes first"
        raise InputError(f"{said}; {near(name, list(kinds), listed=True)}; shconv --help says what each does")
    extra = {"--config": _CONFIG} if fields(kinds[name]) else {}
    if name in ("reproduce", "plan"):
        extra = {"--preset": f"All options at once: {' or '.join(PRESETS)}.", **extra}
    return parse(kinds[name], name, arguments, _defaults(kinds[name], name, preset, config), extra)


def _commands() -> dict[str, type[Any]]:
    from shconv.commands.audit import AuditCommand
    from shconv.commands.bench import Bench
    from shconv.commands.compare import Compare
    from shconv.commands.evaluate import Evaluate
    from shconv.commands.finetune import Finetune
    from shconv.commands.info import Info
    from shconv.commands.inspect import Inspect
    from shconv.commands.plan import Plan
    from shconv.commands.report import Report
    from shconv.commands.reproduce import Reproduce
    from shconv.commands.train import Train

    return {
        "reproduce": Reproduce,
        "train": Train,
        "evaluate": Evaluate,
        "compare": Compare,
        "audit": AuditCommand,
        "inspect": Inspect,
        "report": Report,
        "finetune": Finetune,
        "plan": Plan,
        "bench": Bench,
        "info": Info,
    }


def _defaults(kind: type[Any], name: str, preset: str | None, config: str | None) -> Any:
    """The command's options where the command line does not say them: those of a preset, below a file's."""
    from shconv.commands.reproduce import PRESETS

    base: Any = kind() if name in ("plan", "train") else PRESETS["demo"] if name == "reproduce" else None
    if preset is not None:
        if name not in ("reproduce", "plan"):
            raise InputError(f"--preset {preset}: {name} has none; wanted `shconv reproduce --preset`")
        if preset not in PRESETS:
            raise InputError(f"--preset {preset}: {near(preset, list(PRESETS), listed=True)}")
        base = PRESETS[preset] if name == "reproduce" else kind(**vars(PRESETS[preset]))
    if config is not None:
        command = "reproduce" if name == "plan" else name  # it plans what a run folder's config.toml asks for
        base = from_toml(kind, command, Path(config), base)
    return base


def _overview(kinds: dict[str, type[Any]]) -> str:
    """The commands, a line each."""
    width, hang = shutil.get_terminal_size().columns - 2, " " * 13
    lines = [
        textwrap.fill(str(kind.__doc__).splitlines()[0], width, initial_indent=f"  {name:<11}", subsequent_indent=hang)
        for name, kind in kinds.items()
    ]
    texts = (textwrap.fill(text, width) for text in (_ABOUT, _SOURCES))
    return "\n".join(["usage: shconv COMMAND [OPTIONS]", "", next(texts), "", *lines, "", next(texts)])


def _taken(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
    """The arguments without `flag VALUE` (or flag=VALUE), and the value."""
    for place, argument in enumerate(arguments):
        if argument == flag and place + 1 < len(arguments):
            return arguments[:place] + arguments[place + 2 :], arguments[place + 1]
        if argument.startswith(f"{flag}="):
            return arguments[:place] + arguments[place + 1 :], argument.partition("=")[2]
    return arguments, None


def _failed(message: str, code: int) -> int:
    with suppress(OSError):  # of a terminal that is closed
        print(f"shconv: {message}", file=sys.stderr)
    return code
