"""How time and memory of an evaluation grow with the number of images, of processes, and with their size.

    python benchmarks/growth.py --images 64 256 1024 --processes 1 2 --sizes 32 --out growth

Trains a slim pair on the demo data once (into --out), then runs Tables 1, 2 and 4 in processes of their own, one thread
each, and prints a Markdown table. Seconds are those of the tables alone, without starting Python, reading the data and
drawing the report: on the clock, and of the processor in the process that needed most, which is what tells on a machine
that others use too. Memory is the most that any of the processes came to hold.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

NETWORKS = ("plain10", "plain10_shc")


def train_pair(out: Path) -> None:
    from shconv.data import load_data
    from shconv.training import RECIPES, ModelConfig, train, with_epochs

    data = load_data("demo")
    recipe = replace(with_epochs(RECIPES["short"], 2), precision="float32")
    for name in NETWORKS:
        train(ModelConfig(name, len(data.classes), stem="small", width=8), data, recipe, out / name)


def evaluate(out: Path, images: int, size: int) -> None:
    """In one of the processes: run, and print what it took."""
    from accelerate import PartialState

    from shconv.commands import evaluate

    evaluate.conclude = lambda folder, progress: None
    took: dict[str, float] = {}
    tables = evaluate.run_experiments

    def timed(*arguments: object) -> None:
        clock, processor = time.perf_counter(), time.process_time()
        tables(*arguments)  # type: ignore[arg-type]
        took.update(seconds=time.perf_counter() - clock, processor=time.process_time() - processor)

    evaluate.run_experiments = timed
    evaluate.Evaluate(
        checkpoint=out / NETWORKS[1],
        twin=out / NETWORKS[0],
        tables=(1, 2, 4),
        table1_images=images,
        table2_images=images // 8,
        image_size=size,
        batch_size=32,
        out=out / "run",
    ).run()
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    held = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print("\n" + json.dumps({"rank": PartialState().process_index, "held": held, **took}), flush=True)


def measured(out: Path, images: int, processes: int, size: int) -> tuple[float, float, float, int]:
    """Seconds on the clock and of the processor, MiB, and how many images Table 2 found."""
    shutil.rmtree(out / "run", ignore_errors=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, "--work", str(out), str(images), str(size)]
    setting = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "ACCELERATE_USE_CPU": "1"}
    ended = subprocess.run(command, env=os.environ | setting, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stderr)
    told = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"rank"')]
    assert len(told) == processes
    rows = [json.loads(line) for line in (out / "run" / "rows.jsonl").read_text().splitlines()]
    found = {row["n"] for row in rows if row["experiment"] == "table2"}.pop()
    seconds, processor, held = (max(each[name] for each in told) for name in ("seconds", "processor", "held"))
    return seconds, processor, held / 1024, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32])
    parser.add_argument("--out", type=Path, default=Path("growth"))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        evaluate(Path(options.work[0]), int(options.work[1]), int(options.work[2]))
        return
    train_pair(options.out)
    print(
        "| Table 1's images | Table 2's | pixels a side | processes | seconds | processor seconds of one | MiB of one |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in options.sizes:
        for images in options.images:
            for processes in options.processes:
                seconds, processor, held, found = measured(options.out, images, processes, size)
                numbers = f"{seconds:.1f} | {processor:.1f} | {held:.0f}"
                print(f"| {images:,} | {found:,} | {size} | {processes} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
