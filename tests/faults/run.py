"""The fault matrix: breaks a tiny real run in every way promised to be survived, and prints promise and seen.

python tests/faults/run.py [WORD ...]: all faults, or those whose name holds one of the words. Exit code 1 where a
promise was broken. Some minutes; a full disk is a small tmpfs, which root may mount."""

import os
import sys
import tempfile
import textwrap
from pathlib import Path

import torch

from bench import Bench, Broken, write_images
from training import FAULTS


def main(words: list[str]) -> int:
    """The number of broken promises."""
    chosen = {name: fault for name, fault in FAULTS.items() if not words or any(word in name for word in words)}
    os.environ.update(ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1", COLUMNS="200")
    torch.set_num_threads(1)
    broken = 0
    print("| fault | promised | seen |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults") as place:
        bench = Bench(Path(place), write_images(Path(place) / "images"))
        for number, (name, fault) in enumerate(chosen.items()):
            promised = " ".join(textwrap.dedent(fault.__doc__ or "").split())
            try:
                seen = fault(bench, bench.root / f"fault{number}")
            except Broken as error:
                broken += 1
                seen = "**broken**: " + " ".join(str(error).split())
            print(f"| {name} | {promised} | {seen} |", flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
