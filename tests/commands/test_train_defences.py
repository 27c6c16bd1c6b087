"""`shconv train --defence ...`: what it takes, what it refuses before it reads an image, what it leaves."""

import json
from pathlib import Path

import pytest
import tomli_w

from shconv.commands.config_file import from_toml, plain
from shconv.commands.train import Train
from shconv.training import DEFENCES

REFUSED = {
    "unknown fraction": (["pgd", "--defence-eps", "8/0"], "got '8/0'; want a number, such as 0.03 or 8/255"),
    "no number": (["pgd", "--defence-eps", "big"], "got 'big'; want a number, such as 0.03 or 8/255"),
    "in levels": (
        ["fgsm-rs", "--defence-eps", "8"],
        "eps: got 8; want at most 1, as images lie in [0, 1] (8/255",
    ),
    "nothing": (["pgd", "--defence-eps", "0/255"], "eps: got 0.0; want a number > 0"),
    "no sources": (["ensemble"], "give at least one as its source"),
    "no such source": (["ensemble", "--defence-sources", "nowhere"], "no checkpoint in nowhere"),
    "another defence's setting": (["fgsm-rs", "--defence-steps", "3"], "defence fgsm-rs has no steps; it has eps, st"),
    "a setting of none": (["none", "--defence-eps", "8/255"], "defence none has no eps"),
    "no steps": (["pgd", "--defence-steps", "0"], "steps is 0; wanted: an integer of at least 1"),
    "no noise": (["stability", "--defence-sigma", "0"], "sigma: got 0.0; want a number > 0"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_a_line_or_two_and_nothing_is_written(shconv, arguments, message):
    assert message in shconv("train", "--data", "folder:unread", "--defence", *arguments).message
    assert list(Path.cwd().iterdir()) == []


def test_an_unknown_defence_is_refused_with_those_there_are(shconv):
    ended = shconv("train", "--defence", "distilled")
    assert ended.code == 2
    assert all(name in ended.err for name in DEFENCES)


@pytest.mark.parametrize(("text", "eps"), [("8/255", 8 / 255), ("0.03", 0.03), ("1e-2", 0.01), ("1/2", 0.5)])
def test_a_budget_may_be_a_fraction_or_a_number_and_the_checkpoint_keeps_it(shconv, pictures, text, eps):
    run = ("train", "--data", f"folder:{pictures}", "--width", 2, "--epochs", 1, "--batch-size", 12)
    ended = shconv(*run, "--defence", "pgd", "--defence-eps", text, "--defence-steps", 2, "--defence-step-size", "3/4")
    assert ended.code == 0, ended.err
    assert "plain10_shc, seed 0, defence pgd, on" in ended.err
    stored = json.loads(Path("runs/train/plain10_shc-pgd-seed0/config.json").read_text())
    assert stored["defence"] == {"name": "pgd", "eps": eps, "step_size": 0.75, "steps": 2}


def test_an_ensembles_sources_are_finished_checkpoints_of_the_same_classes(shconv, finished, pictures, tmp_path):
    run = ("train", "--width", 2, "--epochs", 1, "--batch-size", 12, "--defence", "ensemble", "--defence-sources")
    sources = [finished / "models" / f"{name}-seed0" for name in ("plain10", "plain10_shc")]
    for model in ("plain10", "plain10_shc"):
        ended = shconv(*run, *sources, "--data", f"folder:{pictures}", "--model", model)
        assert ended.code == 0, ended.err
        stored = json.loads(Path(f"runs/train/{model}-ensemble-seed0/config.json").read_text())
        assert [each["model"] for each in stored["defence"]["sources"]] == ["plain10", "plain10_shc"]
    (tmp_path / "renamed").mkdir()
    for part in ("train", "test"):
        (tmp_path / "renamed" / part).mkdir()
        for name, new in (("red", "rose"), ("green", "green"), ("blue", "blue")):
            (tmp_path / "renamed" / part / new).symlink_to(pictures / part / name)
    message = shconv(*run, *sources, "--data", f"folder:{tmp_path / 'renamed'}", "--out", "new").message
    assert "was trained on 3 classes (blue, green, red); wanted: 3 classes (blue, green, rose)" in message
    assert not Path("new/state.pt").exists()


def test_a_file_can_hold_the_defence_and_its_settings(tmp_path):
    for options in (
        Train(defence="ensemble", defence_eps=4 / 255, defence_sources=("a", "b")),
        Train(defence="pgd", defence_eps=0.02, defence_steps=3, defence_step_size=0.5),
        Train(defence="stability", defence_alpha=2.0, defence_sigma=0.2),
    ):
        path = tmp_path / "config.toml"
        path.write_text(tomli_w.dumps(plain(options)), encoding="utf-8")
        assert from_toml(Train, "train", path, Train()) == options
