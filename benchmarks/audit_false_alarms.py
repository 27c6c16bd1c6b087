"""How often does each check of the audit raise an alarm on networks that hide nothing?

    python benchmarks/audit_false_alarms.py --out DIR
    python benchmarks/audit_false_alarms.py --out DIR --data folder:PATH --given vanilla=DIR SHC=DIR ...

Trains small networks of four kinds on the demo data (`--data` takes other data): a vanilla one, one with SHC layers,
and two kinds trained with random-start FGSM, one of them a ResNet whose ReLUs leave many features at 0. All are honest:
their gradients are those of their loss. So every alarm is a false one. Each run has a seed of its own, for the choice
of images and all random numbers of the attacks. Every check runs, with small counts and no time limit, so that a busy
machine changes no answer; for the transfer another kind is the source, for check 11 the twin. AutoAttack is left out:
it raises no alarm. A run that is done is skipped: the same command goes on.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from shconv.audit import run
from shconv.audit.checks import CHECKS, c11_ablations
from shconv.audit.findings import Finding
from shconv.audit.setting import FULL
from shconv.data import ImageData, load_data
from shconv.intervals import wilson
from shconv.training import RECIPES, ModelConfig, create_defence, load_checkpoint, train, with_epochs

KINDS = {  # network and defence
    "vanilla": ("plain10", "none"),
    "SHC": ("plain10_shc", "none"),
    "robust": ("plain10", "fgsm-rs"),
    "robust ResNet": ("resnet18", "fgsm-rs"),
}
EPS, SMALLER = 8 / 255, 4 / 255  # of the vanilla kinds nothing stands at the former


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str = "demo"
    runs: int = 10
    """Of each kind."""
    images: int = 40
    counts: float = 1 / 64
    """Of the checks, as a share of those of an audit without a limit; none falls below what a check needs."""
    epochs: int = 3
    width: int = 8
    given: tuple[str, ...] = ()
    """KIND=DIR: checkpoints instead of networks trained here."""
    out: Path = Path("runs/audit-false-alarms")


def network(kind: str, options: Options) -> torch.nn.Module:
    given = dict(each.split("=", 1) for each in options.given)
    if kind in given:
        return load_checkpoint(Path(given[kind]))[0].eval()
    place = options.out / "networks" / kind.replace(" ", "-")
    if (place / "weights.safetensors").exists():
        return load_checkpoint(place)[0].eval()
    name, defence = KINDS[kind]
    data = load_data(options.data)
    config = ModelConfig(name, len(data.classes), width=options.width, stem="small")
    recipe = with_epochs(RECIPES["short"], options.epochs)
    train(config, data, recipe, place, defence=None if defence == "none" else create_defence(defence), progress=False)
    return load_checkpoint(place)[0].eval()


def audited(kind: str, options: Options) -> Iterator[dict[str, Any]]:
    """Of each run, the alarms by check, and the worst case."""
    places = [options.out / f"{kind.replace(' ', '-')}-{seed}.json" for seed in range(options.runs)]
    if not all(place.exists() for place in places):
        other = "robust" if kind == "vanilla" else "vanilla"
        model, source = network(kind, options), network(other, options)
        data, eps = load_data(options.data, want_train=False), EPS if "robust" in kind else SMALLER
        effort = replace(FULL.scaled(options.counts), standard_images=0)
        for seed, place in enumerate(places):
            if place.exists():
                continue
            asked = {"images": options.images, "seed": seed, "effort": effort, "sources": {other: source}}
            report = run(model, data, eps, budget="full", name="net", progress=False, **asked)
            findings = [each for each in report.findings if each.check != c11_ablations.NUMBER]
            findings += beside_twin(model, source, data, eps, asked) if kind == "SHC" else []
            found = {
                "alarms": {finding.name: finding.alarm for finding in findings},
                "texts": {finding.name: finding.not_run or finding.text for finding in findings},
                "worst_case": report.worst_case["linf"]["accuracy"],
                "seconds": sum(finding.seconds for finding in findings),
            }
            place.write_text(json.dumps(found, indent=1))
    yield from (json.loads(place.read_text()) for place in places)


def beside_twin(
    model: torch.nn.Module, twin: torch.nn.Module, data: ImageData, eps: float, asked: Mapping[str, Any]
) -> Sequence[Finding]:
    """Check 11, which compares an SHC network with its twin, alone: the twin's own worst case is not needed."""
    few = {name: asked[name] for name in ("images", "seed", "effort")}
    return run(model, data, eps, twin, budget="full", checks=[c11_ablations], progress=False, **few).findings


def markdown(found: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield f"| check | {' | '.join(found)} | together | 95 % interval |"
    yield "|---" * (len(found) + 3) + "|"
    for check in sorted(CHECKS[:-1], key=lambda check: check.NUMBER):  # the last is the worst case itself
        cells, alarms, answers = [], 0, 0
        for runs in found.values():
            given = [alarm for each in runs if (alarm := each["alarms"].get(check.NAME)) is not None]
            cells.append(f"{sum(given)} of {len(given)}" if given else "none")
            alarms, answers = alarms + sum(given), answers + len(given)
        low, high = wilson(alarms, answers)
        interval = f"{100 * low:.0f} to {100 * high:.0f} %" if answers else ""
        yield f"| {check.NUMBER} {check.NAME} | {' | '.join(cells)} | {alarms} of {answers} | {interval} |"
    any_alarm = [sum(any(each["alarms"].values()) for each in runs) for runs in found.values()]
    total, count = sum(any_alarm), sum(map(len, found.values()))
    cells = [f"{k} of {len(runs)}" for k, runs in zip(any_alarm, found.values(), strict=True)]
    low, high = wilson(total, count)
    interval = f"{100 * low:.0f} to {100 * high:.0f} %"
    yield f"| any of them | {' | '.join(cells)} | {total} of {count} | {interval} |"
    for kind, runs in found.items():
        for seed, each in enumerate(runs):
            for name, alarm in each["alarms"].items():
                if alarm:
                    yield f"\n{kind}, seed {seed}, {name}: {each['texts'][name]}"


def main(options: Options) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(markdown({kind: list(audited(kind, options)) for kind in KINDS}))
    (options.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
