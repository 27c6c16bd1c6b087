"""The documents' code runs as it stands, one page's blocks after another, and their links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch

import shconv

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
        short = code.replace('budget="5m"', 'budget="10s"')
        exec(compile(short, f"{page.name}, block {place}", "exec"), given)


def test_some_pages_have_code() -> None:
    assert {"audit.md", "concepts.md", "conversion.md", "index.md"} <= {page.name for page in WITH_CODE}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
