"""Check 3: gradients bent at the data themselves, which a random start escapes."""

from pathlib import Path

from check_toys import Honest, bent_on_data, blind, finding, make_audit

from shconv.audit.checks import c03_random_start


def test_a_gradient_bent_at_the_data_raises_the_alarm(tmp_path: Path) -> None:
    found = finding(c03_random_start, make_audit(tmp_path, bent_on_data()))
    assert found.alarm
    assert found.numbers["PGD-5"]["without"] == 1.0
    assert found.numbers["PGD-5"]["with"] == 26 / 40


def test_a_linear_classifier_raises_none(tmp_path: Path) -> None:
    found = finding(c03_random_start, make_audit(tmp_path, Honest()))
    assert found.alarm is False
    assert found.numbers["PGD-5"]["drop"] == 0
    assert found.numbers["FGSM"]["drop"] < 0  # half of its budget goes into a random step


def test_where_no_gradient_comes_back_a_random_start_is_no_help_either(tmp_path: Path) -> None:
    assert finding(c03_random_start, make_audit(tmp_path, blind())).alarm is False
