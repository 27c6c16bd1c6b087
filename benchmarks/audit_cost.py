"""What does the audit's worst case cost beside AutoAttack alone, and do both leave the same images?

    python benchmarks/audit_cost.py --network DIR --data folder:PATH

The worst case is checks 2 and 12 with nothing else, in L-infinity and L2, with the counts that a budget gives them: PGD
of several kinds, then AutoAttack on the images that came closest to a wrong class. Beside it AutoAttack's standard set
runs on all images, in L-infinity alone. Both in one process, on one thread; seconds are the processor's, so that other
work on the machine does not count.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from shconv.attacks import PGD, Standard
from shconv.audit import run
from shconv.audit.checks import c02_strength, c12_worst_case
from shconv.audit.setting import FULL
from shconv.audit.subject import AuditedNetwork
from shconv.data import evaluation_batches, load_data
from shconv.numbers import budget as radius
from shconv.training import load_checkpoint

EFFORT, PARTS = FULL.scaled(1 / 8), (c02_strength, c12_worst_case)


@dataclass(frozen=True, kw_only=True)
class Options:
    network: Path
    data: str = "demo"
    images: int = 50
    eps: str = "8/255"
    seed: int = 0


def main(options: Options) -> None:
    torch.set_num_threads(1)
    eps, model = radius("eps", options.eps), load_checkpoint(options.network)[0].eval()
    split = load_data(options.data, want_train=False).test
    chosen = np.sort(np.random.default_rng(options.seed).permutation(len(split))[: options.images]).tolist()
    batch = next(iter(evaluation_batches(split, chosen, options.images)))
    x, y = batch.images.float().div(255), batch.labels
    network = AuditedNetwork(model).eval()

    def right(z: torch.Tensor) -> int:
        with torch.no_grad():
            return int((model(z).argmax(1) == y).sum())

    began = time.process_time()
    report = run(model, (x, y), eps, budget="full", effort=EFFORT, checks=PARTS, progress=False)
    audited = time.process_time() - began
    began = time.process_time()
    standard = right(Standard(eps).run(network, x, y).images)
    alone = time.process_time() - began
    began = time.process_time()
    pgd = right(PGD(eps, steps=50, restarts=2, until_broken=True).run(network, x, y).images)
    cheap = time.process_time() - began
    attacks = [row for row in report.rows if row["kind"] == "attack"]
    told = {
        "images": len(y),
        "clean": right(x),
        "audit": report.worst_case["linf"]["correct"],
        "autoattack": standard,
        "pgd-50x2": pgd,
        "seconds": {"audit": round(audited, 1), "autoattack": round(alone, 1), "pgd-50x2": round(cheap, 1)},
        "audit/autoattack": round(audited / alone, 3),
        "wall by threat": {
            threat: round(sum(row["seconds"] for row in attacks if row["threat"] == threat), 1)
            for threat in ("linf", "l2")
        },
        "tried": {f"{row['attack']}, {row['threat']}": [row["n"], row["successes"], row["spared"]] for row in attacks},
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
