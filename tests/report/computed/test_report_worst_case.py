"""The worst case per image, worked out by hand."""

import pytest

from shconv.intervals import wilson
from shconv.report import load_run
from shconv.report.computed.worst_case import THREATS, over_same_attacks, worst_case_cell, worst_cases
from shconv.report.paper.summaries import worst_case

SMALL, MIDDLE, LARGE = THREATS


def test_an_image_is_right_only_where_no_attack_of_the_budget_fools_it(run_folder):
    # image          0  1  2  3  4  5
    run_folder.gradient("plain10", "fgsm", "least_likely", [1, 1, 1, 1, 1, 0])
    run_folder.gradient("plain10", "ifgsm", "untargeted", [1, 1, 1, 1, 0, 1])
    run_folder.gradient("plain10", "rand_fgsm", "least_likely", [1, 1, 1, 0, 1, 1])
    run_folder.gradient("plain10", "fgsm_heavy", "untargeted", [1, 1, 0, 1, 1, 1])
    run = load_run(run_folder.save())
    right = {threat: worst_cases(run, "plain10", threat)[0].score.outcomes.correct.tolist() for threat in THREATS}
    assert right[SMALL] == [True, True, True, True, False, False]
    assert right[MIDDLE] == [True, True, True, False, False, False]
    assert right[LARGE] == [True, True, False, False, False, False]
    score = worst_cases(run, "plain10", LARGE)[0].score
    assert (score.accuracy, score.interval, score.n) == (pytest.approx(2 / 6), pytest.approx(wilson(2, 6)), 6)
    assert (score.attacks, score.attacks_wanted) == (4, 8)
    assert worst_case_cell(run, "plain10", LARGE).text("attacks") == "4 of 8"


def test_images_are_matched_by_index_not_by_place(run_folder):
    run_folder.gradient("plain10", "fgsm", "least_likely", [1, 0, 1, 1], index=[10, 11, 12, 13])
    run_folder.gradient("plain10", "ifgsm", "least_likely", [1, 0, 1], index=[13, 12, 99])
    worst = worst_cases(load_run(run_folder.save()), "plain10", SMALL)[0]
    assert worst.score.outcomes.index.tolist() == [12, 13]
    assert worst.score.outcomes.correct.tolist() == [False, True]


def test_all_routes_of_an_shc_network_count_and_the_table_mean_only_both(run_folder):
    run_folder.gradient("plain10_shc", "fgsm", "least_likely", [1, 1, 1, 1])
    run_folder.gradient("plain10_shc", "fgsm", "least_likely", [0, 0, 1, 1], route="convolution")
    run_folder.gradient("plain10_shc", "fgsm", "least_likely", [1, 1, 1, 0], route="hypernetwork")
    run = load_run(run_folder.save())
    worst = worst_cases(run, "plain10_shc", SMALL, own=True)[0]
    assert worst.score.accuracy == 0.25
    assert worst.score.table_mean == 1.0
    assert worst.strongest.route == "convolution"
    assert worst.score.attacks_wanted == 12
    first = worst_cases(run, "plain10_shc", SMALL)[0]
    assert (first.score.accuracy, first.score.attacks, first.score.attacks_wanted) == (1.0, 1, 4)
    assert worst_case_cell(run, "plain10", SMALL, own=True).none == "–"


def test_a_pair_s_worst_cases_are_over_the_attacks_of_both(run_folder):
    run_folder.gradient("plain10", "fgsm", "least_likely", [1, 1, 0, 1])
    run_folder.gradient("plain10", "rand_fgsm", "untargeted", [0, 0, 0, 0])
    run_folder.gradient("plain10_shc", "fgsm", "least_likely", [1, 0, 1, 1])
    run_folder.gradient("plain10_shc", "ifgsm", "least_likely", [0, 0, 0, 0])
    run_folder.gradient("plain10_shc", "fgsm", "least_likely", [0, 0, 0, 0], route="convolution")
    run = load_run(run_folder.save())
    for threat in (SMALL, LARGE):
        theirs, ours = over_same_attacks(run, "plain10", "plain10_shc", threat)
        assert theirs.scores[0].outcomes.correct.tolist() == [True, True, False, True]
        assert ours.scores[0].outcomes.correct.tolist() == [True, False, True, True]


def test_a_route_that_only_table4_ran_counts_too(run_folder):
    run_folder.gradient("plain10_shc", "rand_fgsm", "least_likely", [1, 1])
    run_folder.gradient("plain10_shc", "rand_fgsm", "least_likely", [0, 0], experiment="table4")
    run_folder.gradient("plain10_shc", "rand_fgsm", "least_likely", [0, 1], experiment="table4", route="convolution")
    worst = worst_cases(load_run(run_folder.save()), "plain10_shc", MIDDLE, own=True)[0]
    assert worst.score.outcomes.correct.tolist() == [False, True]


def test_an_attack_beyond_the_budget_is_left_out_and_named(run_folder):
    run_folder.gradient("plain10", "ifgsm", "least_likely", [1, 1], linf_max=0.02000001)  # float32 rounding is within
    run_folder.gradient("plain10", "fgsm", "least_likely", [0, 0], linf_max=0.05)
    run = load_run(run_folder.save())
    worst = worst_cases(run, "plain10", SMALL)[0]
    assert worst.score.accuracy == 1.0
    assert worst.beyond == ("table2/plain10/seed0/fgsm/least_likely/both",)
    assert "over budget" in worst_case(run).records[0]["left_out"]
    assert worst_cases(run, "plain10", LARGE)[0].score.accuracy == 0.0


def test_no_outcomes_and_no_shared_image_make_no_worst_case(run_folder):
    run_folder.gradient("plain10", "fgsm", "least_likely", [1, 1], outcomes=False)
    run_folder.gradient("resnet18", "fgsm", "least_likely", [1, 1], index=[0, 1])
    run_folder.gradient("resnet18", "ifgsm", "least_likely", [1, 1], index=[2, 3])
    run = load_run(run_folder.save())
    assert worst_cases(run, "plain10", SMALL) == {}
    assert worst_cases(run, "resnet18", SMALL) == {}


def test_seeds_stand_apart(run_folder):
    run_folder.gradient("plain10", "fgsm", "least_likely", [1, 0], seed=0)
    run_folder.gradient("plain10", "ifgsm", "least_likely", [0, 1], seed=1)
    found = worst_cases(load_run(run_folder.save()), "plain10", SMALL)
    assert {seed: worst.score.accuracy for seed, worst in found.items()} == {0: 0.5, 1: 0.5}
