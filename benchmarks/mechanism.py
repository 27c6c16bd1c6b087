"""When does a hypernetwork mask the gradient? Some eighty small trainings, a factor at a time from one centre.

    python benchmarks/mechanism.py data FILE.npz --cifar10 FOLDER --imagenette FOLDER
    python benchmarks/mechanism.py run OUT --data FILE.npz --device cuda --workers 12 --seconds 180
    python benchmarks/mechanism.py analyse OUT

`run` does the most important configurations first, several at a time, each a line of OUT/runs.jsonl; the same command
goes on where it was stopped. Hypotheses and analysis were written down beforehand: docs/mechanism.md.
"""

import argparse
import hashlib
import json
import multiprocessing
import queue
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

if "--device" in sys.argv and sys.argv[sys.argv.index("--device") + 1].startswith("cuda"):
    sys.modules["triton"] = None  # type: ignore[assignment]  # plain torch serves: nothing is compiled

import numpy as np
import torch
from mechanism_training import Config, Data, NoTimeError, measured, png, small, unpacked

CENTRE = Config()
LEVELS: dict[str, dict[str, Any]] = {  # by factor and level, what differs from the centre; the most promising first
    "activation: temperature 4": {"temperature": 4.0},
    "rate of theta: x 10": {"hyper_lr": 10.0},
    "decay of theta: 0": {"hyper_decay": 0.0},
    "epochs: 90": {"epochs": 90},
    "classes: 200 photographs": {"data": "photos", "classes": 200},
    "depth: ResNet-18": {"model": "resnet18"},
    "data: patches": {"data": "patches", "classes": 7, "images": 3000},
    "batch norm: none": {"batch_norm": False, "lr": 0.02},
    "decay: 0": {"decay": 0.0},
    "layers: first": {"layers": "first"},
    "layers: last": {"layers": "last"},
    "statistics: std": {"statistics": "std"},
    "statistics: mean": {"statistics": "mean"},
    "activation: softplus": {"activation": "softplus"},
    "start: identity": {"start": "identity"},
    "width: 32": {"width": 32},
    "width: 8": {"width": 8},
    "epochs: 5": {"epochs": 5},
    "classes: 10 photographs": {"data": "photos", "classes": 10},
    "classes: 20": {"data": "both", "classes": 20},
    "classes: 2": {"classes": 2},
    "resolution: 64": {"data": "imagenette", "size": 64, "images": 2000},
    "resolution: 32": {"data": "imagenette", "size": 32, "images": 2000},
    "resolution: 64, large stem": {"data": "imagenette", "size": 64, "images": 2000, "stem": "imagenet"},
    "rate of theta: x 0.1": {"hyper_lr": 0.1},
    "decay of theta: x 10": {"hyper_decay": 5e-3},
    "label smoothing: 0.1": {"smoothing": 0.1},
    "precision: bfloat16": {"precision": "bf16"},
    "layers: none": {"layers": "none"},
}
TOGETHER: dict[str, dict[str, Any]] = {  # promising ones, chosen before any run
    "hot and free": {"temperature": 4.0, "hyper_decay": 0.0},
    "hot, fast and free": {"temperature": 4.0, "hyper_lr": 10.0, "hyper_decay": 0.0},
    "very hot": {"temperature": 16.0},
    "hot, deep, long": {"temperature": 4.0, "model": "resnet18", "epochs": 40},
}
HELD_OUT: dict[str, dict[str, Any]] = {  # to test an explanation that they were not used to find
    "held out 1": {"temperature": 8.0, "data": "photos", "classes": 50},
    "held out 2": {"hyper_lr": 5.0, "width": 24, "statistics": "std"},
    "held out 3": {"model": "resnet18", "hyper_decay": 0.0, "epochs": 10},
    "held out 4": {"temperature": 2.0, "layers": "first", "hyper_lr": 10.0},
    "held out 5": {"temperature": 8.0, "data": "patches", "classes": 7, "images": 3000, "epochs": 10},
    "held out 6": {"activation": "softplus", "hyper_lr": 10.0, "smoothing": 0.1},
    "held out 7": {"temperature": 4.0, "data": "imagenette", "images": 2000, "width": 8},
    "held out 8": {"start": "identity", "hyper_lr": 3.0, "decay": 0.0},
}
RELATIVES: dict[str, dict[str, Any]] = {  # no part of the plan: do the attentions of other layers mask?
    "relative: SE": {"model": "plain10_se"},
    "relative: CondConv": {"model": "plain10_condconv"},
    "relative: ODConv, spatial": {"model": "plain10_odconv_spatial"},
}
AFTERWARDS: dict[str, dict[str, Any]] = {  # no part of the plan: asked once its first results had been seen
    "afterwards: temperature 64": {"temperature": 64.0},
    "afterwards: temperature 256": {"temperature": 256.0},
}
MOST = 80
Named = tuple[str, Config]


def first_round() -> list[Named]:
    """Centre from three seeds, then every level, combination and held-out configuration from one."""
    centres = [("centre", replace(CENTRE, seed=seed)) for seed in range(3)]
    others = {**LEVELS, **TOGETHER, **HELD_OUT}
    names = [*list(LEVELS)[:8], *TOGETHER, *list(LEVELS)[8:20], *HELD_OUT, *list(LEVELS)[20:]]
    return [*centres, *((name, replace(CENTRE, **others[name])) for name in names)]


def relatives() -> list[Named]:
    return [(name, replace(CENTRE, **level, seed=seed)) for seed in range(3) for name, level in RELATIVES.items()]


def afterwards() -> list[Named]:
    return [(name, replace(CENTRE, **level)) for name, level in AFTERWARDS.items()]


def second_round(records: list[dict[str, Any]]) -> list[Named]:
    """Further seeds for the levels and combinations whose gap is furthest from the centre's, until there are MOST."""
    gaps = {each["name"]: each.get("gap") for each in records if each["config"]["seed"] == 0}
    centre = gaps.get("centre") or 0.0
    ranked = sorted(
        (name for name in {**LEVELS, **TOGETHER} if gaps.get(name) is not None),
        key=lambda name: -abs(float(gaps[name] or 0.0) - centre),
    )
    ranked = ["layers: none", *ranked]
    room = MOST - len(first_round())
    more = [(name, replace(CENTRE, **{**LEVELS, **TOGETHER}[name], seed=seed)) for name in ranked for seed in (1, 2)]
    return more[:room]


def key(name: str, config: Config) -> str:
    """Of a configuration, by what differs from Config's own values: a field more is no other training."""
    changed = {field: value for field, value in asdict(config).items() if value != getattr(CENTRE, field)}
    return hashlib.sha256(json.dumps([name, changed], sort_keys=True).encode()).hexdigest()[:16]


def make_data(options: argparse.Namespace) -> None:
    """CIFAR-10 and Imagenette at 64 px from folders of classes, and the patches of photographs that shconv has."""
    from PIL import Image

    from shconv.data.demo import load_demo

    held: dict[str, Any] = {}
    sources = {"cifar10": (options.cifar10, 6000, 500), "imagenette": (options.imagenette, 2000, 500)}
    for name, (root, *counts) in sources.items():
        for part, n in zip(("train", "test"), counts, strict=True):
            folders = sorted(each for each in (root / part).iterdir() if each.is_dir())
            files = [(file, label) for label, folder in enumerate(folders) for file in sorted(folder.iterdir())]
            chosen = np.random.default_rng(0).permutation(len(files))[:n]
            images = [np.asarray(Image.open(files[place][0]).convert("RGB")) for place in chosen]
            held[f"x_{name}_{part}"] = png(np.stack(images))
            held[f"y_{name}_{part}"] = np.array([files[place][1] for place in chosen], np.uint8)
    for part, split, n in zip(("train", "test"), load_demo(), (3000, 500), strict=True):
        chosen = np.random.default_rng(0).permutation(len(split))[:n]
        held[f"x_patches_{part}"] = png(np.stack([split[int(at)][0].permute(1, 2, 0).numpy() for at in chosen]))
        held[f"y_patches_{part}"] = split.labels[torch.from_numpy(chosen)].numpy().astype(np.uint8)
    np.savez(options.file, **held)
    print(f"{options.file}: {options.file.stat().st_size / 2**20:.1f} MiB")


def work(jobs: Any, results: Any, data: Data, device: str, deadline: float | None) -> None:
    """One process: trainings until there is no more."""
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    for name, config in iter(jobs.get, None):
        try:
            record = measured(config, data, torch.device(device), deadline)
            results.put((name, config, record))
        except NoTimeError:
            results.put((name, config, None))
        except Exception as error:  # one that fails is no reason to lose the others
            results.put((name, config, {"failed": f"{type(error).__name__}: {error}"[:300]}))


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a study so far, without those that failed."""
    path = folder / "runs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = [line for line in lines if "failed" not in line]
    return [{**line, "key": key(line["name"], Config(**line["config"]))} for line in known]


def run(options: argparse.Namespace) -> None:
    began = time.monotonic()
    deadline = None if options.seconds is None else began + options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    data = unpacked(options.data)
    assert not torch.cuda.is_initialized()  # a forked process could not use it
    context = multiprocessing.get_context("spawn" if options.spawn else "fork")  # forked, torch is loaded once
    jobs, results = context.Queue(), context.Queue()
    workers = [
        context.Process(target=work, args=(jobs, results, data, options.device, deadline), daemon=True)
        for _ in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    asked: set[str] = set()
    under_way = tried = 0
    shrink = small if options.scale == "small" else lambda config: config
    while True:
        records = read(options.out)
        done = {record["key"] for record in records}
        while under_way < options.workers and not (deadline is not None and time.monotonic() > deadline):
            rounds = [*first_round(), *relatives(), *second_round(records), *afterwards()]
            if options.only:
                rounds = [(n, c) for n, c in rounds if n in options.only]
            open_ones = [(n, c) for n, c in ((n, shrink(c)) for n, c in rounds) if key(n, c) not in done | asked]
            if not open_ones or (options.most is not None and tried >= options.most):
                break
            name, config = open_ones[0]
            asked.add(key(name, config))
            jobs.put((name, config))
            under_way += 1
            tried += 1
        if not under_way:
            break
        try:
            name, config, record = results.get(timeout=None if deadline is None else deadline + 5 - time.monotonic())
        except (queue.Empty, ValueError):
            break
        under_way -= 1
        if record is None:
            print(f"{name}, seed {config.seed}: no time left", flush=True)
            continue
        line = {"key": key(name, config), "name": name, "at": round(time.monotonic() - began, 1), **record}
        with (options.out / "runs.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        said = record.get("failed") or (
            f"clean {record['clean']:.1%}, gap {record.get('gap', 0):+.2f}, {record['trained']:.1f} + "
            f"{record['seconds'] - record['trained']:.1f} s"
        )
        print(f"{line['at']:6.1f} s  {name}, seed {config.seed}: {said}", flush=True)
    for worker in workers:
        worker.terminate()
    beside = len(relatives()) + len(afterwards())
    print(f"{len(read(options.out))} trainings are done; the plan has {MOST}, and there are {beside} beside it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    data = commands.add_parser("data", help="pack the images into one file")
    data.add_argument("file", type=Path)
    data.add_argument("--cifar10", type=Path, required=True, help="a folder with train/CLASS and test/CLASS")
    data.add_argument("--imagenette", type=Path, required=True, help="the same, of 64 x 64 pixels")
    data.set_defaults(run=make_data)
    study = commands.add_parser("run", help="train and measure, the most important first")
    study.add_argument("out", type=Path)
    study.add_argument("--data", required=True)
    study.add_argument("--device", default="cpu")
    study.add_argument("--workers", type=int, default=1)
    study.add_argument("--seconds", type=float, help="stop in time; by default when all is done")
    study.add_argument("--only", nargs="+", metavar="NAME", help="some of the configurations, by name")
    study.add_argument("--most", type=int, help="trainings in this call")
    study.add_argument("--spawn", action="store_true", help="processes that start afresh, where forked ones fail")
    study.add_argument("--scale", choices=("full", "small"), help="small by default on the CPU")
    study.set_defaults(run=run)
    analysis = commands.add_parser("analyse", help="tables and figures of docs/mechanism.md")
    analysis.add_argument("out", type=Path)
    analysis.add_argument("--figures", type=Path, help="a folder; by default OUT")
    analysis.set_defaults(run=analyse)
    options = parser.parse_args()
    if options.run is run and options.scale is None:
        options.scale = "full" if options.device.startswith("cuda") else "small"
    options.run(options)


def analyse(options: argparse.Namespace) -> None:
    from mechanism_analysis import report

    report(read(options.out), options.figures or options.out)


if __name__ == "__main__":
    main()
