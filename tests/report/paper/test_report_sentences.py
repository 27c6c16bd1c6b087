"""Sentences of the reading on made-up outcomes: no word contradicts the numbers beside it."""

import re
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shconv.report import load_run, read
from shconv.report.computed.compare import compare
from shconv.report.computed.worst_case import OBJECTIVES
from shconv.report.folder.rows import Outcomes
from shconv.report.output.cells import Cell, Score

SHARE = r"([\d.]+) %"


@st.composite
def measured(draw):
    """One to three seeds, each of which holds some of twelve images."""
    found = []
    for seed in range(draw(st.integers(1, 3))):
        index = np.array(sorted(draw(st.sets(st.integers(0, 11), min_size=1))))
        right = np.array(draw(st.lists(st.booleans(), min_size=len(index), max_size=len(index))))
        found.append(Score.over(Outcomes(index, right), seed))
    return Cell(scores=tuple(found))


@given(measured(), measured())
def test_a_comparison_s_numbers_are_of_the_images_that_its_verdict_is_of(first, second):
    against = compare(first, second)
    both = list(zip(first.scores, second.scores, strict=False))  # seeds count from 0
    shared = [bool(set(a.outcomes.index) & set(b.outcomes.index)) for a, b in both]
    if all(shared):
        assert against.verdict != "lower" or against.second < against.first
        assert against.verdict != "higher" or against.second > against.first


@st.composite
def pair_rows(draw):
    """(model, attack, objective, route) -> right images of thirty, each drawn or not run."""
    rows = {}
    for model in ("resnet18", "resnet18_shc"):
        for attack in ("fgsm", "ifgsm", "rand_fgsm"):
            for objective in OBJECTIVES:
                for route in ("both", "convolution", "hypernetwork") if model.endswith("shc") else ("both",):
                    if draw(st.integers(0, 3)):
                        share = draw(st.sampled_from([0, 0, 10, 50, 90, 100]))
                        rows[model, attack, objective, route] = draw(
                            st.lists(st.integers(0, 99).map(lambda k, s=share: k < s), min_size=30, max_size=30)
                        )
    for model in ("resnet18", "resnet18_shc"):
        rows[model, "clean", None, None] = draw(st.lists(st.booleans(), min_size=30, max_size=30))
    return rows


def sentences(run_folder_class, rows):
    with tempfile.TemporaryDirectory() as place:
        made = run_folder_class(Path(place) / "run")
        for (model, attack, objective, route), right in rows.items():
            if attack == "clean":
                made.add("table1", model, attack, right)
            else:
                made.gradient(model, attack, objective, right, route=route, rcd=float(sum(right)))
        return [str(each).replace("\N{NO-BREAK SPACE}", " ") for each in read(load_run(made.save()))]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=pair_rows())
def test_no_sentence_contradicts_its_numbers(run_folder_class, rows):
    for text in sentences(run_folder_class, rows):
        for ours, word, theirs in re.findall(rf"{SHARE}, (above|below) the twin's {SHARE}", text):
            assert (float(ours) > float(theirs)) == (word == "above"), text
        for own, both in re.findall(rf"{SHARE} within [^,]*, significantly below the {SHARE}", text):
            assert float(own) < float(both), text
        for own, both in re.findall(rf"{SHARE} within [^,]*, [\w ]*(?:below|from) the {SHARE}", text):
            assert float(own) <= float(both), text
        for word, part in re.findall(r"(more|less) accurate under ([^;.]*(?:\.\d[^;.]*)*)", text):
            for ours, theirs in re.findall(rf"\({SHARE}, twin {SHARE}\)", part):
                assert (float(ours) > float(theirs)) == (word == "more"), text
        for word, before, after in re.findall(rf"(lowers|raises) .*? from {SHARE} to {SHARE}", text):
            assert (float(after) < float(before)) == (word == "lowers"), text
        for first, second, word in re.findall(
            rf"accuracy of [\w-]+ is {SHARE}, that of [\w-]+ {SHARE}: the SHC network is the (better|worse)", text
        ):
            assert (float(second) > float(first)) == (word == "better"), text
        for means, ours in re.findall(rf"not the worst case: .*?\({SHARE}, twin {SHARE}\)", text):
            assert float(means) > float(ours), text
        assert "nan" not in text.lower()
        assert "None" not in text
