"""The documents' code runs as it stands, one page's blocks after another, and their links lead somewhere."""

import ast
import re
import shlex
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

import shconv
from shconv.cli import _parse

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python\n" in page.read_text(encoding="utf-8")]


def names() -> dict[str, object]:
    """What the pages take for given: a user's network and data."""
    model = shconv.create_model("plain10_shc", num_classes=4, stem="small", width=4)
    images, labels = torch.rand(12, 3, 16, 16), torch.arange(12) % 4
    with torch.no_grad():
        labels = model.eval()(images).argmax(1)
    return {"torch": torch, "shconv": shconv, "model": model, "network": model, "images": images, "labels": labels}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = names()
    for place, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
        short = code.replace('budget="5m"', 'budget="2s"')
        exec(compile(short, f"{page.name}, block {place}", "exec"), given)


def test_the_api_page_names_what_import_shconv_gives() -> None:
    names = re.findall(r"^::: shconv\.(\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 80
    assert [name for name in names if not resolve_name(f"shconv.{name}").__doc__] == []
    for first in {name.split(".")[0] for name in names}:  # nobody has to import more than shconv
        assert first in {*shconv.__all__, "models"} or shconv.__getattr__(first)


def test_some_pages_have_code() -> None:
    assert {"audit.md", "concepts.md", "conversion.md", "index.md"} <= {page.name for page in WITH_CODE}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


COMMAND = re.compile(
    r"^(?:    )?(?:[A-Z_]+=\S+ )*(?:torchrun .* -m |accelerate launch .* -m )?shconv ([a-z].*)$", re.MULTILINE
)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_command_of_a_page_has_the_options_that_it_shows(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for command in COMMAND.findall(text):
        words = shlex.split(command, comments=True)
        if not {"...", "$m"} & set(words):  # a command cut short; a loop's body
            assert _parse(words)


def test_the_pages_show_many_commands() -> None:
    assert sum(len(COMMAND.findall(page.read_text(encoding="utf-8"))) for page in PAGES) > 20


def test_the_architecture_names_every_room_and_none_that_is_gone() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "shconv"
    rooms = [each for each in source.iterdir() if not each.name.startswith(("__", ".")) and each.name != "py.typed"]
    assert len(rooms) > 30
    assert [room.name for room in rooms if not re.search(rf"`{room.stem}(/|\.py)", text)] == []
    named = re.findall(r"`([\w/]+(?:/|\.py))`", text)
    assert len(named) > 40
    run_folder = {"models/", "selection/", "outcomes/", "arrays/", "partial/", "tables/", "figures/"}
    gone = [name for name in named if not (ROOT / name).exists() and not any(source.glob(f"**/{name}"))]
    assert set(gone) <= run_folder


def test_every_file_that_the_code_names_is_there() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    there = {file.name for folder in (ROOT / "src", ROOT / "benchmarks") for file in folder.rglob("*.py")}
    named = set(re.findall(r"\b\w+\.py\b", code)) - {"file.py", "my_file.py"}  # a user's own
    assert len(named) > 4
    assert named - there <= {"hatch_build.py"}


def test_no_page_and_no_message_sends_people_to_a_package_that_is_not_published() -> None:
    files = [*PAGES, ROOT / "README.md", *(ROOT / "src").rglob("*.py")]
    found = re.compile(r"pip install ['\"]?shconv")
    assert [file.name for file in files if found.search(file.read_text(encoding="utf-8"))] == []


HARD_WORDS = re.compile(
    r"not to be told|less (its|the) twin|(do|does) not tell|goes on where|met no attack|right when clean"
)


def test_pages_and_messages_use_the_common_words_of_the_field() -> None:
    pages = [page for page in (*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md") if page.name != "mechanism.md"]
    texts = [(page.name, page.read_text(encoding="utf-8")) for page in pages]  # mechanism's plan is kept as written
    for file in (ROOT / "src").rglob("*.py"):
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        texts += [(file.name, n.value) for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    assert len(texts) > 1000
    assert [(name, found[0]) for name, text in texts if (found := HARD_WORDS.search(" ".join(text.split())))] == []


def number_of(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_the_parameters_of_shcs_relatives_are_those_of_their_layers() -> None:
    D = C = 256
    taps, plain = 9, C * D * 9
    linear, free = torch.nn.Linear, partial(torch.nn.Linear, bias=False)
    A = max(D // 16, 16)
    od_conv = number_of(free(D, A), torch.nn.BatchNorm1d(A), linear(A, D), linear(A, C), linear(A, taps))
    counted = {
        "SHC": number_of(shconv.SHConv2d(D, C, 3, bias=False)) - plain,
        "Squeeze-and-excitation": number_of(free(C, C // 16), free(C // 16, C)),
        "CondConv": 7 * plain + number_of(linear(D, 8)),
        "Dynamic convolution": 3 * plain + number_of(free(D, D // 4), free(D // 4, 4)),
        "ODConv": od_conv,
        "ODConv, n = 4": od_conv + 3 * plain + number_of(linear(A, 4)),
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Relatives")[1].split("\n## ")[0]
    shown = re.findall(r"^\| \W*([\w-]+(?: convolution)?),.*\| ([\d,]+) \|$", readme, re.MULTILINE)
    assert {name: int(number.replace(",", "")) for name, number in shown} == {
        name: number for name, number in counted.items() if name != "ODConv, n = 4"
    }
    concepts = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert all(f" {number:,} | " in concepts for number in counted.values())


def test_odconvs_spatial_attention_is_a_filter_map_of_the_means_alone() -> None:
    """Written as in Li, Zhou and Yao (2022), with one kernel and without the batch norm."""
    D, A = 32, 16
    layer = shconv.SHConv2d(D, 5, 3, padding=1, bias=False, statistics=("mean",), hidden_features=A).double()
    x = torch.randn(2, D, 6, 6, dtype=torch.float64)
    attention = layer.hyper.output(layer.hyper.hidden(x.mean((2, 3))).relu()).sigmoid().view(2, 1, 1, 3, 3)
    kernels = attention * layer.weight
    for image, kernel, y in zip(x, kernels, layer(x), strict=True):
        torch.testing.assert_close(torch.nn.functional.conv2d(image[None], kernel, padding=1)[0], y)
