"""Audits beside each other in shconv.compare."""

import json
from pathlib import Path

import pytest
from core_toys import Brightest, attacking, colour_images

import shconv
from shconv.errors import InputError


def audited(folder: Path, name: str, scale: float, images: int = 12, light: float = 1.0) -> None:
    model, checks = Brightest(scale), [attacking(2, "strength", 0.05)]
    how = {"images": images, "budget": "full", "effort": shconv.audit.Effort(), "progress": False}
    x, y = colour_images()
    shconv.audit.run(model, (light * x, y), 0.05, name=name, folder=folder, checks=checks, **how)  # type: ignore[arg-type]


def test_audits_are_compared_by_the_images_that_they_left_standing(tmp_path: Path) -> None:
    for name, scale in (("plain", 20.0), ("sharp", 80.0)):
        audited(tmp_path / name, name, scale)
    comparison = shconv.compare([tmp_path / "plain", tmp_path / "sharp"], baseline="plain")
    assert comparison.columns == ("clean", "worst case L∞ 0.05")
    for line in comparison.lines:
        rows = map(json.loads, (tmp_path / line.name / "rows.jsonl").read_text().splitlines())
        (verdict,) = [row for row in rows if row.get("kind") == "verdict"]
        cases = (verdict["clean"], verdict["worst_case"]["linf"])
        assert line.cells == tuple((case["accuracy"], *case["interval"]) for case in cases)
    assert any("An audit chooses its attacks" in note for note in comparison.notes)


def test_audits_on_other_images_are_refused(tmp_path: Path) -> None:
    audited(tmp_path / "a", "a", 20.0)
    audited(tmp_path / "b", "b", 20.0, images=13)
    with pytest.raises(InputError, match=r"a and b were judged on other images \(clean: 12 and 13\)"):
        shconv.compare([tmp_path / "a", tmp_path / "b"])
    audited(tmp_path / "c", "c", 20.0, light=0.9)
    with pytest.raises(InputError, match=r"a and .*c are about other images or labels"):
        shconv.compare([tmp_path / "a", tmp_path / "c"])


def test_audits_are_read_as_the_report_reads_them(tmp_path: Path) -> None:
    """Rows of earlier versions, or written by hand, lack what one can do without; a damaged line is named."""
    audited(tmp_path / "a", "a", 20.0)
    path = tmp_path / "a" / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    def compared(**verdict: object) -> tuple[object, ...]:
        kept = [{key: value for key, value in row.items() if key not in ("seconds", "seed", "model")} for row in rows]
        kept = [row | (verdict if row["kind"] == "verdict" else {}) for row in kept]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        return cells()

    def cells() -> tuple[object, ...]:
        return shconv.compare([tmp_path / "a", tmp_path / "b"], baseline="b").lines[0].cells

    audited(tmp_path / "b", "b", 80.0)
    whole = cells()
    assert compared() == whole
    with pytest.raises(InputError, match=rf"rows\.jsonl, line {len(rows)} is damaged: .*worst_case"):
        compared(worst_case=3)
    (tmp_path / "a" / "audit.json").write_text("[")
    with pytest.raises(InputError, match=r"audit\.json is damaged"):
        compared()
