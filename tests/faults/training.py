"""The fault matrix of training: each function breaks a run in one way and returns what was seen.
Its docstring is the promise. It raises Broken where the promise is not kept."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench import EPOCHS, STEPS, TORCHRUN, Bench, Run, expect, fill, small_disk
from shconv.training.state import load_state

KILLS = 20
SHARED_MEMORY = "64k"
_MOUNT = f'mount -t tmpfs -o size={SHARED_MEMORY} none /dev/shm && exec "$@"'
SMALL_SHARED_MEMORY = (  # a launcher that gives the command a /dev/shm of its own
    "-c",
    "import os, sys; "
    f"os.execvp('unshare', ['unshare', '-m', 'sh', '-c', {_MOUNT!r}, 'sh', sys.executable, *sys.argv[1:]])",
)
SAVING = ("--save-steps", "3", "--save-minutes", "0.02")


def stored_steps(out: Path) -> int:
    """Steps that the newest whole state holds; 0 where none was stored."""
    state, _ = load_state(out)
    return 0 if state is None else state["position"]["epoch"] * STEPS // EPOCHS + state["position"]["steps"]


def kill_at_random_moments(bench: Bench, out: Path) -> str:
    """The same command continues; weights and log are bit for bit those of an undisturbed run."""
    rng = random.Random(0)
    wanted, steps = bench.undisturbed(), []
    runs, kills = 0, 0
    while kills < KILLS:
        folder = out / str(runs)
        workers = ("--workers", "2") if runs % 2 else ()
        while kills < KILLS and not (folder / "config.json").exists():
            with bench.started(folder, *workers, *SAVING) as run:
                time.sleep(rng.uniform(0, 1.5))
                if not run.ended:
                    run.kill()
                    kills += 1
                    steps.append(stored_steps(folder))
        bench.finish(folder, *workers, *SAVING)
        expect(bench.result(folder) == wanted, f"run {runs}: the weights or the log differ")
        runs += 1
    return f"{kills} kills in {runs} runs, after steps {', '.join(map(str, steps))} of {STEPS}; all bit for bit"


def sigterm(bench: Bench, out: Path) -> str:
    """The step ends, the state is stored, exit code 75; the same command ends bit for bit as an undisturbed run."""
    return _asked_to_stop(bench, out, 0.5, lambda run: run.kill(signal.SIGTERM), 75)


def sigterm_to_the_group(bench: Bench, out: Path) -> str:
    """As a scheduler sends it, to workers too: exit code 75, nothing lost; the same command ends bit for bit."""

    def to_all(run: Run) -> int:
        os.killpg(run.process.pid, signal.SIGTERM)
        return run.end()

    return _asked_to_stop(bench, out, 1, to_all, 75, "--workers", "2")


def control_c(bench: Bench, out: Path) -> str:
    """The step ends, the state is stored, exit code 130; the same command ends bit for bit as an undisturbed run."""
    return _asked_to_stop(bench, out, 0.5, lambda run: run.kill(signal.SIGINT), 130)


def _asked_to_stop(
    bench: Bench, out: Path, seconds: float, ask: Callable[[Run], int], wanted: int, *options: str
) -> str:
    """A run that is asked to after so many seconds, and given again."""
    with bench.started(out, *options, "--save-minutes", "60") as run:
        time.sleep(seconds)
        code = ask(run)
    expect(code == wanted, f"exit code {code}: {run.text[-300:]}")
    steps = stored_steps(out)
    bench.finish(out, *options)
    bench.expect_same(out)
    return f"exit code {wanted} after step {steps}; bit for bit"


def _killed(bench: Bench, out: Path) -> None:
    """A run killed with two states stored."""
    with bench.started(out, *SAVING) as run:
        run.await_file(out / "state.previous.pt")
        run.kill()


def truncated_state(bench: Bench, out: Path) -> str:
    """It is detected and reported, and the previous state is used; bit for bit."""
    _killed(bench, out)
    content = (out / "state.pt").read_bytes()
    (out / "state.pt").write_bytes(content[: len(content) * 2 // 3])
    text = bench.finish(out)
    said = "warning: state.pt is damaged (its checksum differs): continuing from state.previous.pt"
    expect(said in text, f"not said: {text[:500]}")
    bench.expect_same(out)
    return f'"{said} ..."; bit for bit'


def deleted_state(bench: Bench, out: Path) -> str:
    """The previous state is used and this is reported; bit for bit. Both gone: from the start, bit for bit."""
    _killed(bench, out)
    shutil.copytree(out, out.with_name(f"{out.name}-both"))
    (out / "state.pt").unlink()
    text = bench.finish(out)
    expect("warning: state.pt is missing: continuing from state.previous.pt" in text, f"not said: {text[:500]}")
    bench.expect_same(out)
    out = out.with_name(f"{out.name}-both")
    for path in out.glob("state*"):
        path.unlink()
    bench.finish(out)
    bench.expect_same(out)
    return "said; bit for bit, both times"


def full_disk(bench: Bench, out: Path) -> str:
    """Exit code 1 and a message that names the file; the last state is complete; with free space, bit for bit."""
    with small_disk(out, "4m") as disk:
        run_folder, filler = out / "run", out / "filler"
        with bench.started(run_folder, *SAVING) as run:
            run.await_file(run_folder / "state.previous.pt")
            fill(filler)
            code = run.end()
        said = next((line for line in run.text.splitlines() if "the disk is full" in line), "")
        expect(code == 1 and "run/" in said, f"exit code {code}: {run.text[-300:]}")
        state, problem = load_state(run_folder)
        expect(state is not None and problem is None, f"the state is not whole: {problem}")
        filler.unlink()
        bench.finish(run_folder)
        bench.expect_same(run_folder)
    file_name = said.partition("run/")[2].partition(";")[0]
    return f'{disk}: exit code 1, "the disk is full: .../{file_name}"; last state whole; bit for bit'


def corrupt_image(bench: Bench, out: Path) -> str:
    """It is named, no step is lost; with the image restored, the same command ends bit for bit."""
    victim = sorted((bench.images / "train").rglob("*.png"))[7]
    return _image_trouble(bench, out, victim, lambda: victim.write_bytes(victim.read_bytes()[:200]))


def deleted_image(bench: Bench, out: Path) -> str:
    """It is named, no step is lost; with the image restored, the same command ends bit for bit."""
    victim = sorted((bench.images / "train").rglob("*.png"))[70]
    return _image_trouble(bench, out, victim, victim.unlink)


def _image_trouble(bench: Bench, out: Path, victim: Path, spoil: Callable[[], object]) -> str:
    content = victim.read_bytes()
    try:
        with bench.started(out, "--workers", "1", "--save-minutes", "60") as run:
            spoil()
            code = run.end()
    finally:
        victim.write_bytes(content)
    expect(code == 2 and victim.name in run.text, f"exit code {code}: {run.text[-300:]}")
    steps = stored_steps(out)
    bench.finish(out, "--workers", "1")
    bench.expect_same(out)
    return f"exit code 2, {victim.name} named, stored after step {steps}; bit for bit"


def two_runs_in_one_folder(bench: Bench, out: Path) -> str:
    """The second is refused and says why; the first goes on, bit for bit."""
    with bench.started(out) as first:
        second = bench.start(out)
        code = second.end()
        expect(code == 2 and "is in use by another process" in second.text, f"exit code {code}: {second.text[-300:]}")
        expect(first.end() == 0, f"the first failed: {first.text[-300:]}")
    bench.expect_same(out)
    return 'second: exit code 2, "is in use by another process"; first: bit for bit'


def a_worker_dies(bench: Bench, out: Path) -> str:
    """An error that names it; only steps since the last state are lost; the same command ends bit for bit."""
    with bench.started(out, "--workers", "2", *SAVING) as run:
        run.await_file(out / "state.pt")
        run.await_that(lambda: bool(run.children()), "a worker")
        run.children()[0].kill()
        code = run.end()
    said = next((line for line in run.text.splitlines() if "worker (pid" in line), "")
    expect(code == 75 and "the same command continues" in said, f"exit code {code}: {run.text[-300:]}")
    steps = stored_steps(out)
    bench.finish(out, "--workers", "2")
    bench.expect_same(out)
    return f'exit code 75, "{said.removeprefix("shconv: ").partition(":")[0]}", stored after step {steps}; bit for bit'


def small_shared_memory(bench: Bench, out: Path) -> str:
    """An error that names it and says what to do, exit code 75; with space, the same command ends bit for bit."""
    run = bench.start(out, "--workers", "2", *SAVING, launcher=SMALL_SHARED_MEMORY)
    code = run.end()
    said = next((line for line in run.text.splitlines() if "/dev/shm" in line), "")
    expect(code == 75 and "--workers 0" in said, f"exit code {code}: {run.text[-300:]}")
    bench.finish(out, "--workers", "2")
    bench.expect_same(out)
    what = said.removeprefix("shconv: ").partition(", ")[0]
    return f'a tmpfs of {SHARED_MEMORY}: exit code 75, "{what} ..."; bit for bit'


def a_worker_freezes(bench: Bench, out: Path) -> str:
    """The training waits; SIGTERM ends this: the state is stored, exit code 75, no worker left; bit for bit."""
    with bench.started(out, "--workers", "2", "--save-minutes", "60") as run:
        run.await_that(lambda: bool(run.children()), "a worker")
        frozen = run.children()
        for each in frozen:
            each.suspend()
        time.sleep(2)
        expect(not run.ended, f"ended: {run.text[-300:]}")
        began = time.monotonic()
        code = run.kill(signal.SIGTERM)
        seconds = time.monotonic() - began
    expect(code == 75 and "stopped while waiting for images" in run.text, f"exit code {code}: {run.text[-300:]}")
    expect(not any(each.is_running() for each in frozen), "a worker is left")
    steps = stored_steps(out)
    bench.finish(out, "--workers", "2")
    bench.expect_same(out)
    return f"exit code 75 after {seconds:.1f} s, stored after step {steps}; bit for bit"


def divergence(bench: Bench, out: Path) -> str:
    """Exit code 1; epoch, step and images are in diverged.json, and no weights are stored as a result."""
    run = bench.start(out, "--learning-rate", "1e6")
    code = run.end()
    expect(code == 1 and (out / "diverged.json").exists(), f"exit code {code}: {run.text[-300:]}")
    about = json.loads((out / "diverged.json").read_text())
    expect(len(about["index"]) == 12 and not (out / "model.safetensors").exists(), str(about))
    return f"exit code 1 at epoch {about['epoch']}, step {about['step']}, loss {float(about['loss']):.3g}, 12 indices"


def one_of_two_processes_dies(bench: Bench, out: Path) -> str:
    """Both end; the same command continues after the last state, bit for bit as two undisturbed processes."""
    with bench.started(out, *SAVING, launcher=TORCHRUN) as run:
        run.await_file(out / "state.previous.pt")
        _training(run)[-1].kill()
        began = time.monotonic()
        code = run.end()
    expect(code != 0, "exit code 0")
    steps, seconds = stored_steps(out), time.monotonic() - began
    bench.finish(out, launcher=TORCHRUN)
    bench.expect_same(out, launcher=TORCHRUN)
    return f"ended after {seconds:.0f} s with torchrun's exit code {code}, stored after step {steps}; bit for bit"


def torchrun_is_told_to_stop(bench: Bench, out: Path) -> str:
    """Both processes store one state at the same step; the same command ends bit for bit as an undisturbed run."""
    with bench.started(out, "--save-minutes", "60", launcher=TORCHRUN) as run:
        time.sleep(0.5)
        code = run.kill(signal.SIGTERM)
    steps = stored_steps(out)
    expect(steps > 0, f"nothing stored: {run.text[-500:]}")
    bench.finish(out, launcher=TORCHRUN)
    bench.expect_same(out, launcher=TORCHRUN)
    return f"torchrun's exit code {code}, stored after step {steps}; bit for bit"


def a_node_vanishes(bench: Bench, out: Path) -> str:
    """The other ends; the training continues with one process, and its curve is the same to 1e-3."""
    port = 20_000 + os.getpid() % 10_000
    common = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1")
    nodes = [(*common, f"--master-port={port}", f"--node-rank={rank}") for rank in (0, 1)]
    options = (*SAVING, "--sync-batch-norm", "--learning-rate", "0.001")  # at 0.05 rounding alone grows to 4 %
    other = bench.start(out, *options, launcher=nodes[1])
    try:
        with bench.started(out, *options, launcher=nodes[0]) as run:
            run.await_file(out / "state.previous.pt")
            for each in [*other.children(), other.process]:
                each.kill()
            code = run.end()
    finally:
        if not other.ended:
            other.process.kill()
    expect(code != 0, "exit code 0")
    steps = stored_steps(out)
    text = bench.finish(out, *options)
    expect("processes 2 -> 1" in text, f"not said: {text[:500]}")
    alone = bench.root / "alone"
    bench.finish(alone, "--learning-rate", "0.001")
    losses = [
        [json.loads(line)["loss"] for line in path.read_text().splitlines()]
        for path in (out / "log.jsonl", alone / "log.jsonl")
    ]
    apart = max(abs(a / b - 1) for a, b in zip(*losses, strict=True))
    expect(apart < 1e-3, f"losses differ by {apart:.1e}")
    return f"the other ended with code {code}; one process went on after step {steps}; losses equal to {apart:.0e}"


def _training(run: Run) -> list[psutil.Process]:
    """The training processes below torchrun, by rank."""
    found = [each for each in run.children() if "torch.distributed.run" not in " ".join(each.cmdline())]
    expect(len(found) == 2, f"{len(found)} training processes")
    return sorted(found, key=lambda each: int(each.environ()["RANK"]))


FAULTS: dict[str, Callable[[Bench, Path], str]] = {
    f"kill -9 at {KILLS} random moments": kill_at_random_moments,
    "SIGTERM": sigterm,
    "SIGTERM to the whole group, 2 workers": sigterm_to_the_group,
    "SIGINT (Ctrl-C)": control_c,
    "truncated state": truncated_state,
    "deleted state": deleted_state,
    "full disk": full_disk,
    "image corrupted in mid-run": corrupt_image,
    "image deleted in mid-run": deleted_image,
    "two runs on one folder": two_runs_in_one_folder,
    "a worker dies (kill -9)": a_worker_dies,
    f"a /dev/shm of {SHARED_MEMORY}, 2 workers": small_shared_memory,
    "a worker freezes (SIGSTOP), then SIGTERM": a_worker_freezes,
    "the loss explodes": divergence,
    "one of two processes dies (kill -9)": one_of_two_processes_dies,
    "SIGTERM to torchrun, 2 processes": torchrun_is_told_to_stop,
    "a node vanishes (one of two, kill -9)": a_node_vanishes,
}
