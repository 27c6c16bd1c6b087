"""What the README shows works as it stands there, and it reads well on a phone."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from shconv.cli import _parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OTHERS = [
    ["git", "clone", "<this", "repository>", "shconv"],
    ["cd", "shconv"],
    ["source", ".venv/bin/activate"],
    ["shconv", "--version"],
]
WORDS, ROW, LINE = 30, 72, 92  # at most: words in a sentence, characters in a table's row and in a line of code


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str = README) -> list[list[str]]:
    """The words of every command in the shell blocks, and of those in the text that start with shconv, make or pip."""
    lines = "\n".join(blocks("sh", text)).replace("\\\n", " ").splitlines()
    inline = re.findall(r"(?<!`)`((?:shconv|make|pip|python) [^`]+)`(?!`)", text)
    return [words for line in [*lines, *inline] if (words := shlex.split(line, comments=True))]


def prose() -> str:
    """The text alone: no code, no tables, no pictures, no targets of links."""
    text = re.sub(r"```.*?```", "\n", README, flags=re.DOTALL)
    text = re.sub(r"^\|.*$|^<.*$|^!.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "]", text)


def test_the_code_runs_and_attacks() -> None:
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(code, names)
    adversarial, images = names["adversarial"], names["images"]
    assert isinstance(adversarial, torch.Tensor)
    assert 0 < float((adversarial - images).abs().max()) <= 8 / 255 + 1e-6
    assert set(names["table"]["attack"]) == {"clean", "PGD", "mine"}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_exists_and_its_options_are_known(words: list[str]) -> None:
    program, *arguments = words
    if program == "shconv" and arguments != ["--version"]:
        assert _parse(arguments)
    elif program == "make":
        rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert arguments[0] in rules
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    elif program == "pip":
        assert arguments[:2] == ["install", "-e"]
        extras = re.findall(r"\[(\w+)\]", arguments[2])
        assert re.sub(r"\[\w+\]", "", arguments[2]) == "."
        assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8") for extra in extras)
    else:
        assert words in OTHERS


def test_every_command_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    for name in listed:
        with pytest.raises(SystemExit) as stopped:
            _parse([name, "--help"])
        assert stopped.value.code == 0
    used = {words[1] for words in commands() if words[0] == "shconv" and not words[1].startswith("-")}
    assert used <= set(listed)


def test_every_file_the_readme_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)|src=\"([^\"]+)", README) if "://" not in link[0]]
    assert links
    assert [link for link in links if not (ROOT / (link[0] or link[1])).exists()] == []


def test_no_sentence_is_longer_than_thirty_words() -> None:
    sentences = re.split(r"(?<=[.!?])[*)\"]*\s+|\n\s*\n|\n- |\n#+ ", prose())
    assert len(sentences) > 50
    assert [sentence for sentence in sentences if len(sentence.split()) > WORDS] == []


def test_tables_and_code_fit_a_phone() -> None:
    rows = [re.sub(r"\]\([^)]*\)|[*`]", "", line) for line in README.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    assert [row for row in rows if len(row) > ROW or row.count("|") > 4] == []
    code = [line for text in re.findall(r"```\w*\n(.*?)```", README, re.DOTALL) for line in text.splitlines()]
    assert [line for line in code if len(line) > LINE] == []


def test_the_picture_shows_the_numbers_of_the_results_page() -> None:
    names: dict[str, object] = {"__name__": "drawing", "__file__": str(ROOT / "docs/figures/draw_results.py")}
    exec((ROOT / "docs/figures/draw_results.py").read_text(encoding="utf-8"), names)
    drawn = names["drawn"]
    assert callable(drawn)
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    picture = drawn(text)
    assert picture == (ROOT / "docs/figures/results.svg").read_text(encoding="utf-8")
    assert picture.count("<circle") == 2 + 16
    assert drawn(text.replace("37.9 ± 1.3", "47.9 ± 1.3")) != picture
