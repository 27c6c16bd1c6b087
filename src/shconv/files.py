"""Files replaced in one step: a full disk or an interruption leaves the file that was there before."""

import json
import os
from pathlib import Path
from typing import Any


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file beside `path`, then put it in its place. Raises OSError, and `path` is as it was."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_json(path: Path, value: Any) -> None:
    """replace_file with `value` as JSON."""
    replace_file(path, (json.dumps(value, indent=1) + "\n").encode())
