"""The answer of a run: three lines, a chart, what they mean; each verdict follows from outcomes made by hand."""

import io

from rich.console import Console

from shconv.report import load_run, print_tables
from shconv.report.paper.answer import PAPERS, TOPICS, answer, limits, meaning
from shconv.report.paper.beside import CLEAN, WORST, pairs
from shconv.report.paper.verdicts import MASKED, routes


def made(run_folder, *, shc_worst, convolution=None):
    """A pair, 100 images each: FGSM finds SHC better; the worst case leaves its first ``shc_worst`` right."""
    for model, clean in (("resnet18", 70), ("resnet18_shc", 71)):
        run_folder.add("table1", model, "clean", (clean, 100))
    run_folder.gradient("resnet18", "fgsm", "least_likely", (20, 100))
    run_folder.gradient("resnet18_shc", "fgsm", "least_likely", (60, 100))
    run_folder.gradient("resnet18", "fgsm", "untargeted", (20, 100))
    run_folder.gradient("resnet18_shc", "fgsm", "untargeted", (shc_worst, 100))
    if convolution is not None:
        run_folder.gradient("resnet18_shc", "rand_fgsm", "least_likely", (60, 100))
        run_folder.gradient("resnet18_shc", "rand_fgsm", "least_likely", (convolution, 100), route="convolution")
    return load_run(run_folder.save())


def test_the_answer_has_a_line_for_clean_images_the_papers_attacks_and_the_worst_case(run_folder):
    said = dict(answer(pairs(made(run_folder, shc_worst=20))))
    assert list(said) == list(TOPICS.values())
    assert said[TOPICS[CLEAN]] == ["ResNet-18-SHC 71.0\xa0%, ResNet-18 70.0\xa0%: no significant difference."]
    assert said[TOPICS[PAPERS]] == ["ResNet-18-SHC: SHC is higher under FGSM."]
    assert "no significant difference within L∞ 0.02 (20.0\xa0%, twin 20.0\xa0%)" in said[TOPICS[WORST]][0]


def test_the_terminal_ends_with_the_answer(run_folder):
    run = made(run_folder, shc_worst=20)
    print_tables(run.folder, Console(file=(out := io.StringIO()), width=100))
    last = out.getvalue().partition("How sure these numbers are")[2]
    topics = [*TOPICS.values(), "What it means", "What it does not mean"]
    assert [line for line in last.splitlines() if line in topics] == topics


def test_an_advantage_that_the_worst_case_takes_away_is_called_gone(run_folder):
    run = made(run_folder, shc_worst=20)
    assert "but not in the worst case" in meaning(run, pairs(run))[0]


def test_an_advantage_in_the_worst_case_is_an_upper_bound(run_folder):
    run = made(run_folder, shc_worst=50)
    said, bound = meaning(run, pairs(run))
    assert said.startswith("ResNet-18-SHC: more accurate than the twin in the worst case within L∞ 0.02")
    assert "but not" not in said
    assert "upper bound" in bound


def test_a_network_below_its_twin_is_named(run_folder):
    run = made(run_folder, shc_worst=2)
    assert "ResNet-18-SHC: less accurate than the twin in the worst case within L∞ 0.02" in meaning(run, pairs(run))[-1]


def test_a_verdict_within_one_budget_is_not_said_of_the_others(run_folder):
    for model in ("resnet18", "resnet18_shc"):
        run_folder.gradient(model, "fgsm_heavy", "untargeted", (5, 100))
    run = made(run_folder, shc_worst=50)
    said = meaning(run, pairs(run))[0]
    assert "in the worst case within L∞ 0.02 and L∞ 0.0625, but not within L∞ 0.1, over the same attacks." in said, said


def test_masking_is_said_where_the_convolution_route_is_the_stronger_attack_and_only_there(run_folder):
    run = made(run_folder, shc_worst=20, convolution=10)
    assert any("gradient masking" in said for said in meaning(run, pairs(run)))
    assert [record["verdict"] for record in routes(run).records] == [MASKED]


def test_no_masking_is_said_where_the_convolution_route_is_no_stronger(run_folder):
    run = made(run_folder, shc_worst=20, convolution=60)
    assert not any("masking" in said for said in meaning(run, pairs(run)))
    assert [record["verdict"] for record in routes(run).records] == ["no alarm"]


def test_what_the_answer_does_not_mean_names_the_images_and_the_data(run_folder):
    run = made(run_folder, shc_worst=20)
    text = " ".join(limits(run, pairs(run)))
    for words in ("attacks that fail prove nothing", "100 selected images", "confidence above 0.9", "the demo data"):
        assert words in text


def test_a_run_without_a_pair_has_no_answer(run_folder):
    run_folder.add("table1", "resnet18", "clean", (1, 2))
    assert pairs(load_run(run_folder.save())) == ()
