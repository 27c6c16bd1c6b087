"""Does the audit tell masked gradients from robustness? It audits networks whose truth is known and counts its errors.

    python benchmarks/audit_calibration.py --vanilla DIR --robust DIR --shc DIR --robust-shc DIR --out DIR

The checkpoints come from `shconv train` (--defence fgsm-rs for the robust ones). Three networks are made from the
vanilla one so that gradients fail and robustness does not grow: their alarms are hits, silence of a check that is made
for the fault a miss. The vanilla and the robust network mask nothing: each alarm is a false one. What a network should
raise (WANTED) was written down before the first run. A network that is done is skipped: the same command goes on.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from shconv.audit import run
from shconv.audit.attacks import PGD, Standard
from shconv.audit.checks import CHECKS
from shconv.audit.setting import budget_seconds
from shconv.audit.subject import AuditedNetwork
from shconv.data import evaluation_batches, load_data
from shconv.intervals import wilson
from shconv.training import load_checkpoint

EPS = 8 / 255
SCALE, LEVELS, SMALLEST = 1e4, 16, 0.8
INDICATORS, BINARISATION = "indicators of attack failure", "binarisation test"
BLIND = {"attack strength", "budget curve", "transfer", "gradients", "loss surface", INDICATORS, BINARISATION}
WANTED: Mapping[str, set[str] | None] = {  # None: nobody knows beforehand
    "vanilla": set(),
    "scaled": BLIND,  # cross-entropy has no gradient; losses on margins do, so searches without gradients find no more
    "quantised": BLIND | {"gradient-free"},  # no loss has one
    "resized": {INDICATORS},  # random outputs; the audit averages them, which is the cure
    "robust": set(),
    "shc": None,
    "robust-shc": None,
}


class Scaled(nn.Module):
    """Logits so far apart that float32's softmax is 0 or 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Callable[[Tensor], Tensor] = network

    def forward(self, x: Tensor) -> Tensor:
        return SCALE * self.network(x)


class Quantised(Scaled):
    """Sees a few grey levels: the gradient of rounding is 0 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x * (LEVELS - 1)).round() / (LEVELS - 1))


class Resized(Scaled):
    """Shrinks the images by a random factor and puts them somewhere on black (Xie et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        size = int(torch.randint(int(SMALLEST * side), side + 1, ()))
        left, top = (int(torch.randint(0, side - size + 1, ())) for _ in range(2))
        small = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        return self.network(F.pad(small, (left, side - size - left, top, side - size - top)))


@dataclass(frozen=True, kw_only=True)
class Options:
    vanilla: Path
    robust: Path
    shc: Path | None = None
    robust_shc: Path | None = None
    data: str = "demo"
    images: int = 60
    budget: str = "90s"
    """For each network; an audit beside a twin gets it twice."""
    out: Path = Path("runs/audit-calibration")
    only: tuple[str, ...] = ()
    """Some of the networks by name, so that several processes can share the work."""


@dataclass(frozen=True)
class Case:
    network: nn.Module
    twin: nn.Module | None = None
    source: nn.Module | None = None  # for transfer


def cases(options: Options) -> dict[str, Case]:
    vanilla, robust = (load_checkpoint(each)[0].eval() for each in (options.vanilla, options.robust))
    found = {
        "vanilla": Case(vanilla, source=robust),
        "scaled": Case(Scaled(vanilla).eval(), source=vanilla),
        "quantised": Case(Quantised(vanilla).eval(), source=vanilla),
        "resized": Case(Resized(vanilla).eval(), source=vanilla),
        "robust": Case(robust, source=vanilla),
    }
    if options.shc:
        found["shc"] = Case(load_checkpoint(options.shc)[0].eval(), twin=vanilla)
    if options.robust_shc:
        found["robust-shc"] = Case(load_checkpoint(options.robust_shc)[0].eval(), twin=robust)
    return {name: case for name, case in found.items() if name in (options.only or found)}


def measure(name: str, case: Case, x: Tensor, y: Tensor, options: Options) -> dict[str, Any]:
    """One audit, and beside it what an evaluation without care would say: plain PGD, taken at its word."""
    seconds = budget_seconds(options.budget) * (1 if case.twin is None else 2)
    torch.manual_seed(0)
    attacked = PGD(EPS, steps=50, step_size=EPS / 4).run(case.network, x, y).images
    sources = {"other": case.source} if case.source else None
    where, budget = options.out / name, f"{seconds:g}s"
    report = run(case.network, (x, y), EPS, case.twin, sources=sources, budget=budget, folder=where, name=name)
    verdict = next(row for row in report.rows if row["kind"] == "verdict" and row["model"] == name)
    linf = verdict["worst_case"]["linf"]
    # an image that AutoAttack broke first might have fallen to a later attack: an upper bound
    own = linf["correct"] + sum(k for label, k in linf["broken_by"].items() if "AutoAttack" in label)
    return {
        "n": len(y),
        "budget": seconds,
        "clean": verdict["clean"]["correct"],
        "plain_pgd": right(case.network, attacked, y),
        "worst_case": linf["correct"],
        "own_attacks": own,
        "findings": {each.name: [each.check, each.alarm, each.text, each.not_run] for each in report.findings},
        "verdict": report.verdict,
    }


@torch.no_grad()
def right(network: nn.Module, x: Tensor, y: Tensor) -> int:
    return int((network(x).argmax(1) == y).sum())


def word(name: str, check: str, alarm: bool | None, not_run: str) -> str:
    """What one check's answer on one network is worth."""
    wanted = WANTED[name]
    if alarm is None:
        given = "not run" if not_run.startswith("left ") else "does not apply" if not_run else "cut short"
        return f"**{given}**" if wanted and check in wanted else given
    if wanted is None:
        return "alarm" if alarm else "no alarm"
    if alarm:
        return "**hit**" if check in wanted else "alarm, right" if wanted else "**FALSE ALARM**"
    return "**MISS**" if check in wanted else "quiet"


def percent(correct: int, n: int) -> str:
    low, high = wilson(correct, n)
    return f"{100 * correct / n:.1f} ({100 * low:.0f} to {100 * high:.0f})"


def markdown(found: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    yield f"| check | {' | '.join(found)} |"
    yield "|---" * (len(found) + 1) + "|"
    for check in sorted(CHECKS[:-1], key=lambda check: check.NUMBER):  # the last is the worst case itself
        answers = {name: each["findings"][check.NAME] for name, each in found.items()}
        said = [word(name, check.NAME, alarm, why) for name, (_, alarm, _, why) in answers.items()]
        yield f"| {check.NUMBER} {check.NAME} | {' | '.join(said)} |"
    yield "\n| network | images | seconds | clean | plain PGD-50 | worst case | without AutoAttack | AutoAttack alone |"
    yield "|---" * 8 + "|"
    for name, each in found.items():
        keys = ("clean", "plain_pgd", "worst_case", "own_attacks", "autoattack")
        said = [percent(each[key], each["n"]) if key in each else "" for key in keys]
        yield f"| {name} | {each['n']} | {each['budget']:g} | {' | '.join(said)} |"
    for name, each in found.items():
        yield f"\n{name}\n\n```\n{each['verdict']}\n```"


def main(options: Options) -> None:
    split = load_data(options.data, want_train=False).test
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[: options.images]).tolist()
    batch = next(iter(evaluation_batches(split, chosen, options.images)))
    x, y = batch.images.float().div(255), batch.labels
    options.out.mkdir(parents=True, exist_ok=True)
    for name, case in cases(options).items():
        file = options.out / f"{name}.json"
        found = json.loads(file.read_text()) if file.exists() else measure(name, case, x, y, options)
        file.write_text(json.dumps(found, indent=1))
        if name.startswith("robust") and "autoattack" not in found:
            audited = AuditedNetwork(case.network).eval()
            found["autoattack"] = right(audited, Standard(EPS).run(audited, x, y).images, y)
            file.write_text(json.dumps(found, indent=1))
    files = {name: options.out / f"{name}.json" for name in WANTED}
    text = "\n".join(markdown({name: json.loads(each.read_text()) for name, each in files.items() if each.exists()}))
    (options.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
