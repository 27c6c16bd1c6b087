"""The audit on the page: alone or beside the paper's tables, the verdict first, escaped."""

import pytest
from html_page import Page
from made_audit import add_audit

from shconv.report import write


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("blank")
def test_an_audit_alone_makes_a_page_without_the_papers_tables(run_folder):
    add_audit(run_folder)
    folder = run_folder.save()
    text = text_of(write(folder))
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {"run", "audit", "configuration"} <= set(page.ids)
    assert not {"table1", "worst_case", "training", "attacks", "reading"} & set(page.ids)
    assert len(page.sources) == 4
    assert "the paper's numbers" not in text.lower()
    assert {file.name for file in (folder / "tables").iterdir()} == {
        f"{name}.{kind}" for name in ("audit", "audit_checks", "audit_attacks") for kind in ("csv", "md")
    }
    assert sorted(file.suffix for file in (folder / "figures").iterdir()) == [".png"] * 4 + [".svg"] * 4


@pytest.mark.usefixtures("blank")
def test_the_verdict_stands_before_the_checks_the_attacks_and_the_figures(run_folder):
    add_audit(run_folder)
    text = text_of(write(run_folder.save()))
    order = ["Worst case per image", "Against its twin", "Alarm, check 1", "The twelve checks", "Attacks that count"]
    places = [text.index(words) for words in [*order, "Budget curve: ResNet-18-SHC, seed 0", "Gradient maps"]]
    assert places == sorted(places)
    assert "not that the network is robust" in text
    assert text.count('<tr class="alarm">') == 6
    assert text.count("<details open>") == 2


@pytest.mark.usefixtures("blank")
def test_the_paper_and_an_audit_share_a_page(run_folder):
    run_folder.everything(n=10)
    before = Page(text_of(write(run_folder.save()))).ids
    add_audit(run_folder)
    both = Page(text_of(write(run_folder.save()))).ids
    assert not any(name.startswith("audit") for name in before)
    assert [name for name in both if name in before] == before
    assert both.index("audit") < both.index("reading") < both.index("table1")


@pytest.mark.usefixtures("blank")
def test_several_networks_are_compared_on_top_and_their_attacks_are_folded(run_folder):
    add_audit(run_folder)
    add_audit(run_folder, seed=1)
    add_audit(run_folder, "resnet18", masked=False, twin=False)
    add_audit(run_folder, "a network of mine, adversarially trained", masked=False)
    add_audit(run_folder, "plain10_shc", finished=False)
    text = text_of(write(run_folder.save()))
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert page.ids.index("audit-comparison") < page.ids.index("figure-audit") < page.ids.index("audit-1")
    assert [name for name in page.ids if name in {f"audit-{place}" for place in range(9)}] == [
        f"audit-{place}" for place in range(1, 6)
    ]
    assert "<details open>" not in text
    assert text.count("<details>") == 11
    assert "there is no verdict yet" in text
    assert "over 2 training seeds" in text


@pytest.mark.usefixtures("blank")
def test_the_same_rows_give_the_same_page(run_folder):
    add_audit(run_folder)
    add_audit(run_folder, "a network of mine, adversarially trained", masked=False)
    first = write(run_folder.save()).read_bytes()
    assert write(run_folder.folder).read_bytes() == first


@pytest.mark.usefixtures("blank")
def test_everything_from_an_audit_is_escaped(run_folder):
    evil = "<script>alert(1)</script>"
    for model in (evil, "resnet18_shc"):
        add_audit(run_folder, model)
    for row in run_folder.rows:
        if row["kind"] == "attack":
            row |= {"attack": evil, "route": evil, "threat": evil, "source": evil, "parameters": {evil: evil}}
        elif row["kind"] == "finding":
            row |= {"name": evil, "text": evil, "source": evil, "numbers": {evil: evil}}
            row["array"] = row["array"] and f"{evil}.npz"
        else:
            row |= {"text": [evil], "preflight": [evil]}
            row["worst_case"] = {**row["worst_case"], evil: row["worst_case"]["l2"]}
            row["twin"]["name"] = evil
    text = text_of(write(run_folder.save()))
    assert text.lower().count("<script") == 1  # ours
    assert text.count("&lt;script&gt;") > 100
    Page(text)


@pytest.mark.usefixtures("blank")
def test_the_tables_of_an_audit_are_linked_and_there_also_where_the_folder_was_moved(run_folder, tmp_path):
    add_audit(run_folder)
    add_audit(run_folder, "resnet18", masked=False)
    moved = write(run_folder.save()).parent.rename(tmp_path / "moved")
    links = Page(text_of(moved / "report.html")).links
    for name in ("audit", "audit_checks", "audit_attacks"):
        assert {f"tables/{name}.csv", f"tables/{name}.md"} <= set(links)
    assert [link for link in links if not (moved / link).is_file()] == []


@pytest.mark.usefixtures("blank")
def test_the_list_of_what_was_tried_is_folded_and_the_verdict_is_not(run_folder):
    add_audit(run_folder)
    text = ["Worst case: 3 of 20.", "Tried: FGSM.", "Not tried: Square.", "Alarm, check 1."]
    run_folder.rows[-1]["text"] = text
    page = text_of(write(run_folder.save()))
    shown, folded = page.split("What was tried, and what was not")
    assert ["Worst case: 3 of 20." in shown, "Alarm, check 1." in shown] == [True, True]
    assert ["Tried: FGSM." in folded, "Not tried: Square." in folded] == [True, True]
