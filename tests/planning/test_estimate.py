"""What is said before a table that takes minutes: the plan's own numbers, for the networks and counts at hand."""

import re

import pytest

from shconv.planning import estimate
from shconv.planning.estimate import announcements
from shconv.planning.probe import Probe, Span


def test_tables_that_take_minutes_are_announced_and_short_ones_are_not(make_study, monkeypatch):
    study = make_study()
    for seconds, expected in ((1e-9, set()), (5.0, {"Table 1", "Table 2", "Table 3", "Table 4", "quasi boundary"})):
        monkeypatch.setattr(Probe, "seconds", lambda self, work, batch, s=seconds: Span(s, s))
        assert set(announcements(study)) - {"Figures 2 to 4"} == expected


def test_an_announcement_says_time_and_work(make_study, monkeypatch):
    monkeypatch.setattr(Probe, "seconds", lambda self, work, batch: Span(3600.0, 3600.0))
    said = announcements(make_study())["Table 1"]
    assert re.fullmatch(r"Table 1: about [\d.]+ h for \d+ rows of \d+ images", said)


def test_twice_the_cost_is_twice_the_time(make_study, monkeypatch):
    study, hours = make_study(), []
    for seconds in (3600.0, 7200.0):
        monkeypatch.setattr(Probe, "seconds", lambda self, work, batch, s=seconds: Span(s, s))
        hours.append(float(re.search(r"about ([\d.]+) h", announcements(study)["Table 3"])[1]))
    assert hours[1] == pytest.approx(2 * hours[0], rel=0.01)


def test_measuring_runs_the_networks_themselves(make_study, monkeypatch):
    """Nothing is replaced here: it has to work on the networks as they are, and miniature ones take no minutes."""
    study = make_study()
    monkeypatch.setattr(estimate, "LONG", 0.0)
    assert {"Table 1", "Table 3"} <= set(announcements(study))


def test_gradients_are_measured_only_where_a_table_may_take_minutes(make_study, monkeypatch):
    monkeypatch.setattr(Probe, "gradients", lambda *_: pytest.fail("measured"))
    assert announcements(make_study()) == {}
    monkeypatch.setattr(estimate, "LONG", 0.0)
    with pytest.raises(pytest.fail.Exception, match="measured"):
        announcements(make_study())
