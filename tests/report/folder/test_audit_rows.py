"""Reading an audit's rows: apart from all others, in the order tried, and with what is damaged named."""

import json
import math

import pytest
from made_audit import EPS, FINDINGS, HEADLINE, add_audit

from shconv.audit.notebook import RESULTS
from shconv.errors import InputError
from shconv.report import load_run
from shconv.report.folder.audits import Finding


def row_of(run_folder, kind):
    return next(row for row in run_folder.rows if row.get("kind") == kind)


def test_an_audit_is_read_as_it_was_written(run_folder):
    add_audit(run_folder, seed=3)
    (audit,) = load_run(run_folder.save()).audits
    assert (audit.model, audit.seed, audit.name) == ("resnet18_shc", 3, "ResNet-18-SHC")
    assert [each.attack for each in audit.tried if each.headline] == [label for label, *_ in HEADLINE]
    assert [each.check for each in audit.findings] == [number for number, *_ in FINDINGS]
    assert audit.epsilon("linf") == EPS  # the budget curve's larger radii do not count
    row = row_of(run_folder, "verdict")
    assert audit.verdict.worst_case["linf"].correct == row["worst_case"]["linf"]["correct"]
    assert list(audit.verdict.worst_case) == ["linf", "confident", "l2", "pixels"]
    assert audit.verdict.twin.twin_accuracy == row["twin"]["twin_accuracy"]
    assert audit.verdict.preflight == ("The network was in training mode. It is audited in eval mode.",)


def test_the_audits_rows_are_no_experiment_of_the_papers(run_folder):
    run_folder.add("table1", "resnet18", "clean", (1, 2))
    add_audit(run_folder)
    run = load_run(run_folder.save())
    assert [row.experiment for row in run.rows] == ["table1"]
    assert run.models == ("resnet18",)
    assert len(run.audits) == 1


def test_each_network_and_seed_is_an_audit_of_its_own_in_the_order_begun(run_folder):
    for model, seed in (("b", 1), ("a", 0), ("b", 0)):
        add_audit(run_folder, model, seed)
    assert [(audit.model, audit.seed) for audit in load_run(run_folder.save()).audits] == [("b", 1), ("a", 0), ("b", 0)]


def test_every_one_of_the_twelve_checks_has_a_result_and_one_without_a_row_says_why(run_folder):
    add_audit(run_folder)
    add_audit(run_folder, "resnet18", finished=False)
    done, stopped = load_run(run_folder.save()).audits
    assert [finding.check for finding in done.checks] == list(range(1, 13))
    assert {finding.check: finding.not_run for finding in done.checks if finding.result == "not run"} == {
        11: "not asked for"
    }
    missing = {finding.check: finding.not_run for finding in stopped.checks if finding.result == "not run"}
    assert missing == {1: "it has no SHC layer"} | dict.fromkeys(range(9, 13), "the audit has not come to it")
    assert stopped.verdict is None


def test_a_worst_case_over_no_attack_has_no_number(run_folder):
    add_audit(run_folder)
    row_of(run_folder, "verdict")["worst_case"]["l2"]["attacks"] = 0
    worst = load_run(run_folder.save()).audits[0].verdict.worst_case
    assert (worst["l2"].accuracy, worst["l2"].interval, worst["l2"].correct) == (None, None, None)
    assert worst["linf"].accuracy is not None


def test_an_attack_that_counts_pixels_has_no_radius(run_folder):
    add_audit(run_folder)
    assert any(row.get("epsilon") == math.inf for row in run_folder.rows)
    pixels = [each for each in load_run(run_folder.save()).audits[0].tried if each.threat == "pixels"]
    assert [each.epsilon for each in pixels] == [None]


def test_a_row_written_again_replaces_the_first_and_a_half_line_is_left_out(run_folder):
    add_audit(run_folder)
    run_folder.rows.append({**row_of(run_folder, "attack"), "successes": 0})
    path = run_folder.save() / "rows.jsonl"
    path.write_text(path.read_text() + '{"id": "audit/')
    run = load_run(run_folder.folder)
    assert run.audits[0].tried[0].successes == 0
    assert len(run.audits[0].tried) == len(HEADLINE) + 2
    assert sum("rows were written again" in note for note in run.notes) == 1
    assert sum("half written" in note for note in run.notes) == 1


@pytest.mark.parametrize(
    ("kind", "field", "value", "words"),
    [
        ("attack", "kind", "other", "not one of attack, finding, verdict"),
        ("attack", "id", "audit/resnet18/attack/x", "not audit/MODEL/seedS"),
        ("attack", "successes", 10**6, "of 157 images"),
        ("attack", "headline", "yes", "not a bool"),
        ("attack", "accuracy", 1.5, "share in 0..1"),
        ("finding", "check", None, "missing"),
        ("finding", "alarm", "yes", "not a bool"),
        ("verdict", "worst_case", [], "not a dict"),
        ("verdict", "clean", None, "not a dict"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(run_folder, kind, field, value, words):
    add_audit(run_folder)
    row = row_of(run_folder, kind)
    row[field] = value
    line = 1 + run_folder.rows.index(row)
    with pytest.raises(InputError, match=rf'line {line} is damaged: "{field}".*{words}'):
        load_run(run_folder.save())


def test_the_options_of_an_audit_stand_beside_the_folders_own(run_folder):
    add_audit(run_folder)
    folder = run_folder.save()
    (folder / "audit.json").write_text(json.dumps({"eps": EPS, "budget": "5m"}))
    run = load_run(folder)
    assert run.config["audit"] == {"eps": EPS, "budget": "5m"}
    assert run.config["attack"] == {"epsilon": 0.02}
    (folder / "config.toml").unlink()
    assert load_run(folder).notes == ()


def test_a_result_has_one_word_on_the_page_and_in_a_notebook():
    for alarm, word in RESULTS.items():
        assert Finding(check=1, name="a", alarm=alarm).result in word
