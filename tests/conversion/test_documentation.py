"""What docs/conversion.md shows works as it stands there."""

import re
from pathlib import Path
from typing import Any

from tested_networks import CASES

PAGE = (Path(__file__).parents[2] / "docs" / "conversion.md").read_text(encoding="utf-8")


def test_the_code_blocks_run_one_after_the_other() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert names["constant"] is not names["shc"]


def test_the_table_lists_the_tested_networks() -> None:
    rows = re.findall(r"^\| ((?:timm|torchvision) [^|]+) \| \d", PAGE, re.MULTILINE)
    assert rows == [case.name for case in CASES]
