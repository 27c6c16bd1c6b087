"""Tables 1 to 4: which rows come, under which ids, and that each says what was done to how many images."""

import itertools
from dataclasses import asdict

import numpy as np
import pytest

from shconv.attacks import PAPER, LocSearchAdv, RandFGSM, locsearch_columns, locsearch_for
from shconv.data import ImageData
from shconv.experiments import (
    figure2_noise,
    figure3_traces,
    figure4_gradients,
    quasi_boundary,
    table1_gaussian,
    table2_gradient,
    table3_locsearch,
    table4_routes,
)
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.study import Counts
from shconv.metrics import accuracy_interval
from toys import colour_networks

COUNTS = Counts(table2=6, table3=3)
ROUTES = {"plain10": ["both"], "plain10_shc": ["both", "convolution", "hypernetwork"]}
OBJECTIVES = ["least_likely", "untargeted"]
TABLES = [table1_gaussian, table2_gradient, table3_locsearch, table4_routes, quasi_boundary]
SEARCHES = ["locsearch", "locsearch_cyclic", "locsearch_random"]


@pytest.fixture
def study(make_study, monkeypatch):
    monkeypatch.setattr(ImageData, "is_imagenet", True)  # whose counts the rows compare with
    return make_study(counts=COUNTS)


def test_rows_about_other_data_say_nothing_of_the_papers_counts(make_study, capsys):
    study = make_study(counts=COUNTS)
    study.progress = ExperimentProgress()
    (row,) = (row for row in table1_gaussian.rows(study) if row["id"] == "table1/plain10/seed0/clean")
    assert row["wanted"] is None
    said = capsys.readouterr().err
    assert "21 images" in said
    assert "paper" not in said


def ids(experiment: str, *endings: str, models=("plain10", "plain10_shc")) -> list[str]:
    return [f"{experiment}/{model}/seed0/{ending}" for model in models for ending in endings]


def test_table_1_has_the_clean_images_and_three_levels_of_noise(study):
    rows = list(table1_gaussian.rows(study))
    noise = [f"gaussian/sigma{sigma}" for sigma in (0.1, 0.2, 0.4)]
    assert [row["id"] for row in rows] == ids("table1", "clean", *noise)
    assert {row["n"] for row in rows} == {21}
    assert {row["wanted"] for row in rows} == {50_000}
    assert [row["parameters"].get("sigma") for row in rows] == [None, 0.1, 0.2, 0.4] * 2
    assert all(row["linf"] <= 0.1 + 1e-6 for row in rows)
    assert [row["rcd_mean"] is None for row in rows] == [True, False, False, False] * 2


def test_table_2_takes_four_attacks_both_objectives_and_every_route(study):
    rows = list(table2_gradient.rows(study))
    attacks = ["fgsm", "fgsm_heavy", "ifgsm", "rand_fgsm"]
    wanted = [
        f"table2/{model}/seed0/{attack}/{objective}/{route}"
        for model, routes in ROUTES.items()
        for attack, objective, route in itertools.product(attacks, OBJECTIVES, routes)
    ]
    assert [row["id"] for row in rows] == wanted
    selected = study.selected(study.pairs[0], 6)
    for row in rows:
        assert row["parameters"] == asdict(PAPER[row["attack"]]) | {"objective": row["objective"]}
        stored = study.folder.outcomes(row["id"])
        assert stored["index"].tolist() == selected.tolist()
        assert row["n"] == 6
        assert row["wanted"] == 5_000
        assert row["accuracy"] == stored["correct"].mean()
        assert row["rcd_mean"] == pytest.approx(stored["rcd"].mean())
        assert row["interval"] == list(accuracy_interval(int(stored["correct"].sum()), 6))
        assert (
            row["linf_max"]
            <= {"ifgsm": 0.005, "fgsm": 0.02, "fgsm_heavy": 0.1, "rand_fgsm": 0.0625}[row["attack"]] + 1e-6
        )


def test_table_4_is_rand_fgsm_by_route_and_strictly_through_the_maps(study):
    rows = list(table4_routes.rows(study))
    wanted = [
        f"table4/{model}/seed0/rand_fgsm/{objective}/{route}"
        for model, routes in ROUTES.items()
        for objective in OBJECTIVES
        for route in [*routes, *(["strict"] if model == "plain10_shc" else [])]
    ]
    assert [row["id"] for row in rows] == wanted
    assert {row["wanted"] for row in rows} == {5_000}
    assert {row["n"] for row in rows} == {6}
    assert all(row["parameters"] == asdict(RandFGSM(objective=row["objective"])) for row in rows)


def test_table_4_says_the_same_as_table_2_where_both_ask_the_same(study):
    second = {row["id"]: row for row in table2_gradient.rows(study)}
    for row in table4_routes.rows(study):
        if row["route"] != "strict":
            other = second[row["id"].replace("table4", "table2")]
            kept = {"id", "experiment"}
            assert {k: v for k, v in row.items() if k not in kept} == {k: v for k, v in other.items() if k not in kept}


def test_table_3_has_every_search_at_the_fifths_of_its_rounds_and_the_boundary_beside_it(study):
    rows = list(table3_locsearch.rows(study))
    steps = locsearch_columns(2)  # 8 x 8 pixels: two rounds of one
    assert steps == (1, 2)
    wanted = []
    for model, experiments in (("plain10", ["table3"]), ("plain10_shc", ["table3", "quasi_boundary"])):
        for search, experiment, step in itertools.product(SEARCHES, experiments, steps):
            wanted.append(f"{experiment}/{model}/seed0/{search}/step{step}")
    assert [row["id"] for row in rows] == wanted
    assert {row["n"] for row in rows} == {3}
    assert {row["wanted"] for row in rows} == {500}
    for row in rows:
        assert row["objective"] is None
        assert row["route"] is None
        assert {"probe": "perturb", "order": "lowest"} | {
            "locsearch": {},
            "locsearch_cyclic": {"probe": "cyclic"},
            "locsearch_random": {"order": "random"},
        }[row["attack"]] == {name: row["parameters"][name] for name in ("probe", "order")}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_step_of_table_3_is_the_search_stopped_there(study, name):
    """Its accuracy, confidence, distance and queries are those of a search that ends after so many rounds."""
    list(table3_locsearch.rows(study))
    index = study.selected(study.pairs[0], 3)
    for network in study.networks:
        for step in (1, 2):
            full = table3_locsearch.searches(8)[name]
            short = LocSearchAdv(**asdict(full) | {"steps": step})
            expected = study.measure(study.question(network, short, index))
            row = study.folder.rows[f"table3/{network.key}/{name}/step{step}"]
            stored = study.folder.outcomes(row["id"])
            assert row["step"] == step
            for field in ("correct", "queries", "index"):
                assert stored[field].tolist() == getattr(expected, field).tolist()
            for field in ("p_y", "rc", "linf", "l2"):
                np.testing.assert_allclose(stored[field], getattr(expected, field), rtol=1e-6)
            assert row["queries"] == expected.queries.mean()


def test_the_searches_of_larger_images_have_the_papers_columns():
    for name, attack in table3_locsearch.searches(256).items():
        assert locsearch_columns(attack.steps) == (30, 60, 90, 120, 150), name
        assert attack.pixels_per_step == 10


def test_small_images_keep_the_papers_share_of_pixels_and_the_demo_takes_more_in_half_the_rounds():
    for name, attack in table3_locsearch.searches(32).items():
        assert (attack.steps, attack.pixels_per_step) == (24, 1), name
    for name, attack in table3_locsearch.searches(32, demo=True).items():
        assert (attack.steps, attack.pixels_per_step) == (12, 10), name
    assert table3_locsearch.searches(64)["locsearch"] == locsearch_for(64, 64)


def test_the_quasi_boundary_has_an_shc_networks_gradient_attacks(study):
    rows = list(quasi_boundary.rows(study))
    attacks = [f"{name}/least_likely" for name in ("fgsm", "rand_fgsm", "fgsm_heavy")]
    assert [row["id"] for row in rows] == ids("quasi_boundary", *attacks, models=["plain10_shc"])
    for row in rows:
        assert 0 <= row["agreement"] <= 1
        assert row["map_distance"] > 0
        assert row["image_distance"] == pytest.approx(row["l2"], rel=1e-5)


def test_ids_are_unique_and_what_is_there_is_not_asked_again(study, make_study, monkeypatch):
    once = [row for table in TABLES for row in table.rows(study)]
    assert len({row["id"] for row in once}) == len(once)
    lines = (study.folder.path / "rows.jsonl").read_text()
    again = make_study(counts=COUNTS)
    monkeypatch.setattr(type(again), "measure", None)
    assert [row for table in TABLES for row in table.rows(again)] == once
    assert (study.folder.path / "rows.jsonl").read_text() == lines


def test_a_missing_step_alone_is_added(study, make_study):
    first = list(table3_locsearch.rows(study))
    path = study.folder.path / "rows.jsonl"
    lost = '"table3/plain10_shc/seed0/locsearch/step2"'
    path.write_text("".join(line for line in path.read_text().splitlines(True) if lost not in line))
    second = list(table3_locsearch.rows(make_study(counts=COUNTS)))
    assert [{**row, "seconds": 0} for row in second] == [{**row, "seconds": 0} for row in first]
    assert len(path.read_text().splitlines()) == len({row["id"] for row in first}) + 2  # and the clean ones


def test_networks_without_a_confident_image_are_one_sentence_and_no_rows(make_study, monkeypatch):
    study, said = make_study(colour_networks(scale=0.1), counts=COUNTS), []
    monkeypatch.setattr(study.progress, "say", said.append)
    assert [row for table in TABLES[1:] for row in table.rows(study)] == []
    (sentence,) = (line for line in said if "no image is classified correctly with confidence above 0.9" in line)
    assert "--min-confidence lowers the limit" in sentence
    for figure in (figure2_noise, figure3_traces, figure4_gradients):
        figure.save(study)
    assert not (study.folder.path / "arrays").exists()


@pytest.mark.parametrize("place", [0, 1], ids=["vanilla", "shc"])
def test_a_network_alone_has_its_own_selection_and_rows(make_study, place):
    study = make_study((colour_networks()[place],), counts=COUNTS)
    rows = [row for table in TABLES for row in table.rows(study)]
    (network,) = study.networks
    selected = study.selected(study.pairs[0], 6)
    clean = study.clean(network)
    assert (clean.correct & (clean.p_y > 0.9))[selected].all()
    assert {row["model"] for row in rows} == {network.name}
    for row in rows:
        expected = {"table1": clean.index, "table2": selected, "table4": selected}.get(row["experiment"], selected[:3])
        assert study.folder.outcomes(row["id"])["index"].tolist() == expected.tolist()
