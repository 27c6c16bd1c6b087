"""Folders, classes and files may have names that are not UTF-8: nothing is lost on the way, and they still match."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shconv.files import escaped, unescaped
from shconv.pretrained import ConvertedConfig, from_pretrained
from shconv.toml import read_toml, to_toml
from shconv.training.state import load_state, save_state
from toys import colour_folder

BYTES = os.fsdecode(b"d\xe9")  # "dé" in Latin-1
ARCH = "timm:test_resnet"
NAMES = st.binary(max_size=8).map(lambda name: name.decode("utf-8", "surrogateescape"))


@given(NAMES)
def test_escaped_text_can_be_encoded_and_comes_back(name: str) -> None:
    escaped(name).encode()
    assert unescaped(escaped(name)) == name


def test_options_and_states_come_back(tmp_path: Path) -> None:
    options = {"data": f"folder:{BYTES}", "models": [BYTES, "b"], "width": 3, "inner": {BYTES: [BYTES]}}
    (tmp_path / "config.toml").write_text(to_toml(options), encoding="utf-8")
    assert read_toml(tmp_path / "config.toml") == options
    state = {"run": {"name": BYTES}, "history": [], "learner": {}, "position": {}}
    save_state(tmp_path, state)
    assert load_state(tmp_path) == (state, None)


@pytest.fixture
def odd(shconv) -> str:
    """--data for a folder, a class and files of such names, in the working folder."""
    try:
        colour_folder(Path(BYTES), classes=(BYTES, "green", "red"))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    for path in Path(BYTES).rglob("0.png"):
        path.rename(path.with_name(f"{BYTES}.png"))
    return f"folder:{BYTES}"


def test_a_fine_tuned_network_is_stored_and_evaluated(shconv, odd):
    file = f"{BYTES}.pth"
    torch.save(ConvertedConfig(ARCH, 4).vanilla().state_dict(), file)
    out = f"tuned-{BYTES}"
    ended = shconv("finetune", "--from", file, "--arch", ARCH, "--data", odd, "--epochs", 1, "--out", out)
    assert ended.code == 0, ended.err
    assert "The network: tuned-d\\udce9" in ended.out
    assert json.loads(Path(out, "config.json").read_text())["data"]["classes"] == [BYTES, "green", "red"]
    assert "\\udce9" in Path(out, "README.md").read_text(encoding="utf-8")
    assert from_pretrained(out).preparation.image_size == 8
    some = ("--data", odd, "--tables", 1, "--table1-images", 6, "--out", f"run-{BYTES}")
    ended = shconv("evaluate", out, *some)
    assert ended.code == 0, ended.err
    page = Path(f"run-{BYTES}", "report.html").read_text(encoding="utf-8")
    assert "\\udce9" in page
    assert shconv("evaluate", "--config", f"run-{BYTES}/config.toml", out).code == 0  # the options come back
    Path(BYTES, "test", BYTES).rename(Path(BYTES, "test", "other"))
    assert "calls class 0" in shconv("evaluate", out, "--data", odd, "--tables", 1).message


def test_a_training_and_its_audit_end_well(shconv, odd):
    out = f"trained-{BYTES}"
    trained = ("--model", "plain10", "--width", 4, "--epochs", 6, "--out", out)
    assert shconv("train", "--data", odd, *trained).code == 0
    again = shconv("train", "--data", odd, *trained)
    assert (again.code, again.err) == (0, "")  # finished: what is stored is what is asked for
    audited = ("--sources", out, "--images", 12, "--budget", "0.3s", "--out", f"audit-{BYTES}")
    ended = shconv("audit", out, "--data", odd, *audited)
    assert ended.code == 0, ended.err
    assert Path(f"audit-{BYTES}", "report.html").read_text(encoding="utf-8")
