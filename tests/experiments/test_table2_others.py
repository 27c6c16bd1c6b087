"""Beside Table 2: every other attack, on the images of Table 2, with the distances of those that have no budget."""

import numpy as np
import pytest

from shconv.attacks import PAPER, DeepFool, LocSearchAdv, UndetectedPGD, create_attack, list_attacks
from shconv.experiments import paper, table2_gradient, table2_others
from shconv.experiments.study import Counts
from shconv.experiments.table2_others import missing, others

COUNTS = Counts(table2=6, table3=3)


def test_every_attack_that_no_other_table_takes_is_there_once() -> None:
    searches = [name for name in list_attacks() if isinstance(create_attack(name), LocSearchAdv)]
    assert sorted([*others(), *{*PAPER, *searches}]) == sorted(list_attacks())
    assert len({repr(attack) for attack in others().values()}) == len(others())


def test_what_a_missing_package_takes_away_is_named(monkeypatch) -> None:
    monkeypatch.setattr(table2_others, "find_spec", lambda package: None)
    assert missing(others()) == {
        **dict.fromkeys(("boundary", "hop_skip_jump"), "foolbox"),
        **dict.fromkeys(("autoattack", "autoattack_l2"), "pyautoattack"),
    }


def test_they_meet_the_images_of_table_2_and_say_how_far_they_had_to_go(make_study) -> None:
    study = make_study(counts=COUNTS)
    attacks = {"deepfool": DeepFool(), "held": DeepFool("linf", epsilon=0.02), "pgd": create_attack("pgd", steps=3)}
    rows = list(table2_others.rows(study, attacks))
    models = ("plain10", "plain10_shc")
    assert [row["id"] for row in rows] == [f"table2/{model}/seed0/{name}/both" for model in models for name in attacks]
    for row in rows:
        stored = study.folder.outcomes(row["id"])
        assert stored["index"].tolist() == study.selected(study.pairs[0], 6).tolist()
        if row["attack"] == "pgd":
            assert "median_l2" not in row
            continue
        reached = np.where(stored["correct"], np.inf, stored["l2"])
        assert row["median_l2"] == (pytest.approx(np.median(reached)) if np.isfinite(np.median(reached)) else None)
    free = [row for row in rows if row["attack"] == "deepfool"]
    assert all(row["accuracy"] == 0 and row["median_l2"] > row["median_linf"] > 0 for row in free)
    assert all(row["threat"] == {"norm": "linf", "radius": 0.02} for row in rows if row["attack"] == "held")


def test_table_2_has_them_where_they_are_asked_for_and_the_papers_come_first(make_study) -> None:
    study = make_study(counts=COUNTS)
    paper.run_paper(study, (2,), others={"deepfool": DeepFool()})
    names = [row["attack"] for row in study.folder.rows.values() if row["experiment"] == "table2"]
    assert set(names[:-2]) == set(table2_gradient.ATTACKS)
    assert names[-2:] == ["deepfool", "deepfool"]
    alone = make_study(counts=COUNTS, folder="alone")
    paper.run_paper(alone, (2,))
    assert not any(row["attack"] == "deepfool" for row in alone.folder.rows.values())


def test_past_a_detector_goes_nobody_where_there_is_none(make_study) -> None:
    study = make_study(counts=COUNTS)
    assert list(table2_others.rows(study, {"undetected_pgd": UndetectedPGD(0.1, steps=2)})) == []
