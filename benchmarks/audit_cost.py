"""Does an audit find AutoAttack's number in half of AutoAttack's time?

    python benchmarks/audit_cost.py --network DIR --data folder:PATH --eps 8/255

AutoAttack's standard set runs on the first half of the images. So long, which is about half of what it takes for all of
them, is the budget of a whole audit of all images, with every check. Then AutoAttack runs on the second half. Both see
the same network in one process, on one thread, and the audit between the two halves. The processor's seconds are what
counts, for the audit's own clock too: other work on the machine changes nothing.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from shconv.attacks import PGD, Standard
from shconv.audit import run
from shconv.audit.subject import AuditedNetwork
from shconv.data import evaluation_batches, load_data
from shconv.experiments.run_folder import RunFolder
from shconv.numbers import budget as radius
from shconv.training import load_checkpoint


@dataclass(frozen=True, kw_only=True)
class Options:
    network: Path
    data: str = "demo"
    images: int = 100
    eps: str = "8/255"
    share: float = 0.5
    """Of AutoAttack's time, for the audit."""
    seed: int = 0


def main(options: Options) -> None:
    torch.set_num_threads(1)
    time.monotonic = time.perf_counter = time.process_time
    eps, model = radius("eps", options.eps), load_checkpoint(options.network)[0].eval()
    split = load_data(options.data, want_train=False).test
    chosen = np.random.default_rng(options.seed).permutation(len(split))[: options.images].tolist()
    batch = next(iter(evaluation_batches(split, chosen, options.images)))
    x, y = batch.images.float().div(255), batch.labels
    network = AuditedNetwork(model).eval()
    half = len(x) // 2

    def right(z: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return (model(z).argmax(1) == y).numpy()

    def standard(part: slice) -> tuple[np.ndarray, float]:
        """Which images stand, and seconds; images that are wrong as they are are not attacked."""
        began, stands = time.process_time(), right(x[part], y[part])
        at = torch.from_numpy(np.flatnonzero(stands))
        stands[stands] = right(Standard(eps).run(network, x[part][at], y[part][at]).images, y[part][at])
        return stands, time.process_time() - began

    first, seconds = standard(slice(half))
    budget = 2 * options.share * seconds
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        report = run(model, (x, y), eps, budget=f"{budget:.1f}s", folder=folder, progress=False)
        audited = time.process_time() - began
        verdict = next(row for row in report.rows if row["kind"] == "verdict")
        ours = RunFolder(Path(folder), writes=False).outcomes(verdict["id"])["standing_linf"]
    second, more = standard(slice(half, None))
    theirs = np.concatenate([first, second])
    began = time.process_time()
    pgd = right(PGD(eps, steps=50, restarts=2, until_broken=True).run(network, x, y).images, y)
    cheap = time.process_time() - began
    attacks = [row for row in report.rows if row["kind"] == "attack"]
    told = {
        "images": len(y),
        "clean": int(right(x, y).sum()),
        "autoattack": int(theirs.sum()),
        "audit": int(ours.sum()),
        "broken by AutoAttack alone": int((ours & ~theirs).sum()),
        "broken by the audit alone": int((theirs & ~ours).sum()),
        "pgd-50x2": int(pgd.sum()),
        "seconds": {"autoattack": round(seconds + more, 1), "audit": round(audited, 1), "pgd-50x2": round(cheap, 1)},
        "audit/autoattack": round(audited / (seconds + more), 3),
        "checks": {
            each.name: [{True: "alarm", False: "none", None: "no answer"}[each.alarm], round(each.seconds, 1)]
            for each in report.findings
        },
        "attacks": {
            f"{row['attack']}, {row['threat']}": [row["n"], row["successes"], row["spared"], round(row["seconds"], 1)]
            for row in attacks
        },
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
