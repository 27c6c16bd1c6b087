"""Options from a TOML file: what is stored comes back, and what does not fit is named before anything runs."""

from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from shconv.commands.audit import AuditCommand
from shconv.commands.config_file import from_toml, plain
from shconv.commands.evaluate import Evaluate
from shconv.commands.report import Report
from shconv.commands.reproduce import PRESETS, Reproduce
from shconv.commands.train import Train
from shconv.errors import InputError

OPTIONS = {
    "reproduce": [*PRESETS.values(), Reproduce(seeds=(0, 1), epochs=3, image_size=8, out=Path("a b/ü"), full=True)],
    "train": [Train(), Train(out=Path("x"), precision="bf16", learning_rate=0.5, batch_size=3, weight_decay=1)],
    "evaluate": [Evaluate(checkpoint=(Path("a"),)), Evaluate(checkpoint=(Path("a"),), twin=Path("b"), tables=(1, 4))],
}
CASES = [(command, options) for command, all in OPTIONS.items() for options in all]


def stored(tmp_path: Path, values: dict[str, object]) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(("command", "options"), CASES)
def test_options_come_back_as_they_were_stored(tmp_path, command, options):
    path = stored(tmp_path, {"command": command, **plain(options)})
    base = None if command == "evaluate" else type(options)()
    assert from_toml(type(options), command, path, base) == options


@settings(max_examples=30)
@given(
    width=st.integers(1, 512),
    seeds=st.lists(st.integers(0, 2**31), unique=True, min_size=1, max_size=4),
    data=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
    full=st.booleans(),
)
def test_any_value_of_its_type_comes_back(tmp_path_factory, width, seeds, data, full):
    options = Reproduce(width=width, seeds=tuple(seeds), data=data, full=full)
    path = stored(tmp_path_factory.mktemp("config"), plain(options))
    assert from_toml(Reproduce, "reproduce", path, Reproduce()) == options


def test_what_the_file_leaves_out_is_the_bases(tmp_path):
    path = stored(tmp_path, {"width": 8})
    for base in PRESETS.values():
        assert from_toml(Reproduce, "reproduce", path, base) == replace(base, width=8)


def test_an_argument_that_must_be_given_can_be_left_to_the_command_line(tmp_path):
    options = from_toml(AuditCommand, "audit", stored(tmp_path, {"images": 2}), None)
    assert options.images == 2
    assert options.checkpoint is MISSING
    assert from_toml(Report, "report", stored(tmp_path, {"run_folder": "x"}), None) == Report(Path("x"))


def test_one_path_where_several_may_be_is_a_list_of_one(tmp_path):
    assert from_toml(Evaluate, "evaluate", stored(tmp_path, {"checkpoint": "a"}), None).checkpoint == (Path("a"),)
    options = from_toml(Evaluate, "evaluate", stored(tmp_path, {"checkpoint": ["a", "b"]}), None)
    assert options.checkpoint == (Path("a"), Path("b"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": "big"}, r"width = 'big'; wanted an integer$"),
        ({"width": 1.5}, r"width = 1.5; wanted an integer$"),
        ({"width": True}, r"width = True; wanted an integer$"),
        ({"seeds": 0}, r"seeds = 0; wanted a list, in it an integer each$"),
        ({"seeds": ["0"]}, r"seeds = \['0'\]; wanted a list"),
        ({"models": "plain10"}, r"models = 'plain10'; wanted a list, in it a text each$"),
        ({"full": 1}, r"full = 1; wanted true or false$"),
        ({"data": 3}, r"data = 3; wanted a text$"),
        ({"out": 3}, r"out = 3; wanted a path$"),
        ({"epochs": "3"}, r"epochs = '3'; wanted an integer$"),
        ({"epochs": 2**63}, r"epochs = 9223372036854775808; wanted an integer$"),
        ({"stem": "tiny"}, r"stem = 'tiny'; wanted 'auto' or 'small' or 'imagenet'$"),
        ({"wdth": 3, "x": 1}, r"unknown options wdth, x; did you mean width\?"),
        ({"takes_own_data": True}, "unknown options takes_own_data"),  # of the class, no option
        ({"command": "train"}, r"holds options of another command than reproduce$"),
    ],
)
def test_what_does_not_fit_is_named_with_what_is_wanted(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        from_toml(Reproduce, "reproduce", stored(tmp_path, values), Reproduce())


def test_a_number_may_be_written_without_a_point(tmp_path):
    assert from_toml(Train, "train", stored(tmp_path, {"learning_rate": 1}), Train()).learning_rate == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"width =", "is no TOML file"), (b"\xff\xfe", "is no TOML file"), (None, "cannot be read: No such file")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"config\.toml {message}"):
        from_toml(Train, "train", path, Train())


def test_a_run_folders_file_given_back_gives_the_same_options(finished):
    options = from_toml(Reproduce, "reproduce", finished / "config.toml", Reproduce())
    wanted = Reproduce(
        data="folder:colours",
        models=("plain10",),
        width=4,
        epochs=40,
        table2_images=8,
        table3_images=2,
        batch_size=8,
        out=options.out,
    )
    assert options == wanted
    assert {field.name for field in fields(options)} >= set(plain(options))


def test_the_command_line_goes_before_the_file(shconv, tmp_path, pictures):
    """--config may stand before the command and after it; what it holds is checked like any other option."""
    path = stored(tmp_path, {"data": f"folder:{pictures}", "width": 2, "epochs": 1, "out": "from-file"})
    for place, arguments in enumerate((["--config", path, "train"], ["train", f"--config={path}"])):
        ended = shconv(*arguments, "--out", f"run{place}", "--model", "plain10")
        assert ended.code == 0
        assert f"18 test images\nThe network: run{place}" in ended.out
    assert not Path("from-file").exists()
    path = stored(tmp_path, {"width": 0})
    assert "width must be at least 1, got 0" in shconv("train", "--config", path).message


def test_a_number_may_be_a_fraction_in_text(tmp_path):
    path = stored(tmp_path, {"defence_eps": "8/255", "learning_rate": "1/8", "weight_decay": 0.5})
    options = from_toml(Train, "train", path, Train())
    assert (options.defence_eps, options.learning_rate, options.weight_decay) == (8 / 255, 0.125, 0.5)
    with pytest.raises(InputError, match="defence_eps = '8/0'; wanted a number"):
        from_toml(Train, "train", stored(tmp_path, {"defence_eps": "8/0"}), Train())


def test_a_file_as_windows_writes_it_is_read(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b'\xef\xbb\xbfmodel = "plain10"\r\nwidth = 3\r\n')
    assert from_toml(Train, "train", path, Train()) == Train(model="plain10", width=3)
