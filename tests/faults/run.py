"""The fault matrix: breaks tiny real runs in every way promised to be survived, and prints promise and seen.

python tests/faults/run.py [WORD ...]: all faults, or those whose name holds one of the words. Exit code 1 where a
promise was broken. Some minutes; a full disk is a small tmpfs, which root may mount."""

import os
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import evaluation
import shards
import torch

import training
from bench import Bench, Broken, write_images

MATRIX: tuple[tuple[type[Bench], dict[str, Any]], ...] = (
    (Bench, training.FAULTS),
    (shards.Shards, shards.FAULTS),
    (evaluation.Evaluations, evaluation.FAULTS),
)


def main(words: list[str]) -> int:
    """The number of broken promises."""
    os.environ.update(ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1", COLUMNS="200")
    torch.set_num_threads(1)
    broken = 0
    print("| fault | promised | seen |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults") as place:
        images = write_images(Path(place) / "images")
        for number, (kind, faults) in enumerate(MATRIX):
            bench = kind(Path(place) / f"bench{number}", images)
            bench.root.mkdir()
            for fault, name in enumerate(faults):
                if not words or any(word in name for word in words):
                    seen = tried(bench, bench.root / f"fault{fault}", faults[name])
                    broken += seen.startswith("**broken**")
                    print(f"| {name} | {promise(faults[name])} | {seen} |", flush=True)
    return broken


def tried(bench: Bench, out: Path, fault: Any) -> str:
    """What was seen."""
    try:
        return str(fault(bench, out))
    except Broken as error:
        return "**broken**: " + " ".join(str(error).split())


def promise(fault: Any) -> str:
    return " ".join(textwrap.dedent(fault.__doc__ or "").split())


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
