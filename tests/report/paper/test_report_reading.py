"""The reading follows the numbers: each sentence is tried on runs where it must hold and on runs where it must not."""

import pytest

from shconv.report import load_run, read


def said(run_folder, topic):
    """The sentences on one topic, with plain spaces, and their alarms."""
    found = [each for each in read(load_run(run_folder.save())) if each.topic.startswith(topic)]
    return [str(each).replace("\N{NO-BREAK SPACE}", " ") for each in found], [each.alarm for each in found]


def routes(run_folder, *, both, convolution, twin, of=100, seed=0):
    fields = {"seed": seed, "experiment": "table4"}
    run_folder.gradient("resnet18_shc", "rand_fgsm", "least_likely", (both, of), **fields)
    run_folder.gradient("resnet18_shc", "rand_fgsm", "least_likely", (convolution, of), route="convolution", **fields)
    if twin is not None:
        run_folder.gradient("resnet18", "rand_fgsm", "least_likely", (twin, of), **fields)
    return run_folder


def test_masking_is_said_where_the_convolution_route_takes_the_network_to_its_twins_level(run_folder):
    texts, alarms = said(routes(run_folder, both=28, convolution=3, twin=2), "Gradient routes")
    assert alarms == [True]
    assert "lowers ResNet-18-SHC's accuracy under RAND+FGSM (least-likely) from 28.0 % to 3.0 %" in texts[0]
    assert "the white-box robustness is gradient masking" in texts[0]
    assert "not significantly different from the twin's 2.0 %" in texts[0]
    assert "100 images" in texts[0]
    assert "p < 0.001" in texts[0]


def test_only_the_lost_points_are_masking_where_the_rest_is_above_the_twin(run_folder):
    texts, alarms = said(routes(run_folder, both=60, convolution=40, twin=5), "Gradient routes")
    assert alarms == [True]
    assert "at least 20.0 points of the white-box accuracy are gradient masking" in texts[0]
    assert "does not make the network robust" in texts[0]
    assert "the white-box robustness is gradient masking" not in texts[0]


def test_a_masked_gradient_without_robustness_is_not_called_robustness(run_folder):
    texts, _ = said(routes(run_folder, both=28, convolution=3, twin=28), "Gradient routes")
    assert "the gradient is masked" in texts[0]
    assert "robustness" not in texts[0]


def test_without_the_twin_only_the_lost_points_are_said(run_folder):
    texts, _ = said(routes(run_folder, both=28, convolution=3, twin=None), "Gradient routes")
    assert "at least 25.0 points" in texts[0]
    assert "twin was not run" in texts[0]


@pytest.mark.parametrize(("convolution", "words"), [(28, "changes"), (25, "changes"), (60, "raises")])
def test_no_alarm_is_never_robustness(run_folder, convolution, words):
    texts, alarms = said(routes(run_folder, both=28, convolution=convolution, twin=2), "Gradient routes")
    assert alarms == [False]
    assert f"Blocking the hypernetwork route {words}" in texts[0]
    assert "gradient masking" not in texts[0]
    assert "no evidence of robustness" in texts[0]


def test_an_attack_that_hardly_touches_the_network_cannot_tell(run_folder):
    assert "hardly touches" in said(routes(run_folder, both=99, convolution=98, twin=99), "Gradient routes")[0][0]
    run_folder.rows.clear()
    assert "hardly touches" not in said(routes(run_folder, both=28, convolution=27, twin=2), "Gradient routes")[0][0]


def test_a_small_drop_needs_images_to_be_one(run_folder):
    assert said(routes(run_folder, both=28, convolution=25, twin=2), "Gradient routes")[1] == [False]
    run_folder.rows.clear()
    # the same shares of ten times the images
    assert said(routes(run_folder, both=280, convolution=250, twin=20, of=1000), "Gradient routes")[1] == [True]


def test_a_convolution_route_that_was_not_run_is_said(run_folder):
    run_folder.gradient("resnet18_shc", "rand_fgsm", "least_likely", (28, 100))
    texts, alarms = said(run_folder, "Gradient routes")
    assert "was not run" in texts[0]
    assert alarms == [False]


def test_seeds_that_disagree_are_said_to(run_folder):
    routes(run_folder, both=28, convolution=3, twin=2, seed=0)
    routes(run_folder, both=28, convolution=28, twin=2, seed=1)
    texts, alarms = said(run_folder, "Gradient routes")
    assert "the seeds disagree" in texts[0]
    assert "lower in 1, not significantly different in 1 of 2 seeds" in texts[0]
    assert "difference −12.5 points, 95 % over seeds −100.0 to +100.0" in texts[0]  # two seeds tell next to nothing
    assert alarms == [True]


@pytest.mark.parametrize(
    ("right", "words"), [(985, "almost no harm"), (500, "alone is an attack"), (900, "too few to say")]
)
def test_the_hypernetwork_route_alone(run_folder, right, words):
    run_folder.gradient("resnet18_shc", "rand_fgsm", "untargeted", (right, 1000), route="hypernetwork")
    assert words in said(run_folder, "Gradient routes")[0][0]


def test_the_verdict_is_image_by_image_where_outcomes_are_there(run_folder):
    """Ten of a hundred images lost and none won is a loss, which two overlapping intervals do not show."""
    for model, right in (("plain10", 60), ("plain10_shc", 50)):
        run_folder.add("table1", model, "clean", (right, 100))
    texts, alarms = said(run_folder, "Clean")
    assert "the SHC network is the worse one" in texts[0]
    assert alarms == [True]
    run_folder.rows.clear()
    for model, right in (("resnet18", 60), ("resnet18_shc", 50)):
        run_folder.add("table1", model, "clean", (right, 100), outcomes=False)
    texts, alarms = said(run_folder, "Clean")
    assert "the two are not significantly different" in texts[0]
    assert "unpaired" in texts[0]
    assert alarms == [False]


def test_clean_and_noise_follow_the_numbers(run_folder):
    for model, clean, noisy in (("plain10", 50, 40), ("plain10_shc", 70, 10)):
        run_folder.add("table1", model, "clean", (clean, 100))
        run_folder.add("table1", model, "gaussian", (noisy, 100), parameters={"sigma": 0.4})
    texts, alarms = said(run_folder, "Clean")
    assert "On clean images the accuracy of Plain-10 is 50.0 %, that of Plain-10-SHC 70.0 %" in texts[0]
    assert "the SHC network is the better one, as in the paper" in texts[0]
    assert "On noise of σ 0.4" in texts[1]
    assert "the worse one; in the paper SHC is the better one" in texts[1]
    assert alarms == [False, True]


def test_table2_is_said_by_objective_and_attack(run_folder):
    for attack, ours in (("fgsm", 60), ("ifgsm", 20), ("rand_fgsm", 5)):
        run_folder.gradient("resnet18", attack, "untargeted", (20, 100))
        run_folder.gradient("resnet18_shc", attack, "untargeted", (ours, 100))
    texts, alarms = said(run_folder, "Gradient attacks")
    assert len(texts) == 1
    assert "Untargeted objective" in texts[0]
    assert "more accurate under FGSM (60.0 %, twin 20.0 %)" in texts[0]
    assert "less accurate under RAND+FGSM (5.0 %, twin 20.0 %)" in texts[0]
    assert "not significantly different under I-FGSM" in texts[0]
    assert alarms == [True]


@pytest.mark.parametrize(("ours", "found"), [((24, 25, 23), True), ((24, 17, 23), False)])
def test_what_no_seed_shows_by_itself_the_seeds_may_show_together(run_folder, ours, found):
    for seed, right in enumerate(ours):
        run_folder.gradient("resnet18", "fgsm", "untargeted", (20, 100), seed=seed)
        run_folder.gradient("resnet18_shc", "fgsm", "untargeted", (right, 100), seed=seed)
    texts, _ = said(run_folder, "Gradient attacks")
    assert "not significantly different under FGSM (" in texts[0]
    assert ("The seeds together show a difference under FGSM (+4.0 points, 95 % over seeds" in texts[0]) == found


def test_the_worst_case_takes_back_what_the_means_show(run_folder):
    for attack in ("fgsm", "ifgsm"):
        run_folder.gradient("resnet18", attack, "least_likely", (5, 100))
        run_folder.gradient("resnet18_shc", attack, "least_likely", (60, 100))
        run_folder.gradient("resnet18_shc", attack, "least_likely", (4, 100), route="convolution")
    texts, alarms = said(run_folder, "Worst case")
    both = "Worst case of ResNet-18-SHC, gradient of both routes, on the selected images: 60.0 % within L∞ 0.02"
    assert f"{both}, Table 2's mean 60.0 %" in texts[1]
    assert "2 of 4 attacks" in texts[1]
    assert "The worst case of ResNet-18-SHC through all its routes, which its twin does not have, is 4.0 %" in texts[2]
    assert "significantly below the 60.0 % through both routes" in texts[2]
    assert "was partly masked" in texts[2]
    assert "4 of 12 attacks" in texts[2]
    assert "within L∞ 0.02, 60.0 %, above the twin's 5.0 %" in texts[3]
    assert "L∞ 0.02: the same 2 attacks" in texts[3]
    assert alarms[2:] == [True, False]


def test_a_lead_of_the_means_that_the_same_attacks_together_take_back_is_said(run_folder):
    half = [1] * 50 + [0] * 50
    for attack, right in (("fgsm", half), ("ifgsm", half[::-1])):
        run_folder.gradient("resnet18", attack, "least_likely", (5, 100))
        run_folder.gradient("resnet18_shc", attack, "least_likely", right)
    texts, alarms = said(run_folder, "Worst case")
    assert "not the worst case: L∞ 0.02 (50.0 %, twin 5.0 %)" in texts[2]
    assert alarms[2]


def test_a_pair_is_compared_over_the_attacks_that_both_met(run_folder):
    """One more attack on the SHC network is no reason to call it lower."""
    run_folder.gradient("resnet18", "fgsm", "least_likely", (50, 100))
    run_folder.gradient("resnet18_shc", "fgsm", "least_likely", (50, 100))
    run_folder.gradient("resnet18_shc", "ifgsm", "untargeted", (0, 100))
    texts, alarms = said(run_folder, "Worst case")
    assert "within L∞ 0.02, 50.0 %, not significantly different from the twin's 50.0 %" in texts[2]
    assert "below" not in texts[2]
    assert not alarms[2]


def test_a_worst_case_above_the_twins_is_an_upper_bound_and_no_more(run_folder):
    run_folder.gradient("resnet18", "fgsm", "least_likely", (5, 100))
    run_folder.gradient("resnet18_shc", "fgsm", "least_likely", (60, 100))
    text = said(run_folder, "Worst case")[0][2]
    assert "above the twin's 5.0 %" in text
    assert "under these attacks only: a worst case is an upper bound" in text
    assert "gone" not in text


def test_locsearch_says_who_is_better_and_how_many_more_steps(run_folder):
    run_folder.search("resnet18", [0.9, 0.8, 0.7, 0.6, 0.2], [2, 4, 6, 8, 10])
    run_folder.search("resnet18_shc", [0.9, 0.9, 0.9, 0.9, 0.9], [1, 2, 3, 4, 5])
    texts, _ = said(run_folder, "LocSearchAdv")
    assert "the accuracy of ResNet-18 is 20.0 %, that of ResNet-18-SHC 90.0 %" in texts[0]
    # reached at columns 1 and 2, 30 and 60 steps later
    assert "on average 45.0 more steps of 150 for its twin's RCD, 30 % of the rounds" in texts[1]
    assert "At 3 of 5 columns it does not reach it" in texts[1]


def test_fewer_steps_and_never_are_said_as_such(run_folder):
    run_folder.search("resnet18", [1] * 5, [1, 2, 3, 4, 5])
    run_folder.search("resnet18_shc", [1] * 5, [2, 4, 6, 8, 10])
    assert "on average 45.0 fewer steps" in said(run_folder, "LocSearchAdv")[0][1]
    run_folder.search("resnet18_shc", [1] * 5, [0.1] * 5)
    assert "never reaches its twin's RCD" in said(run_folder, "LocSearchAdv")[0][1]


@pytest.mark.parametrize(
    ("default", "cyclic", "control", "words", "alarms"),
    [
        (0.5, 0.0, 0.9, ("understates how strong the attack can be", "better pixels than chance"), [True, False]),
        (0.5, 0.5, 0.5, ("are not significantly different", "not significantly different from chance"), [False, True]),
        (0.5, 0.9, 0.1, ("the stronger one here", "weaker than chance"), [False, True]),
    ],
)
def test_the_search_is_judged_by_a_better_one_and_by_chance(run_folder, default, cyclic, control, words, alarms):
    for attack, share in (("locsearch", default), ("locsearch_cyclic", cyclic), ("locsearch_random", control)):
        run_folder.search("plain10", [1, 1, 1, 1, share], [0] * 5, attack=attack)
    texts, found = said(run_folder, "How strong")
    assert [word in text for word, text in zip(words, texts, strict=True)] == [True, True]
    assert found == alarms


def test_rcd_that_improves_while_accuracy_falls_is_said(run_folder):
    run_folder.gradient("resnet18", "fgsm", "untargeted", (50, 100), rcd=8.0)
    run_folder.gradient("resnet18_shc", "fgsm", "untargeted", (10, 100), rcd=5.0)
    texts, alarms = said(run_folder, "RCD")
    assert "in 1 of 1 comparisons" in texts[0]
    assert "RCD 8.00 to 5.00, accuracy 50.0 % to 10.0 %" in texts[0]
    assert alarms == [True]
    run_folder.rows[1]["rcd_mean"] = 9.0
    assert said(run_folder, "RCD") == (["In none of 1 comparisons does RCD improve while accuracy falls."], [False])


@pytest.mark.parametrize(("reached", "words"), [(0.005, "has no effect"), (0.02, "the whole of its epsilon")])
def test_the_reached_distance_of_ifgsm(run_folder, reached, words):
    run_folder.gradient("plain10", "ifgsm", "untargeted", (1, 2), linf_max=reached, parameters={"epsilon": 0.02})
    text = said(run_folder, "Distances")[0][0]
    assert words in text
    assert f"{reached:g}" in text


def test_the_number_of_images_and_what_it_can_tell(run_folder):
    run_folder.gradient("plain10", "fgsm", "untargeted", (50, 100))
    text = said(run_folder, "How sure")[0][0]
    assert "Each number of Table 2 is over 100 images, the paper's over 5,000" in text
    assert "±9.6 points" in text  # Wilson at one half of a hundred: 40.4 to 59.6


@pytest.mark.parametrize(("ours", "warned"), [(86, True), (88, False)])
def test_a_twin_far_ahead_is_said(run_folder, ours, warned):
    run_folder.add("table1", "resnet18", "clean", (90, 100))
    run_folder.add("table1", "resnet18_shc", "clean", (ours, 100))
    texts, _ = said(run_folder, "Training")
    assert bool(texts) == warned


def test_the_quasi_boundary_follows_the_agreement_at_the_last_step(run_folder):
    for attack, shares in (("locsearch", (1.0, 0.8)), ("rand_fgsm", (0.9, 0.97))):
        for step, share in zip((30, 150), shares, strict=True):
            run_folder.add("quasi_boundary", "resnet18_shc", attack, [], step=step, agreement=share)
    text = said(run_folder, "Quasi")[0][0]
    assert (
        "at least 95.0 % of the images after RAND+FGSM (97.0 %); on fewer than 95.0 % after LocSearchAdv (80.0 %)"
        in text
    )


def test_what_was_not_run_has_no_sentence(run_folder):
    run_folder.add("table1", "resnet18", "clean", (1, 2))
    assert {each.topic for each in read(load_run(run_folder.save()))} == {"How sure these numbers are"}


def test_a_pair_that_is_not_the_papers_is_not_compared_with_it(run_folder):
    for model, right in (("mine", 50), ("mine_shc", 70)):
        run_folder.add("table1", model, "clean", (right, 100))
        run_folder.gradient(model, "fgsm", "least_likely", (right, 100))
    texts = said(run_folder, "Clean")[0] + said(run_folder, "Gradient attacks")[0]
    assert len(texts) == 2
    assert not [text for text in texts if "in the paper" in text.lower()]


def test_on_how_many_images_a_network_gave_no_answer_is_an_alarm(run_folder):
    run_folder.add("evaluate", "resnet18", "clean", (9, 10), nan=1)
    run_folder.add("evaluate", "resnet18", "mine", (5, 10), nan=3)
    run_folder.add("evaluate", "resnet18_shc", "mine", (5, 10))
    texts, alarms = said(run_folder, "How sure")
    found = [text for text, alarm in zip(texts, alarms, strict=True) if alarm]
    assert found == [
        "ResNet-18 gave no answer (logits with NaN or infinity) on up to 3 of 10 images: they count as misclassified."
    ]
