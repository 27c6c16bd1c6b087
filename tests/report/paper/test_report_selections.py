"""What is said of the images that Tables 2 to 4 are about: spread over classes, too few, none."""

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from shconv.report import load_run, print_tables, read
from shconv.report.folder.run import Selection
from shconv.report.numbers import NO_IMAGES
from shconv.report.paper.selections import FEW, selection_sentence
from shconv.report.paper.summaries import worst_case
from shconv.report.paper.tables import table1, table2, table3, table4

PAIR = ("resnet18", "resnet18_shc")


def select(run_folder, classes, *, wanted=250, **fields):
    folder = run_folder.save() / "selection"
    folder.mkdir(exist_ok=True)
    found = sum(classes.values())
    about = {"pair": list(PAIR), "seed": 0, "wanted": wanted, "found": found, "index": list(range(found))}
    (folder / f"{wanted}.json").write_text(json.dumps(about | {"classes": classes} | fields))
    return load_run(folder.parent)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 300), max_size=8))
def test_the_words_follow_the_counts(classes):
    found = sum(classes.values())
    text, alarm, *_ = selection_sentence(Selection(PAIR, 0, 5000, found, 0.9, 0.95, classes), 8)
    largest = max(classes.values(), default=0)
    assert ("no image is classified" in text) == (found == 0)
    assert ("All are of one class" in text) == (len(classes) == 1)
    assert ("which dominates the result" in text) == (len(classes) > 1 and largest > found / 2)
    assert ("too few to say much" in text) == (0 < found < FEW)
    assert alarm == (found < FEW or largest > found / 2)
    assert ("An accuracy on them" in text) == (alarm and found > 0)
    if found:
        assert re.search(r"([\d,]+) images? classified", text)[1] == f"{found:,}"
        assert f"of {len(classes)} of the 8 classes" in text


def test_a_selection_of_one_class_is_warned_of_wherever_its_worst_case_stands(run_folder):
    for model in PAIR:
        run_folder.gradient(model, "fgsm", "least_likely", (21, 21))
    run = select(run_folder, {"cup": 21})
    words = "All are of one class, 'cup', and say nothing about the other classes"
    assert any(words in said.text and said.alarm for said in read(run))
    for grid in (table2(run), worst_case(run)):
        assert any(words in note for note in grid.notes), grid.name
    assert not any(words in note for note in table3(run).notes)
    assert "on the selected images" in worst_case(run).title


def test_a_limit_that_was_asked_for_stands_in_the_captions(run_folder):
    run_folder.gradient("resnet18", "fgsm", "least_likely", (21, 60))
    run = select(run_folder, {"cat": 30, "dog": 30}, min_confidence=0.4)
    for table in (table2(run), table3(run), table4(run)):
        assert "with confidence above 0.4" in table.caption
        assert "0.9" not in table.caption
    assert any("60 images classified correctly with confidence above 0.4" in said.text for said in read(run))


@pytest.mark.parametrize(("n", "words"), [(300, "on the whole test split"), (40, "on 40 images of the test split")])
def test_table_1_says_of_which_images_it_is(run_folder, n, words):
    run_folder.add("table1", "resnet18", "clean", (n // 2, n))
    caption = table1(load_run(run_folder.save())).caption
    assert words in caption
    assert n == 300 or "which has 300" in caption
    assert ("whole" in caption) == (n == 300)


def test_networks_that_are_never_confident_are_one_sentence_and_one_line_each(run_folder):
    for model in PAIR:
        run_folder.add("table1", model, "clean", (200, 300))
    run_folder.save()
    for wanted in (250, 8):
        run = select(run_folder, {}, wanted=wanted, highest_confidence=0.62)
    said = [each.text for each in read(run) if "no image" in each.text]
    assert len(said) == 1
    assert "no image is classified correctly with confidence above 0.9 (the highest is 0.62)" in said[0]
    assert "--min-confidence" in said[0]
    line = next(line for line in table2(run).lines if line.model == "resnet18")
    assert {cell.said["ours"][0] for cell in line.cells[:8]} == {NO_IMAGES}
    out = io.StringIO()
    print_tables(run.folder, Console(file=out, width=120))
    table = out.getvalue().split("Table 2")[1].split("Table 3")[0]
    assert table.count(NO_IMAGES) == 2
