"""Check 1: routes of an SHC network whose gradient through M is exaggerated, and of one whose gradient is true."""

from pathlib import Path

from check_toys import Honest, Shc, finding, make_audit

from shconv.audit.checks import c01_routes


def test_an_exaggerated_gradient_through_the_maps_raises_the_alarm(tmp_path: Path) -> None:
    found = finding(c01_routes, make_audit(tmp_path, Shc(mislead=-1000.0)))
    assert found.alarm
    assert found.numbers["one step"]["convolution"]["below"]
    assert not found.numbers["one step"]["hypernetwork"]["below"]
    assert "convolution" in found.text


def test_a_true_gradient_raises_none_and_both_routes_break_what_the_closed_form_says(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Shc())
    found = finding(c01_routes, audit)
    assert found.alarm is False
    both = found.numbers["PGD-10"]["both"]
    assert both["accuracy"] == 26 / 40
    assert both["difference"] == 0


def test_the_bars_of_the_figure_are_the_accuracies_in_their_intervals(tmp_path: Path) -> None:
    found = finding(c01_routes, make_audit(tmp_path, Shc()))
    names = found.arrays["names"].tolist()
    assert names[:5] == ["both", "convolution", "hypernetwork", "strict", "frozen"]
    assert found.arrays["accuracy"].tolist() == [found.numbers["PGD-10"][name]["accuracy"] for name in names]
    assert (found.arrays["low"] <= found.arrays["accuracy"]).all()
    assert (found.arrays["accuracy"] <= found.arrays["high"]).all()
    assert found.figure == "routes"


def test_a_vanilla_network_has_no_routes(tmp_path: Path) -> None:
    assert "no SHC layer" in c01_routes.applies(make_audit(tmp_path, Honest()))
