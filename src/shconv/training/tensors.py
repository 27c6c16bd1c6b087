"""The tensors of a .safetensors file, wherever it lies: safetensors itself opens no path that is not UTF-8."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from shconv.errors import InputError, first_line


def read_tensors(file: Path) -> dict[str, Tensor]:
    """By name; tied ones, which are stored once, under each of their names. Raises InputError for a damaged file."""
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    try:
        tensors, tied = _read(file)
    except (safetensors.SafetensorError, ValueError) as error:
        raise InputError(f"{file} is damaged ({first_line(error)})") from error
    return tensors | {name: tensors[kept] for name, kept in tied.items() if kept in tensors}


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        content = file.read_bytes()
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, header.get("__metadata__", {})
    with safetensors.safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
