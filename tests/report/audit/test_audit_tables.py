"""An audit's tables: every number in the CSV, nothing read as markup, no network called robust for lack of alarms."""

import csv
import io

import numpy as np
import pytest
from made_audit import HEADLINE, add_audit, share
from rich.console import Console

from shconv.report import load_run, print_tables, write
from shconv.report.audit.sections import answer, comparison, sections
from shconv.report.audit.tables import audit_tables, results, route_words
from shconv.report.output.render import to_csv, to_markdown


def read_csv(grid):
    return list(csv.DictReader(io.StringIO(to_csv(grid, "demo"))))


def audits(run_folder):
    return load_run(run_folder.save()).audits


def verdict_row(run_folder):
    return next(row for row in run_folder.rows if row.get("kind") == "verdict")


def test_the_csv_gives_the_verdict_back_unrounded(run_folder):
    add_audit(run_folder)
    row = verdict_row(run_folder)
    row["twin"]["p"] = 1 / 3
    records = {record["what"]: record for record in read_csv(results(audits(run_folder)))}
    assert list(records) == [
        *("clean", "worst case, L∞ 8/255", "worst case, L∞ 8/255, confident images", "worst case, L2 0.5"),
        *("worst case, few pixels", "worst case, attacks shared with the twin ResNet-18"),
        *("worst case of the twin ResNet-18", "worst case minus twin ResNet-18"),
    ]
    for what, case in (
        ("clean", row["clean"]),
        ("worst case, L∞ 8/255", row["worst_case"]["linf"]),
        ("worst case, L∞ 8/255, confident images", row["worst_case"]["confident"]),
    ):
        found = records[what]
        assert [float(found[key]) for key in ("accuracy", "interval_low", "interval_high")] == [
            case["accuracy"],
            *case["interval"],
        ]
        assert (int(found["correct"]), int(found["n"])) == (case["correct"], case["n"])
    pixels = records["worst case, few pixels"]
    assert [pixels[key] for key in ("accuracy", "interval_low", "correct", "untried")] == ["", "", "", "60"]
    assert pixels["reason"] == "60 images were not attacked"
    difference = records["worst case minus twin ResNet-18"]
    ends = [float(difference[f"difference_interval_{end}"]) for end in ("low", "high")]
    assert (float(difference["difference"]), float(difference["p"]), ends) == (0.02, 1 / 3, [-0.006, 0.048])


def test_every_attack_and_check_has_a_line_with_all_its_numbers(run_folder):
    add_audit(run_folder)
    _, checks, attacks = (read_csv(grid) for grid in audit_tables(audits(run_folder)))
    written = [row for row in run_folder.rows if row.get("kind") == "attack"]
    assert [(record["attack"], int(record["n"]), int(record["successes"])) for record in attacks] == [
        (row["attack"], row["n"], row["successes"]) for row in written
    ]
    assert [record["accuracy"] for record in attacks] == [
        "" if row["accuracy"] is None else repr(row["accuracy"]) for row in written
    ]
    assert attacks[0]["parameters"] == "steps 50, restarts 5, loss cross_entropy"
    assert [record["check"] for record in checks] == [str(number) for number in range(1, 13)]
    assert checks[0]["numbers"] == "both 0.38, worst [1, 2]"


def test_attacks_that_do_not_count_stand_apart_and_one_cut_short_says_so(run_folder):
    add_audit(run_folder, finished=False)
    counted, aside = sections(audits(run_folder))[0].attacks
    assert len(counted.records) == len(HEADLINE)
    assert {record["budget"] for record in aside.records} == {"L∞ 0.5", "L∞ 1"}
    ran = {record["attack"]: record["ran"] for record in counted.records}
    assert ran.pop("AutoAttack standard") == "stopped by the budget"
    assert set(ran.values()) == {"complete"}
    transferred = next(record for record in counted.records if record["attack"] == "PGD-50, transferred")
    assert transferred["source"] == "ResNet-18"


def test_an_attack_on_the_closest_images_alone_says_how_many_it_left_out(run_folder):
    add_audit(run_folder)
    for row in run_folder.rows:
        if row.get("attack") == "AutoAttack standard":
            row["spared"] = 20
    ran = {record["attack"]: record["ran"] for record in sections(audits(run_folder))[0].attacks[0].records}
    assert ran.pop("AutoAttack standard") == "on the closest, 20 left out"
    assert set(ran.values()) == {"complete"}


def test_a_column_that_says_nothing_of_a_network_is_left_out(run_folder):
    add_audit(run_folder)
    add_audit(run_folder, "resnet18", twin=False)
    shc, vanilla = ([column.key for column in each.attacks[0].columns] for each in sections(audits(run_folder)))
    assert {"route", "source"} <= set(shc)
    assert not {"route", "source"} & set(vanilla)


def test_the_twin_is_compared_in_a_sentence(run_folder):
    add_audit(run_folder)
    add_audit(run_folder, "resnet18", twin=False)
    beside, alone = sections(audits(run_folder))
    assert beside.results.notes[0].replace("\N{NO-BREAK SPACE}", " ") == (
        "Against its twin ResNet-18 on the same images and over the same 13 attacks: +2.0 points (−0.6 to +4.8), "
        "p = 0.219; the twin's worst case is 1.5 %."
    )
    assert alone.results.notes == ()


@pytest.mark.parametrize("where", ["of the row itself", "of the twin's own row", "said by the audit"])
def test_without_attacks_on_both_there_is_no_difference_but_a_dash_and_the_reason(run_folder, where):
    """Nowhere: not in the page, the table, the CSV file or the figure."""
    add_audit(run_folder)
    own = verdict_row(run_folder)
    add_audit(run_folder, "resnet18", twin=False)
    twin = run_folder.rows[-1]
    if where == "said by the audit":
        own["twin"] |= {"reason": "no attack was tried on resnet18", "difference": None, "p": None}
    else:
        case = (own if where == "of the row itself" else twin)["worst_case"]["linf"]
        case |= {"attacks": 0}
    found = audits(run_folder)
    reason = {
        "of the row itself": "of this network no attack was tried",
        "of the twin's own row": "of ResNet-18 no attack was tried",
        "said by the audit": "no attack was tried on resnet18",
    }[where]
    assert sections(found)[0].results.notes == (f"Against its twin ResNet-18: – ({reason}).",)
    assert comparison(found).records[0]["twin"] == f"– ({reason})"
    (record,) = [each for each in read_csv(results(found)) if "twin" in each["what"]]
    assert record["reason"] == reason
    assert {record[key] for key in ("accuracy", "difference", "difference_interval_low", "p", "n")} == {""}


def test_a_worst_case_of_confident_images_needs_attacks_too(run_folder):
    add_audit(run_folder)
    verdict_row(run_folder)["worst_case"]["linf"] |= {"attacks": 0}
    records = {each["what"]: each for each in read_csv(results(audits(run_folder)))}
    confident = records["worst case, L∞ 8/255, confident images"]
    assert (confident["accuracy"], confident["interval_low"], confident["reason"]) == ("", "", "no attack was tried")


def test_networks_side_by_side_are_compared_over_the_shared_attacks_first(run_folder):
    for model in ("resnet18_shc", "resnet18"):
        add_audit(run_folder, model, twin=False)
        case = run_folder.rows[-1]["worst_case"]["linf"]
        case["shared"] = {**share(np.arange(200) < 50), "attacks": 4, "untried": 0}
    grid = comparison(audits(run_folder))
    titles = [column.title for column in grid.columns]
    assert titles.index("L∞ 8/255, shared attacks") + 1 == titles.index("L∞ 8/255")
    assert {record["linf/shared"] for record in grid.records} == {"25.0 (19.5–31.4)"}
    shown = [record["what"] for record in sections(audits(run_folder))[0].results.records]
    assert shown[:3] == ["clean", "worst case, L∞ 8/255, shared attacks", "worst case, L∞ 8/255"]


def test_side_by_side_says_how_many_checks_could_tell(run_folder):
    add_audit(run_folder)
    add_audit(run_folder, "resnet18", masked=False, twin=False)
    add_audit(run_folder, "plain10", finished=False)
    masked, calm, stopped = comparison(audits(run_folder)).records
    assert masked["alarms"] == "1, 4, 5, 6, 8, 9 (of 9)"
    assert calm["alarms"] == "none (of 8)"
    assert (stopped["clean"], stopped["linf"], stopped["not_run"]) == ("not finished", None, "1, 9, 10, 11, 12")
    assert masked["pixels"] == "– (60 images were not attacked)"
    assert "not necessarily robust" in comparison(audits(run_folder)).caption


def test_the_answer_has_both_accuracies_and_the_alarms_of_each_network_with_checks(run_folder):
    add_audit(run_folder)
    add_audit(run_folder, "resnet18", masked=False, twin=False)
    add_audit(run_folder, "plain10", finished=False)
    said = dict(answer(audits(run_folder)))
    assert [len(each) for each in said.values()][-3:] == [2, 2, 2]
    worst = said["Correct in the worst case"][0]
    assert worst.startswith("ResNet-18-SHC: 2.0\xa0% (95 % interval 0.8–5.0) within L∞ 8/255, ")
    assert worst.endswith("no number (60 images were not attacked) within few pixels.")
    masked, calm = said["Alarms"]
    assert "check 1, gradient routes; check 4, budget curve; " in masked
    assert masked.endswith("the worst case may be far too high.")
    assert calm == "ResNet-18: none from the 8 checks with an answer. This is no evidence of robustness."


def test_seeds_are_summed_up_by_mean_and_standard_deviation(run_folder):
    for seed, right in ((0, 10), (1, 20), (2, 30)):
        add_audit(run_folder, seed=seed)
        run_folder.rows[-1]["worst_case"]["linf"]["accuracy"] = right / 200
    (note,) = comparison(audits(run_folder)).notes
    assert "over 3 training seeds" in note
    assert "L∞ 8/255 10.0 ± 5.0 %" in note.replace("\N{NO-BREAK SPACE}", " ")


def test_routes_have_names(run_folder):
    assert route_words("mixture:0.3") == "hypernetwork route × 0.3"
    assert route_words("frozen") == "kernels frozen"
    assert route_words("inner logits") == "inner logits"
    assert route_words("<other>") == "<other>"


@pytest.mark.usefixtures("blank")
def test_markdown_escapes_what_came_from_files_and_warns_of_no_paper(run_folder):
    add_audit(run_folder, "<b>|*evil*`")
    text = "".join(to_markdown(grid) for grid in audit_tables(audits(run_folder)))
    assert "<b>" not in text
    assert "&lt;b&gt;&#124;\\*evil\\*&#96;" in text
    folder = run_folder.folder
    write(folder)
    assert "ImageNet" not in (folder / "tables" / "audit.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_the_terminal_cuts_nothing_off_and_ends_with_the_verdict(run_folder, width):
    add_audit(run_folder)
    add_audit(run_folder, "[bold]net[/bold]", finished=False)
    out = io.StringIO()
    print_tables(run_folder.save(), Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "[bold]net[/bold]" in text
    assert "Table 1" not in text
    assert "ImageNet" not in text
    for words in ("HopSkipJump", "indicators", "Alarm, check 1", "not finished"):
        assert words in text, words
    assert text.index("The twelve checks") < text.index("Worst case per image") < text.index("Alarm, check 1")
