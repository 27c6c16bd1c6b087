"""How threads wait: said by the command before torch loads, in every way of starting it; a library says nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shconv import threads

SCRIPT = "import sys; from shconv.cli import main; sys.exit(main())"


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / "shconv").write_text(SCRIPT)  # what pip installs as bin/shconv
    return {**{name: value for name, value in os.environ.items() if name != threads.WAIT}, **more}


COMMANDS = {
    "shconv": ["{script}", "--version"],
    "python -m": ["-m", "shconv", "--version"],
    "python -u -m": ["-u", "-mshconv", "--version"],
    "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "shconv", "--version"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_waits_without_spinning_and_torchs_threads_know(tmp_path: Path, command: list[str]) -> None:
    arguments = [part.format(script=tmp_path / "shconv") for part in command]
    ended = subprocess.run(
        [sys.executable, *arguments],
        env=environment(tmp_path, OMP_DISPLAY_ENV="verbose"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"shconv \d+\.\d+\.\d+", ended.stdout.strip())
    # What GNU's OpenMP, which came with torch, read when it was loaded; other libraries print the policy itself.
    assert re.search(r"GOMP_SPINCOUNT = '0'|OMP_WAIT_POLICY\s*=\s*'?passive", ended.stderr, re.IGNORECASE)


def test_what_the_user_set_stays(tmp_path: Path) -> None:
    code = "import os; import shconv; print(os.environ['OMP_WAIT_POLICY'])"
    (tmp_path / "shconv.py").write_text(code)
    (tmp_path / "bin").mkdir()
    script = (tmp_path / "shconv.py").rename(tmp_path / "bin" / "shconv")
    given = environment(tmp_path, OMP_WAIT_POLICY="active")
    assert subprocess.check_output([sys.executable, script], env=given, text=True).strip() == "active"


@pytest.mark.parametrize("arguments", [["-c", "{code}"], ["{file}"], ["-m", "mine"]])
def test_a_program_that_imports_the_library_keeps_its_environment(tmp_path: Path, arguments: list[str]) -> None:
    code = "import os; import shconv; print(os.environ.get('OMP_WAIT_POLICY'))"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import shconv\n")
    file = tmp_path / "mine" / "__main__.py"
    file.write_text(code)
    filled = [part.format(code=code, file=file) for part in arguments]
    said = subprocess.check_output(
        [sys.executable, *filled], env=environment(tmp_path), text=True, cwd=tmp_path if filled[0] == "-m" else None
    )
    assert said.strip() == "None"
