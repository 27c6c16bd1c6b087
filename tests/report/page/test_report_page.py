"""The page: self-contained, escaped, drawn without torch, and without sideways scrolling on a telephone."""

import base64
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from html_page import CHROMIUM, Page, measured
from made_audit import add_audit

import shconv.report
from shconv.report import write


@pytest.fixture(scope="module")
def full_run(tmp_path_factory, run_folder_class):
    """The page of a run of everything and of two audits, with all figures."""
    folder = run_folder_class(tmp_path_factory.mktemp("page") / "run").everything(n=40)
    add_audit(folder)
    add_audit(folder, "a network of mine, adversarially trained", masked=False)
    return write(folder.save(), figures=("svg",))


def test_the_page_is_well_formed_and_self_contained(full_run):
    text = full_run.read_text(encoding="utf-8")
    assert len(text) < 2_500_000  # people mail it
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    files = {str(file.relative_to(full_run.parent)) for file in full_run.parent.rglob("*")}
    assert {unquote(link) for link in page.links if not link.startswith("#")} == {
        name for name in files if re.match("figures/.|tables/.", name)
    }
    assert page.tags.count("script") == 1
    script = text[text.index("<script>") + 8 : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text  # and no other script may run
    assert "link" not in page.tags
    assert len(page.sources) == sum(name.endswith(".svg") for name in files) == 5 + 4 + 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert re.search(r"(?:https?:)?//[a-z]", re.sub(r"base64,[^\"]+", "", text)) is None
    assert "default-src 'none'" in text


def test_the_sections_stand_in_order(full_run):
    ids = Page(full_run.read_text(encoding="utf-8")).ids
    wanted = ["answer", "words", "reading", "twins", "route_verdicts", "search_verdicts"]
    wanted += ["table1", "table2", "table3", "table4", "worst_case"]
    wanted += ["figures", "quasi_boundary", "training", "attacks", "run", "configuration"]
    assert [name for name in ids if name in wanted] == wanted


def test_a_demo_is_named_a_demo_and_what_was_run_is_said(full_run):
    text = full_run.read_text(encoding="utf-8")
    assert "This is a demo." in text
    assert "Its classes are photographs, not objects." in text
    for word in ("torch 2.12.0", "900 to train on", "cat, dog, cup", "attack.epsilon", "gradient masking"):
        assert word in text
    ours, papers = text[text.index('id="table3"') :].split('id="table3-paper"')
    assert "step 5 of 24" in ours
    assert "step 30 of 150" in papers
    assert "step 5 of 24" not in papers[: papers.index("</table>")]


@pytest.mark.usefixtures("blank")
def test_everything_from_files_is_escaped(run_folder):
    evil = "<script>alert(1)</script>"
    run_folder.everything(n=10)
    run_folder.figure_arrays(label=evil)
    run_folder.data.update(name=f"folder:{evil}", classes=[evil, '"><img src=x onerror=alert(1)>', "&amp;"], note=evil)
    run_folder.environment["device"] = evil
    run_folder.config = f"['{evil}']\n'{evil}' = '{evil}'\n"
    run_folder.add("table1", evil, "clean", (1, 2))
    run_folder.add("table2", evil, evil, (1, 2), objective=evil, route=evil, parameters={evil: evil})
    run_folder.add("quasi_boundary", evil, evil, [], agreement=0.5, id="evil")
    text = write(run_folder.save()).read_text(encoding="utf-8")
    assert text.lower().count("<script") == 1
    assert "onerror=alert(1)>" not in text
    assert text.count("&lt;script&gt;") > 10
    assert "&amp;amp;" in text
    Page(text)


@pytest.mark.usefixtures("blank")
def test_a_figure_whose_name_is_no_text_is_linked_by_its_bytes(run_folder):
    run_folder.everything(n=10)
    arrays = run_folder.folder / "arrays"
    (arrays / "figure4_resnet18_shc-seed0.npz").rename(arrays / "figure4_net\udcff-seed0.npz")
    page = Page(write(run_folder.save()).read_text(encoding="utf-8", errors="replace"))
    assert "figures/figure4_net%FF-seed0.svg" in page.links


def test_a_run_with_one_row_has_a_page_that_says_not_run(run_folder):
    run_folder.add("table1", "resnet18", "clean", (1, 2))
    text = write(run_folder.save()).read_text(encoding="utf-8")
    assert "Not run: Figure 2" in text
    assert text.count("not run") > 10
    assert "ResNet-50" not in text
    Page(text)


def test_tables_are_redrawn_where_torch_cannot_be_imported(run_folder):
    """The package's own __init__ imports torch, so a bare package of that name stands in for it."""
    run_folder.everything(n=10)
    add_audit(run_folder)
    folder = str(run_folder.save())
    code = f"""
import sys, types
sys.modules["torch"] = None
package = types.ModuleType("shconv")
package.__path__ = [{str(Path(shconv.report.__file__).parent.parent)!r}]
sys.modules["shconv"] = package
from shconv import report
from shconv.report.output import canvas
from rich.console import Console
import io
canvas.Drawn.saved = lambda figure, kind: b""  # painting is matplotlib's alone, and takes seconds
report.write({folder!r}, figures=("svg",))
assert "matplotlib.pyplot" not in sys.modules
report.print_tables({folder!r}, Console(file=io.StringIO()))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


WIDTHS = (390, 1280)  # a telephone's, a screen's


@pytest.fixture(scope="module")
def shown(full_run, tmp_path_factory):
    """Its measures at either width, and a picture of both: a browser takes seconds to start."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the PATH")
    folder = tmp_path_factory.mktemp("shown")
    return measured(full_run, folder, WIDTHS, folder / "page.png"), folder / "page.png"


def test_the_page_renders_without_sideways_scrolling(shown):
    for width, (client, scroll, body, wide, images) in zip(WIDTHS, shown[0], strict=True):
        assert client in range(width - 20, width + 1)  # less the scroll bar
        assert scroll == client
        assert body == client
        assert images
        assert wide > 0 or width > 390  # on a telephone tables scroll inside their own box


def test_a_screenshot_is_not_blank(shown):
    import matplotlib.image

    image = matplotlib.image.imread(shown[1])
    assert image.shape[:2] == (1600, 1280)
    assert image[..., :3].std() > 0.05
