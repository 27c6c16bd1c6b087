"""The table of docs/conversion.md lists the networks that are tested (the code of the page runs in test_docs.py)."""

import re
from pathlib import Path

from tested_networks import CASES

PAGE = (Path(__file__).parents[2] / "docs" / "conversion.md").read_text(encoding="utf-8")


def test_the_table_lists_the_tested_networks() -> None:
    rows = re.findall(r"^\| ((?:timm|torchvision) [^|]+) \| \d", PAGE, re.MULTILINE)
    assert rows == [case.name for case in CASES]
