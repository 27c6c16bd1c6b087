"""`shconv evaluate` with own attacks, networks and data, given as module:object: the rows of shconv.evaluate."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from shconv.cli import _parse
from shconv.commands.own_objects import is_object, named
from shconv.inspection import Inspection

MODULE = """
import torch
from toys import colour_networks, colours
from shconv.attacks import FGSM

LABELS = torch.tensor([i % 3 for i in range(12)])
weak = FGSM(0.01, objective="untargeted")
number = 3

def attack(model, images, labels):
    x = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), labels)
    (gradient,) = torch.autograd.grad(loss, x)
    return (images + 0.05 * gradient.sign()).clamp(0, 1).detach()

def plain():
    return colour_networks()[0]

def filtered():
    return colour_networks()[1]

def data():
    return colours(LABELS.tolist()).float() / 255, LABELS

def fails():
    raise ValueError("no such file")

def ends():
    raise SystemExit(0)
"""
MODEL_INFO = ["link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"]
MODEL_INFO += ["eps", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable"]
OWN = ["--model", "mine:plain", "b=mine:filtered", "--data", "mine:data", "--batch-size", "8"]


@pytest.fixture(autouse=True)
def module(shconv):
    """mine.py in an empty current folder."""
    Path("mine.py").write_text(MODULE)
    Path("broken.py").write_text("import nothing_of_this\n")
    Path("wrong.py").write_text("x = = 1\n")
    Path("script.py").write_text("import sys\nsys.exit('usage')\n")
    yield
    for name in ("mine", "broken", "wrong"):
        sys.modules.pop(name, None)


def test_own_attacks_networks_and_data_give_the_rows_of_the_call(shconv):
    ended = shconv("evaluate", *OWN, "--attack", "mine:attack", "w=mine:weak", "--attack", "fgsm", "--out", "run")
    assert ended.code == 0
    assert "attack" in ended.out
    import mine

    from shconv import attacks, evaluate

    wanted = evaluate(
        {"plain": mine.plain(), "b": mine.filtered()},
        mine.data(),
        {"attack": mine.attack, "w": mine.weak, "fgsm": attacks.create_attack("fgsm")},
        batch_size=8,
        progress=False,
    )
    found = pd.read_csv("run/rows.csv")
    pd.testing.assert_frame_equal(found[["id", "accuracy", "threat"]], wanted.rows()[["id", "accuracy", "threat"]])
    assert Path("run/images.csv").read_text().startswith("index,file,label\n0,0,0\n")
    assert len(pd.read_csv("run/outcomes.csv")) == 2 * 4 * 12


def test_the_same_command_adds_attacks_and_refuses_another_of_a_name(shconv):
    assert shconv("evaluate", *OWN, "--attack", "a=mine:weak", "--out", "run").code == 0
    assert shconv("evaluate", *OWN, "--attack", "a=mine:weak", "fgsm", "--out", "run").code == 0
    assert set(pd.read_csv("run/rows.csv").attack) == {"clean", "a", "fgsm"}
    assert 'a = "FGSM(' in shconv("evaluate", *OWN, "--attack", "a=mine:attack", "--out", "run").message
    again = shconv("evaluate", "--config", "run/config.toml", "--out", "run")
    assert again.code == 0


def test_several_checkpoints_meet_the_same_attacks_under_names_of_their_own(shconv, finished, pictures):
    first, second = (finished / "models" / f"{name}-seed0" for name in ("plain10", "plain10_shc"))
    asked = ["evaluate", first, second, f"again={first}", "--data", f"folder:{pictures}"]
    orders = (["--attack", "fgsm", "--images", 4], ["--images", 4, "--attack", "fgsm"])
    parsed = [_parse([str(word) for word in (*asked, *order)]) for order in orders]
    assert parsed[0] == parsed[1]
    ended = shconv(*asked, *orders[0])
    assert ended.code == 0
    rows = pd.read_csv("runs/plain10-seed0-and-2-more-on-folder" + str(pictures).replace("/", "-") + "/rows.csv")
    assert list(dict.fromkeys(rows.model)) == ["plain10", "plain10_shc", "again"]
    assert set(rows.n) == {4}
    accuracy = rows.set_index(["model", "attack"]).accuracy
    assert accuracy["again", "fgsm"] == accuracy["plain10", "fgsm"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--attack", "none:f"], "--attack none:f: there is no module none, neither in"),
        (["--attack", "mine:atack"], "the module mine has no atack; did you mean attack or"),
        (
            ["--attack", "broken:f"],
            "importing broken raised ModuleNotFoundError: No module named 'nothing_of_this'",
        ),
        (["--attack", "wrong:f"], "importing wrong raised SyntaxError: invalid syntax (wrong.py, line 1)"),
        (["--attack", "script:f"], "importing script raised SystemExit: usage (script.py, line 2)"),
        (["--attack", "missing.py:f"], "there is no file missing.py"),
        (["--attack", "mine:number"], "attack: got int; want an attack of shconv"),
        (["--attack", "fgms"], "there is no attack fgms; did you mean fgsm"),
        (["--attack", "mine"], "there is no attack mine; `shconv info` lists them. Your own is given as mine:NAME"),
        (["mine:data", "--attack", "fgsm"], "network mine:data: got tuple; want a torch.nn.Module"),
        (["--routes", "convolution"], "--routes goes with --attack"),
        (["--attack", "fgsm", "fgsm"], "the name fgsm is taken"),
        (["--attack", "fgsm", "--model", "mine:fails"], "calling it raised ValueError: no such file (mine.py, line"),
        (["--attack", "fgsm", "--model", "mine:ends"], "calling it raised SystemExit: 0 (mine.py, line"),
        (["--attack", "fgsm", "--model", "mine:data"], "--model mine:data: got tuple; want a torch.nn.Module"),
        (["--attack", "fgsm", "--data", "mine:number"], "data: got int; want (images, labels)"),
        (["--attack", "fgsm", "--routes", "up"], "there is no route up"),
        (["--images", "3"], "--images goes with --attack"),
    ],
)
def test_what_cannot_be_found_is_refused_in_a_line(shconv, options, said):
    assert said in shconv("evaluate", *OWN, *options).message


def test_an_attack_that_fails_is_named_with_the_line_and_one_that_leaves_the_range_is_said(shconv):
    Path("poor.py").write_text(
        "def fails(model, x, y):\n    return x.no_such\n\ndef nan(model, x, y):\n    return x / 0\n"
    )
    ended = shconv("evaluate", *OWN, "--attack", "poor:fails", "--out", "fails")
    assert ended.code == 2
    assert "shconv: the attack poor.fails raised AttributeError: 'Tensor' object has no" in ended.err
    assert "(poor.py, line 2)" in ended.err
    ended = shconv("evaluate", *OWN, "--attack", "poor:nan", "--out", "nan")
    assert ended.code == 0
    assert "warning: nan returned 12 of 12 images outside its budget or [0, 1], or with NaN" in ended.err
    sys.modules.pop("poor")


def test_an_attack_that_was_edited_goes_to_a_folder_of_its_own(shconv):
    asked = ["evaluate", "mine:plain", "--data", "mine:data", "--batch-size", 8]
    assert shconv(*asked, "--attack", "a=mine:weak").code == 0
    ended = shconv(*asked, "--attack", "a=mine:attack")
    assert ended.code == 0
    assert "runs/plain-on-mine-data holds another run: this one goes to runs/plain-on-mine-data-2" in ended.err
    assert shconv(*asked, "--attack", "a=mine:weak", "fgsm").err.count("-2") == 0


def test_own_networks_and_data_are_audited_and_inspected(shconv, monkeypatch):
    asked = ["--data", "mine:data", "--images", 12]
    ended = shconv("audit", "mine:filtered", "--twin", "mine:plain", *asked, "--budget", "2s")
    assert ended.code == 0
    assert Path("runs/audit-filtered/report.html").exists()
    assert "has no SHC layer" in shconv("inspect", "mine:plain", *asked).message
    monkeypatch.setattr(Inspection, "save", lambda self, folder: folder)
    ended = shconv("inspect", "mine:filtered", *asked, "--steps", 1)
    assert "runs/inspection-filtered" in ended.err
    assert "images of a module are for evaluate, compare, audit" in shconv("train", "--data", "mine:data").message


def test_a_file_is_named_by_its_path(shconv, tmp_path):
    (tmp_path / "elsewhere.py").write_text(MODULE)
    file = tmp_path / "elsewhere.py"
    assert shconv("evaluate", *OWN, "--attack", f"{file}:attack", "--images", 3).code == 0
    sys.modules.pop("elsewhere")


def test_forms_of_names(tmp_path, monkeypatch):
    assert is_object("a.b:c")
    assert is_object("/x/a.py:c")
    assert not any(map(is_object, ("folder:a/b", "a", "a:", ":a", "a:b-c", "C:\\data")))
    assert named("x=a:b") == ("x", "a:b")
    assert named("a:b") == ("", "a:b")
    (tmp_path / "here" / "x=1").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert named("x=1") == ("", "x=1")


@pytest.mark.parametrize(("options", "eps"), [(["--eps", "80/255"], "80/255"), (["--norm", "l2", "--eps", "8"], "8")])
def test_standard_prints_robustbenchs_number_and_writes_its_file(shconv, monkeypatch, options, eps):
    monkeypatch.setattr("shconv.attacks.standard.STEPS", 10)
    monkeypatch.setattr("shconv.attacks.standard.QUERIES", 50)
    ended = shconv("evaluate", *OWN, "--standard", *options, "--images", 3, "--out", "run")
    assert ended.code == 0
    outcomes = pd.read_csv("run/outcomes.csv")
    for name in ("plain", "b"):
        held = json.loads(Path(f"run/robustbench/{name}-seed0.json").read_text())
        ours = outcomes[outcomes.model == name].set_index("attack").correct
        assert held["autoattack_acc"] == f"{100 * ours['autoattack'].mean():.2f}"
        assert held["clean_acc"] == f"{100 * ours['clean'].mean():.2f}"
        assert held["eps"] == eps
        assert f"{name}: clean accuracy {ours['clean'].mean():.2%}, AutoAttack accuracy" in ended.out
    assert list(held) == MODEL_INFO
