"""Does the audit tell masked gradients from robustness? It audits networks whose truth is known and counts its errors.

    python benchmarks/audit_calibration.py --vanilla DIR --robust DIR... --shc DIR --robust-shc DIR... --out DIR

The checkpoints come from `shconv train` (--defence fgsm-rs for the robust ones). Three networks are made from the
vanilla one, and one from the SHC network, so that gradients fail and robustness does not grow: their alarms are hits,
silence of a check that is made for the fault a miss. The vanilla and the robust network mask nothing: each alarm is a
false one. What a network should raise (WANTED) was written down before the first run on it. The first robust networks
are calibrated on; with those of further seeds, in the same order, they answer whether SHC adds robustness: each against
its twin, on the same images. A network that is done is skipped: the same command goes on.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
import tyro
from foolbox.attacks import L2PGD, LinfPGD
from foolbox.criteria import Misclassification
from foolbox.models.pytorch import PyTorchModel
from scipy.stats import t  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F

from shconv.attacks import PGD, Standard
from shconv.attacks.budget import Norm
from shconv.audit import run
from shconv.audit.checks import CHECKS
from shconv.audit.setting import budget_seconds, usual_eps_l2
from shconv.audit.subject import AuditedNetwork, Subject, drawing
from shconv.data import evaluation_batches, load_data
from shconv.intervals import wilson
from shconv.routes import shc_layers
from shconv.training import load_checkpoint

EPS = 8 / 255
SCALE, LEVELS, SMALLEST, LOUDER = 1e4, 16, 0.5, 100.0
INDICATORS, BINARISATION = "indicators of attack failure", "binarisation test"
BLIND = {"attack strength", "budget curve", "transfer", "gradients", "loss surface", INDICATORS, BINARISATION}
WANTED: Mapping[str, set[str] | None] = {  # None: nobody knows beforehand
    "vanilla": set(),
    "scaled": BLIND,  # cross-entropy has no gradient; losses on margins do, so searches without gradients find no more
    "quantised": BLIND | {"gradient-free"},  # no loss has one
    "resized": {INDICATORS},  # random outputs; the audit averages them, which is the cure
    "robust": set(),
    "misled": {"gradient routes", "gradients"},  # an SHC network; off the hypernetwork route its gradient is true
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


class Misled(Scaled):
    """An SHC network whose gradient through filter maps is far too large; its outputs are the same."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(deepcopy(network))
        for layer in shc_layers(self).values():
            layer.hyper.register_forward_hook(lambda _, __, M: _Louder.apply(M))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class _Louder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, M: Tensor) -> Tensor:
        return M.view_as(M)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return LOUDER * gradients[0]


class OneDraw(Scaled):
    """A random network that always draws the same numbers: what an attacker sees who fixes the seed."""

    def forward(self, x: Tensor) -> Tensor:
        with drawing(True, "one draw"):
            return self.network(x)


@dataclass(frozen=True, kw_only=True)
class Options:
    vanilla: Path
    robust: tuple[Path, ...]
    shc: Path | None = None
    robust_shc: tuple[Path, ...] = ()
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
    vanilla, *robusts = (load_checkpoint(each)[0].eval() for each in (options.vanilla, *options.robust))
    robust = robusts[0]
    found = {
        "vanilla": Case(vanilla, source=robust),
        "scaled": Case(Scaled(vanilla).eval(), source=vanilla),
        "quantised": Case(Quantised(vanilla).eval(), source=vanilla),
        "resized": Case(Resized(vanilla).eval(), source=vanilla),
        "robust": Case(robust, source=vanilla),
    }
    if options.shc:
        shc = load_checkpoint(options.shc)[0].eval()
        found |= {"misled": Case(Misled(shc).eval(), source=vanilla), "shc": Case(shc, twin=vanilla)}
    for place, (each, twin) in enumerate(zip(options.robust_shc, robusts, strict=bool(options.robust_shc))):
        found[f"robust-shc-{place}" if place else "robust-shc"] = Case(load_checkpoint(each)[0].eval(), twin=twin)
    return {name: case for name, case in found.items() if name in (options.only or found)}


def measure(name: str, case: Case, x: Tensor, y: Tensor, options: Options) -> dict[str, Any]:
    """One audit, and beside it plain PGD on the network as it is, with one draw where it is random, judged alike."""
    seconds = budget_seconds(options.budget) * (1 if case.twin is None else 2)
    torch.manual_seed(0)
    subject = Subject(name, case.network, x, y)
    seen = OneDraw(case.network).eval() if subject.is_random else case.network
    attacked = PGD(EPS, steps=50, step_size=EPS / 4).run(seen, x, y).images
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
        "plain_pgd": int(subject.judge(attacked, y).right.sum()),
        "worst_case": linf["correct"],
        "own_attacks": own,
        "twin": verdict["twin"],
        "findings": {each.name: [each.check, each.alarm, each.text, each.not_run] for each in report.findings},
        "verdict": report.verdict,
    }


@torch.no_grad()
def right(network: nn.Module, x: Tensor, y: Tensor) -> int:
    return int((network(x).argmax(1) == y).sum())


def word(name: str, check: str, alarm: bool | None, not_run: str) -> str:
    """What one check's answer on one network is worth."""
    wanted = WANTED.get(name)
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
    yield "\n| network | norm | accuracy, PGD-50 of the audit | PGD-50 of foolbox |"
    yield "|---" * 4 + "|"
    for name, each in found.items():
        for norm, (ours, theirs) in each.get("foolbox", {}).items():
            yield f"| {name} | {norm} | {percent(ours, each['n'])} | {percent(theirs, each['n'])} |"
    yield from differences({name: each["twin"] for name, each in found.items() if name.startswith("robust-shc")})
    for name, each in found.items():
        yield f"\n{name}\n\n```\n{each['verdict']}\n```"


def beside_foolbox(network: nn.Module, x: Tensor, y: Tensor, norm: Norm) -> list[int]:
    """Images right under PGD of 50 steps from one random start: the audit's, and foolbox's with its own step size."""
    radius = EPS if norm == "linf" else usual_eps_l2(EPS, x[0].numel())
    ours = PGD(radius, norm, steps=50).run(network, x, y).images
    theirs = (LinfPGD if norm == "linf" else L2PGD)(steps=50)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PyTorchModel(network, bounds=(0, 1), device="cpu")
        made = theirs.run(model, x, Misclassification(y), epsilon=radius)
    return [right(network, ours, y), right(network, made, y)]


def differences(twins: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """SHC's worst case less its twin's, by seed of training, and over the seeds."""
    yield "\n| network | images | worst case | twin's | difference (95 %) | McNemar's p | clean difference (95 %) |"
    yield "|---" * 7 + "|"
    for name, twin in twins.items():
        shares = [f"{100 * twin[key]:.1f}" for key in ("accuracy", "twin_accuracy")]
        under, clean = (
            f"{points(each['difference'])} ({' to '.join(map(points, each['interval']))})"
            for each in (twin, twin["clean"])
        )
        yield f"| {name} | {twin['n']} | {' | '.join(shares)} | {under} | {twin['p']:.3f} | {clean} |"
    values = [twin["difference"] for twin in twins.values()]
    if len(values) > 1:
        reach = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
        ends = " to ".join(points(mean(values) + side * reach) for side in (-1, 1))
        yield f"\nMean over {len(values)} seeds: {points(mean(values))} (95 % interval by Student's t: {ends})."


def points(share: float) -> str:
    return f"{100 * share:+.1f}"


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
        if name in ("robust", "robust-shc") and "autoattack" not in found:
            audited = AuditedNetwork(case.network).eval()
            found["autoattack"] = right(audited, Standard(EPS).run(audited, x, y).images, y)
        if name in ("vanilla", "robust") and "foolbox" not in found:
            found["foolbox"] = {norm: beside_foolbox(case.network, x, y, norm) for norm in ("linf", "l2")}
        file.write_text(json.dumps(found, indent=1))
    seeds = [f"robust-shc-{place}" for place in range(1, len(options.robust_shc))]
    files = {name: options.out / f"{name}.json" for name in (*WANTED, *seeds)}
    text = "\n".join(markdown({name: json.loads(each.read_text()) for name, each in files.items() if each.exists()}))
    (options.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
