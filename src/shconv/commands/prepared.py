"""How images are prepared for checkpoints: as the first was trained to see them, but for what an option says.
What is taken against a checkpoint's word is said, in a line each."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shconv.commands.options import DataOptions
from shconv.data import Preparation
from shconv.toml import read_toml


def prepared_as(
    options: DataOptions, networks: Iterable[tuple[Path, Mapping[str, Any]]], say: Callable[[str], None]
) -> Preparation:
    """From (checkpoint, its config.json), the one that decides first. Raises InputError as Preparation.of does."""
    each = [(path, Preparation.of(info, path)) for path, info in networks]
    channels = each[0][1].channels if each else 3
    known = [(path, held) for path, held in each if held.image_size is not None]
    if not known:
        return Preparation(channels=channels)
    (path, first), *others = known
    taken = _with_options(options, first)
    given = [
        f"--{name.replace('_', '-')} {getattr(options, name)}"
        for name in ("image_size", "test_preset")
        if getattr(taken, name) != getattr(first, name)
    ]
    if given:
        say(f"warning: {path} was trained for images of {first}; taken all the same: {' '.join(given)}")
    for other_path, other in others:
        if warning := other.unlike(taken, other_path):
            say(warning)
    return replace(taken, channels=channels)


def prepared_in(folder: Path) -> Preparation:
    """As an earlier run in the folder had it: nothing known where there was none, or where its files are damaged."""
    try:
        about = json.loads((folder / "data.json").read_bytes())
        options = read_toml(folder / "config.toml")
        return Preparation.of({"data": {"test_preset": options.get("test_preset"), **about}}, folder)
    except (OSError, ValueError, TypeError):  # who opens the folder says what is wrong with it
        return Preparation()


def _with_options(options: DataOptions, known: Preparation) -> Preparation:
    if options.image_size is not None:
        known = replace(known, image_size=options.image_size, train_size=options.image_size)
    return known if options.test_preset == "auto" else replace(known, test_preset=options.test_preset)
