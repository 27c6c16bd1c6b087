"""`shconv train --defence ...`: what it takes, what it refuses before it reads an image, what it leaves."""

import json
from pathlib import Path

import pytest
import tomli_w
import torch

from shconv.commands.config_file import from_toml, plain
from shconv.commands.train import Train
from shconv.results import load
from shconv.training import DEFENCES, load_checkpoint

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
    "no steps": (["pgd", "--defence-steps", "0"], "steps: got 0; want an integer of at least 1"),
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


@pytest.mark.parametrize(
    ("defence", "first", "columns"),
    [
        ("distillation", "teacher", set()),
        ("noise-model", None, set()),
        ("detector", "classifier", {"clean, right and not rejected", "undetected_pgd, right or rejected"}),
    ],
)
def test_what_it_leaves_is_evaluated_audited_and_compared_like_any_other(
    shconv, finished, pictures, defence, first, columns
):
    data, model = ("--data", f"folder:{pictures}"), ("--model", "plain10_shc", "--width", 4)
    run = ("train", *model, *data, "--epochs", 2, "--batch-size", 12, "--defence", defence, "--out", "guarded")
    ended = shconv(*run)
    assert ended.code == 0, ended.err
    if first is not None:
        assert f"defence {defence}: its {first}, in guarded/{first}" in ended.err
        assert (Path("guarded") / first / "model.safetensors").exists()
    before = Path("guarded/model.safetensors").read_bytes()
    again = shconv(*run)
    assert again.code == 0, again.err
    assert "epoch" not in again.err  # it is finished, and its first network too
    attacks = ("fgsm", "undetected_pgd") if columns else ("fgsm",)  # without a detector it is PGD, which takes seconds
    ended = shconv("evaluate", "guarded", *data, "--attack", *attacks, "--out", "evaluated")
    assert ended.code == 0, ended.err
    assert all(attack in ended.out for attack in attacks)
    rows = [json.loads(line) for line in Path("evaluated/rows.jsonl").read_text().splitlines()]
    summary = load("evaluated").summary()
    assert columns <= set(summary.columns)
    assert ("detection_auc" in rows[-1]) == ("accuracy_rejecting" in rows[0]) == bool(columns)
    twin = finished / "models" / "plain10_shc-seed0"
    ended = shconv("compare", f"guarded={Path('guarded')}", f"plain={twin}", *data, "--attack", "fgsm", "--out", "both")
    assert ended.code == 0, ended.err
    ended = shconv("audit", "guarded", *data, "--budget", "0.3s", "--images", 12, "--out", "audited")
    assert ended.code == 0, ended.err
    assert Path("guarded/model.safetensors").read_bytes() == before


def test_a_finished_network_takes_the_place_of_the_one_that_is_trained_first(shconv, finished, pictures):
    source = finished / "models" / "plain10_shc-seed0"
    run = ("train", "--data", f"folder:{pictures}", "--width", 4, "--epochs", 1, "--batch-size", 12)
    for defence, word in (("distillation", "teacher"), ("detector", "classifier")):
        ended = shconv(*run, "--defence", defence, "--defence-sources", source, "--out", defence)
        assert ended.code == 0, ended.err
        assert not (Path(defence) / word).exists()
        stored = json.loads((Path(defence) / "config.json").read_text())
        assert stored["defence"][word]["model"] == "plain10_shc"
    guarded = load_checkpoint("detector")[0]
    wanted = load_checkpoint(source)[0].state_dict()
    assert all(torch.equal(each, wanted[name]) for name, each in guarded.network.state_dict().items())
