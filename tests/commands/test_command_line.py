"""What the command line accepts, what it says to everything else, and where it says it."""

import itertools
import json
import os
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import shconv as package
from shconv.cli import run
from shconv.commands.audit import AuditCommand
from shconv.commands.evaluate import Evaluate
from shconv.commands.finetune import Finetune
from shconv.commands.help_groups import GROUPS, group_of, order_of
from shconv.commands.info import Info
from shconv.commands.inspect import Inspect
from shconv.commands.plan import Plan
from shconv.commands.report import Report
from shconv.commands.reproduce import PRESETS, Reproduce
from shconv.commands.train import Train
from shconv.experiments.run_folder import RunFolder
from shconv.training.passes import Passes
from toys import colour_folder

COMMANDS = {
    "reproduce": Reproduce,
    "train": Train,
    "evaluate": Evaluate,
    "inspect": Inspect,
    "report": Report,
    "info": Info,
}
POSITIONAL = {"checkpoint", "run_folder"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_option(shconv, command):
    ended = shconv(command, "--help")
    assert ended.code == 0
    assert ended.err == ""
    for field in fields(COMMANDS[command]):
        shown = field.name.upper() if field.name in POSITIONAL else f"--{field.name.replace('_', '-')}"
        assert shown in ended.out, field.name


def test_help_names_the_commands_and_both_sources_of_options(shconv):
    ended = shconv("--help")
    assert ended.code == 0
    for word in (*COMMANDS, "--preset", "--config"):
        assert word in ended.out


def test_a_machine_on_which_torch_compile_fails_is_said_in_a_line_and_training_goes_on_without(
    shconv, pictures, monkeypatch
):
    """No C++ compiler, no Triton: torch says it at the first step."""

    def broken(graph, inputs):
        raise RuntimeError("No working C++ compiler found\nSet TORCHDYNAMO_VERBOSE=1")

    compiling = "shconv.training.learner.compiled"
    monkeypatch.setattr(compiling, lambda network, reason: torch.compile(network, backend=broken))
    command = ["train", "--model", "plain10", "--data", f"folder:{pictures}", "--width", 2, "--epochs", 1]
    command += ["--batch-size", 8, "--out", "here"]
    ended = shconv(*command, "--compile")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    said = ended.err.splitlines()[-1]
    assert said.startswith("shconv: torch.compile cannot compile here: ")
    assert said.endswith("RuntimeError: No working C++ compiler found; run the same command without it")
    assert shconv(*command).code == 0


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            ": 2.00 GiB more were wanted",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 512 bytes. Err"),
            ": 512 bytes",
        ),
        (MemoryError("forward found no memory for its scratch"), "; try"),
        (RuntimeError("could not create a primitive"), "; try"),
        (RuntimeError("can't start new thread"), ", or more threads than may run (ulimit -u) were wanted; try"),
    ],
)
def test_where_memory_runs_out_a_line_says_what_takes_less_and_that_goes_on(
    error, wanted, shconv, pictures, monkeypatch
):
    command = ["train", "--data", f"folder:{pictures}", "--width", 2, "--epochs", 2, "--batch-size", 8, "--out", "here"]
    with monkeypatch.context() as patch:
        original = Passes.__call__

        def short(self, *arguments):
            if len(self.learner.optimizer.state) and self.learner.network.training and Path("here/log.jsonl").exists():
                raise error
            return original(self, *arguments)

        patch.setattr(Passes, "__call__", short)
        ended = shconv(*command)
    assert ended.code == 1
    said = ended.err.splitlines()[-1]
    assert said.startswith(f"shconv: memory ran out{wanted}")
    assert "try --accumulation 2 (a step in two parts) or a smaller --batch-size; what was written is intact" in said
    going_on = shconv(*command, "--accumulation", 2)
    assert going_on.code == 0
    assert "accumulation 1 -> 2" in going_on.err
    assert len(Path("here/log.jsonl").read_text().splitlines()) == 2


def test_the_version_is_a_line(shconv):
    for flag in ("--version", "-V"):
        assert shconv(flag).out == f"shconv {package.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_each_option_is_in_words(shconv, command):
    """A line or more below every option, and no types of Python."""
    lines = shconv(command, "--help").out.splitlines()
    for above, below in itertools.pairwise(lines):
        assert not above.startswith("  --") or below.startswith("        "), above
    assert not re.search(r"None|\bINT\b|\bSTR\b|\|", "\n".join(lines))


def test_help_begins_with_what_one_wants_and_ends_with_clusters(shconv):
    said = shconv("train", "--help").out
    titles = re.findall(r"^(\w.*):$", said, re.MULTILINE)
    assert (titles[0], titles[-1]) == ("options", "several processes and clusters")
    assert re.findall(r"^  (--[\w-]+)", said, re.MULTILINE)[:4] == ["--data", "--model", "--out", "--epochs"]


def test_every_option_of_every_command_has_a_place():
    known = [name for names in GROUPS.values() for name in names]
    assert len(known) == len(set(known))
    for kind in (Reproduce, Train, Evaluate, AuditCommand, Inspect, Finetune, Plan):
        for field in fields(kind):
            assert order_of(kind, field.name)[1] < len(GROUPS[group_of(kind, field.name)]), field.name


def test_underscores_and_equal_signs_do(shconv):
    assert "table1_images must be at least 1, got 0" in shconv("reproduce", "--table1_images=0").message


def test_none_takes_a_default_away(monkeypatch):
    seen = []
    monkeypatch.setattr(Train, "run", lambda self: seen.append(self))
    assert run(["train", "--save-minutes", "none", "--learning-rate", "1/8", "--no-channels-last"]) == 0
    assert (seen[0].save_minutes, seen[0].learning_rate, seen[0].channels_last) == (None, 0.125, False)
    assert seen[0].defence == "none"


def test_info_shows_networks_attacks_and_recipes(shconv, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ended = shconv("info")
    assert ended.code == 0
    names = (
        *package.list_models(),
        "plain10_odconv_spatial",
        "SpatialAttentionConv2d",
        *package.attacks.list_attacks(),
    )
    for word in (*names, "he2016", "12,841,208", "24,125,256", "+9.9%", "epsilon=8/255"):
        assert word in ended.out


# ---- refused, and nothing is left behind

REFUSED = {
    "unknown network": (["reproduce", "--models", "plain1O"], "plain1O.*choose from plain10, resnet18, resnet50"),
    "SHC network": (["reproduce", "--models", "plain10_shc"], "give plain10, both are trained"),
    "no network": (["reproduce", "--models"], "models must be different networks, at least one"),
    "same network twice": (["reproduce", "--models", "plain10", "plain10"], "models must be different networks"),
    "unknown model": (["train", "--model", "resnet81"], "resnet81.*did you mean resnet18"),
    "unknown recipe": (["reproduce", "--recipe", "chort"], "chort.*choose from paper, he2016, cifar, short"),
    "unknown recipe to train": (["train", "--recipe", "chort"], "chort.*choose from"),
    "unknown data": (["reproduce", "--data", "dmo"], r"dmo.*did you mean demo\?"),
    "no CIFAR-10 here": (["evaluate", "nowhere", "--data", "cifar10"], "no checkpoint in nowhere"),
    "no such folder": (["reproduce", "--data", "folder:nowhere"], "nowhere is not there"),
    "unknown preset": (["reproduce", "--preset", "papr"], "papr.*did you mean paper.*demo, paper"),
    "preset of another command": (["train", "--preset", "paper"], "wanted `shconv reproduce --preset`"),
    "paper without ImageNet": (["reproduce", "--preset", "paper"], "^shconv: data/imagenet is not there"),
    "no images": (["reproduce", "--table1-images", "0"], "table1_images must be at least 1, got 0"),
    "sure of all": (["reproduce", "--min-confidence", "1"], "min_confidence must be at least 0 and below 1, got 1"),
    "no batch": (["reproduce", "--batch-size", "0"], "batch_size must be at least 1, got 0"),
    "negative seed": (["reproduce", "--seeds", "0", "-1"], r"seeds must be .* got \[0, -1\]"),
    "same seed twice": (["reproduce", "--seeds", "1", "1"], "seeds must be different"),
    "negative attack seed": (["reproduce", "--attack-seed", "-1"], "attack_seed must be at least 0"),
    "no epochs": (["reproduce", "--epochs", "0"], "epochs is 0"),
    "no width": (["reproduce", "--width", "0"], "width must be at least 1, got 0"),
    "no width to train": (["train", "--width", "0"], "width must be at least 1, got 0"),
    "negative workers": (["train", "--workers", "-1"], "workers must be at least 0"),
    "negative learning rate": (["train", "--learning-rate", "-1"], "learning_rate is -1"),
    "negative seed to train": (["train", "--seed", "-1"], "seed must be at least 0, got -1"),
    "no such table": (["evaluate", "x", "--tables", "5"], "there is no table 5; choose from 1, 2, 3, 4"),
    "no table": (["evaluate", "x", "--tables"], "no table given"),
    "no such run": (["report", "nowhere"], "nowhere is not there"),
    "missing config": (["reproduce", "--config", "nowhere.toml"], "nowhere.toml cannot be read: No such file"),
    "no command, but help": (["help", "trian"], "there is no command trian; did you mean train"),
    "a network's name": (["evaluate", "resnet18"], "resnet18 is a network's name; wanted: a folder that shconv train"),
    "twin itself": (["audit", "a", "--twin", "a"], "the twin is the network itself"),
    "one network": (["compare", "a.py:f"], "compare: got 1 network; want at least two"),
    "nothing to compare": (["compare", "nowhere"], "nowhere is not there; want folders of runs or audits"),
    "no weights": (["finetune", "--from", "resnet18"], "resnet18 is not there; wanted: timm:NAME or torchvision:NAME"),
    "short": (["train", "--lr", "1"], "train has no option --lr; did you mean --learning-rate"),
    "longer": (["train", "--dataset", "demo"], "train has no option --dataset; did you mean --data?"),
    "capitals": (["train", "--model", "ResNet18_SHC"], "did you mean resnet18_shc"),
    "config without command": (["--config", "x.toml"], "a command comes first; choose from reproduce, train"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_a_line_or_two_and_nothing_is_written(shconv, arguments, message):
    assert re.search(message, shconv(*arguments).message)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "reproduce, train, evaluate, compare, audit, inspect, report"),
        (
            ["reproduc"],
            "no command reproduc; did you mean reproduce? choose from reproduce, train, evaluate",
        ),
        (["trian", "--epochs", "3"], "no command trian; did you mean train?"),
        (["--data", "demo", "train"], "a command comes first; choose from reproduce, train"),
        (["reproduce", "--wdth", "3"], "reproduce has no option --wdth; did you mean --width?"),
        (["train", "--epoks=3"], "train has no option --epoks; did you mean --epochs?"),
        (["train", "--qqq"], "train has no option --qqq; `shconv train --help` lists them"),
        (["evaluate", "--twn", "x", "y"], "evaluate has no option --twn; did you mean --twin?"),
        (["reproduce", "--width", "big"], "--width: got 'big'; want an integer"),
        (["train", "--width", str(2**63)], "--width: got '9223372036854775808'; want an integer of at most 64 bits"),
        (["train", "--learning-rate", "1/0"], "--learning-rate: got '1/0'; want a number, such as 0.03 or 8/255"),
        (["train", "--stem", "smal"], "--stem: got 'smal'; did you mean small? choose from auto, small, imagenet"),
        (["train", "--stem", "tiny"], "--stem: got 'tiny'; choose from auto, small, imagenet"),
        (["bench", "opp"], "got 'opp'; did you mean op? choose from op, host, model, attack"),
        (["reproduce", "--config"], "--config: expected one argument"),
        (["train", "plain10"], "train: unrecognized arguments: plain10"),
        (["evaluate"], "evaluate wants CHECKPOINT or --model; `shconv evaluate --help` says what they are"),
        (["finetune"], "finetune wants --from; `shconv finetune --help` says what it is"),
    ],
)
def test_the_parser_refuses_with_a_hint(shconv, arguments, words):
    assert words in shconv(*arguments).message


# ---- images that cannot be used


def test_two_classes_are_too_few_for_relative_confidence_but_can_be_trained_on(shconv, tmp_path):
    data = colour_folder(tmp_path / "two", classes=("blue", "red"))
    assert (
        "has 2 classes; relative confidence needs at least 3" in shconv("reproduce", "--data", f"folder:{data}").message
    )
    ended = shconv("train", "--data", f"folder:{data}", "--width", 2, "--epochs", 1)
    assert ended.code == 0
    assert "12 test images\nThe network: runs/train/plain10_shc-seed0" in ended.out


def test_skipped_files_are_counted_and_the_count_is_shown(shconv, tmp_path):
    data = colour_folder(tmp_path / "data")
    for name in ("test/green/3.png", "train/red/1.png"):
        (data / name).write_text("no image")
    ended = shconv("train", "--data", f"folder:{data}", "--on-corrupt", "skip", "--width", 2, "--epochs", 1)
    assert ended.code == 0
    assert "2 files that are no images were left out" in ended.err
    assert "35 training and 17 test images" in ended.err


# ---- folders


def test_a_run_folder_in_use_is_refused(shconv, pictures):
    with RunFolder.opened(Path("runs/busy")):
        for command in ("reproduce", "train"):
            message = shconv(command, "--data", f"folder:{pictures}", "--out", "runs/busy").message
            assert "runs/busy is in use by another process" in message


def test_a_file_in_the_place_of_the_run_folder_is_refused(shconv, pictures):
    Path("file").write_text("mine")
    assert "file is a file" in shconv("reproduce", "--data", f"folder:{pictures}", "--out", "file").message
    assert "file is a file" in shconv("reproduce", "--data", f"folder:{pictures}", "--out", "file/run").message
    assert Path("file").read_text() == "mine"


def test_another_option_in_a_run_folder_is_named(shconv, copied, pictures, monkeypatch):
    config = copied / "config.toml"
    message = shconv("reproduce", "--config", config, "--data", f"folder:{pictures}", "--out", copied).message
    assert "data = 'folder:colours'" in message
    monkeypatch.chdir(pictures.parent)
    message = shconv("reproduce", "--config", config, "--out", copied, "--width", 5).message
    assert "width = 4, asked for is 5" in message


def test_a_damaged_row_is_named_by_every_command_that_reads_it(shconv, copied, pictures, monkeypatch):
    rows = copied / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join([lines[0], '{"id": "table1\n', *lines[1:]]))
    monkeypatch.chdir(pictures.parent)
    for arguments in (["report", copied], ["reproduce", "--config", copied / "config.toml", "--out", copied]):
        assert "rows.jsonl, line 2 is damaged" in shconv(*arguments).message


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["info"]])
def test_a_full_disk_under_standard_output_is_said_of_it(arguments, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run(arguments) == 1
    assert "shconv: the disk is full: standard output could not be written;" in capsys.readouterr().err


# ---- the whole


def test_paper_preset_is_the_papers_setting():
    paper = PRESETS["paper"]
    assert paper.models == ("plain10", "resnet18", "resnet50")  # each with its SHC twin
    assert (paper.width, paper.recipe, paper.epochs, paper.full) == (64, "paper", None, True)
    assert (paper.table1_images, paper.table2_images, paper.table3_images) == (50_000, 5_000, 500)
    assert paper.data.startswith("imagenet:")
    assert (paper.test_preset, paper.normalize, paper.image_size) == ("paper", "none", None)
    paper.check()


def test_options_beside_a_preset_go_before_it(shconv):
    message = shconv("reproduce", "--preset", "paper", "--data", "imagenet:elsewhere").message
    assert "elsewhere is not there" in message


def test_tables_go_to_standard_output_and_progress_to_standard_error(finished, pictures):
    """Away from any terminal; nothing it says holds a path that it was not given."""
    out, err = ((finished.parent / name).read_text() for name in ("out", "err"))
    assert "Table 1. Gaussian noise" in out
    assert "epoch 40/40" in err
    assert "table1/plain10_shc/seed0/clean" in err
    assert "epoch 40/40" not in out
    assert "Table 1. Gaussian noise" not in err
    assert err.splitlines()[-1] == f"The report: {os.path.relpath(finished, pictures.parent)}/report.html"
    for path in (str(finished.parent), str(Path.home()), sys.prefix, str(Path(package.__file__).parent)):
        assert path not in out + err + (finished / "report.html").read_text()
    assert json.loads((finished / "data.json").read_text())["name"] == "folder:colours"
