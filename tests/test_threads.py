"""How threads wait: said by the command before torch loads, in every way of starting it; a library says nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shconv import threads

SCRIPT = "import sys; from shconv.cli import main; sys.exit(main())"  # what pip installs as bin/shconv
TORCH = f"import os; print(os.environ.get({threads.WAIT!r})); raise SystemExit"
LIBRARY = {name: value for name, value in os.environ.items() if name != threads.WAIT}


@pytest.fixture
def read(tmp_path: Path) -> Path:
    """A folder with a program, a package and, in torch's place, a module that says what torch would read as it loads
    and ends the process: torch itself takes seconds."""
    (tmp_path / "shconv").write_text(SCRIPT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import shconv\n")
    (tmp_path / "mine" / "__main__.py").write_text("import shconv\n")
    (tmp_path / "torch.py").write_text(TORCH)
    return tmp_path


def said(folder: Path, *arguments: str, **more: str) -> str:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**LIBRARY, **more, "PYTHONPATH": path}
    return subprocess.check_output([sys.executable, *arguments], env=env, text=True, cwd=folder).strip()


@pytest.mark.parametrize(
    "command", [["shconv", "--version"], ["-m", "shconv"], ["-u", "-mshconv", "info"]], ids=" ".join
)
def test_a_command_waits_without_spinning_unless_the_user_said_how(read: Path, command: list[str]) -> None:
    assert said(read, *command) == "passive"
    assert said(read, *command, **{threads.WAIT: "active"}) == "active"


@pytest.mark.parametrize("arguments", [["-c", "import shconv"], ["mine/__main__.py"], ["-m", "mine"]], ids=" ".join)
def test_a_program_that_imports_the_library_keeps_its_environment(read: Path, arguments: list[str]) -> None:
    assert said(read, *arguments) == "None"


TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "1"]


@pytest.mark.parametrize("by", [["-u"], pytest.param(TORCHRUN, marks=pytest.mark.slow)], ids=["python", "torchrun"])
def test_torchs_threads_know_also_where_torchrun_starts_the_command(by: list[str]) -> None:
    """It starts a second Python, with -u: that alone is the quick test."""
    command = [sys.executable, *by, "-m", "shconv", "--version"]
    env = {**LIBRARY, "OMP_DISPLAY_ENV": "verbose"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"shconv \d+\.\d+\.\d+", ended.stdout.strip())
    # What GNU's OpenMP, which came with torch, read when it was loaded; other libraries print the policy itself.
    assert re.search(r"GOMP_SPINCOUNT = '0'|OMP_WAIT_POLICY\s*=\s*'?passive", ended.stderr, re.IGNORECASE)


@pytest.mark.parametrize(
    ("command", "said"), [(["-m", "shconv"], "shconv: stopped\n"), (["-c", "import shconv"], "Trace")]
)
def test_ctrl_c_while_torch_loads_ends_a_command_in_a_line(read: Path, command: list[str], said: str) -> None:
    (read / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)")
    path = os.pathsep.join([str(read), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = [sys.executable, *command]
    ended = subprocess.run(started, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, cwd=read)
    assert ended.stderr.startswith(said)
    assert (ended.returncode == 130) == (said == "shconv: stopped\n")


def test_a_current_folder_that_was_removed_is_said_before_torch_fails_of_it(tmp_path: Path) -> None:
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    started = ["sh", "-c", script, "sh", sys.executable, "-m", "shconv", "info"]
    ended = subprocess.run(started, capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "shconv: the current folder was removed; change to another one\n")
