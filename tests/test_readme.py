"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest
import torch

from shconv.cli import run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_five_lines_run_and_attack() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, torch.Tensor] = {}
    exec(code, names)
    moved = (names["adversarial"] - names["images"]).abs()
    assert 0 < float(moved.max()) <= 0.02 + 1e-6


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`shconv (\w+)", README))))
def test_every_command_of_the_readme_exists(command: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run([command, "--help"])
    assert stopped.value.code == 0


def test_every_file_the_readme_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (Path(__file__).parents[1] / link).exists()] == []
