"""What lies at a path, in words, for the error of a command that wants something else there; and whether a result can
go there."""

import os
from pathlib import Path

from shconv.errors import InputError, few, near

CHECKPOINT, RUN, COMPARISON = "a checkpoint", "the folder of a run", "a comparison"
UNFINISHED = "a training that is not finished"
SIGNS = {
    "rows.jsonl": RUN,
    "config.toml": RUN,
    "config.json": CHECKPOINT,
    "state.pt": UNFINISHED,
    "comparison.html": COMPARISON,
}


def check_out(folder: Path, *wanted: str) -> None:
    """Raises InputError, before work is done, for a folder of another kind than wanted, or that cannot be written."""
    if (kind := _kind(folder)) not in (None, *wanted):
        raise InputError(f"{folder} is {kind}; what is made here needs another folder (--out)")
    if folder.is_symlink() and not folder.exists():
        raise InputError(f"{folder} is a link to {folder.readlink()}, which is not there; a folder is wanted")
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest} is a file; a folder is wanted")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: no permission to write in {nearest}")


def what_is_at(path: Path) -> str:
    """What follows the path's name: "is not there", "is the folder of a run; its checkpoints: ..."."""
    if not path.exists():
        there = path.parent.is_dir()
        others = [each.name for each in path.parent.iterdir() if not each.name.startswith(".")] if there else []
        hint = near(path.name, others, otherwise="")
        return "is not there" + (f"; {hint}" if hint else "")
    if not path.is_dir():
        return "is a file"
    kind = _kind(path)
    inside = {each: _kind(each) for parent in (path, path / "models") for each in _folders(parent)}
    if kind == RUN and (found := [each for each, its in inside.items() if its == CHECKPOINT]):
        return f"is {RUN}; its checkpoints: {few(list(map(str, found)), 4)}"
    if kind is not None:
        return f"is {kind}"
    for wanted, word in ((CHECKPOINT, "checkpoints"), (RUN, "folders of runs")):
        if found := [each for each, its in inside.items() if its == wanted]:
            return f"holds {word}: {few(list(map(str, found)), 4)}"
    return "is a folder of something else" if any(path.iterdir()) else "is an empty folder"


def _kind(folder: Path) -> str | None:
    return next((kind for name, kind in SIGNS.items() if (folder / name).is_file()), None)


def _folders(parent: Path) -> list[Path]:
    return sorted(each for each in parent.iterdir() if each.is_dir()) if parent.is_dir() else []
