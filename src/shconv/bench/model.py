"""An SHC network against its vanilla twin: time of a training step and of inference, peak memory of a training step."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from shconv.bench.check import layers_deviation
from shconv.bench.device import Work, captured
from shconv.bench.measurement import Measurement
from shconv.bench.memory import peak_memory
from shconv.bench.setting import Setting
from shconv.bench.timing import compared, parts
from shconv.errors import one_line

TIMES = ("training step", "inference")
MEMORY = "peak memory of a training step"


def measure(setting: Setting, rounds: int, tick: Callable[[], object] = lambda: None) -> Iterator[Measurement]:
    """`setting` names the vanilla twin; `tick` is called len(TIMES) * (rounds + 1) times."""
    found = partial(
        Measurement,
        subject=setting.subject,
        dtype=setting.dtype,
        layout=setting.layout,
        contender="SHC network",
        baseline="twin",
    )
    networks = {"twin": setting.build(), "SHC": setting.shc().build()}
    with setting.autocast():
        reason = layers_deviation(networks["SHC"], setting.images()[0])
    if reason:
        units = {**dict.fromkeys(TIMES, "ms"), MEMORY: "MiB"}
        yield from (found(measure=each, unit=unit, reason=reason, wrong=True) for each, unit in units.items())
        return
    for network in networks.values():
        setting.prepare(network)
    device = torch.device(setting.device)
    for measure in TIMES:
        works: dict[str, Work] = {}
        for name, network in networks.items():
            step = measure == TIMES[0]
            works[name] = setting.training_step(network) if step else setting.inference(network.eval())
        yield from _timed(partial(found, measure=measure), works, rounds, device, tick)
        if device.type == "cuda":
            yield from _captured(partial(found, measure=f"{measure}, captured"), works, rounds, device)
    del network, networks, works  # room for the two processes
    twin, shc = peak_memory(setting), peak_memory(setting.shc())
    if isinstance(twin, str) or isinstance(shc, str):
        yield found(measure=MEMORY, unit="MiB", reason=next(each for each in (twin, shc) if isinstance(each, str)))
    else:
        yield found(measure=MEMORY, unit="MiB", value=shc / 2**20, baseline_value=twin / 2**20)


def _timed(
    found: "partial[Measurement]", works: dict[str, Work], rounds: int, device: torch.device, tick: Callable[[], object]
) -> Iterator[Measurement]:
    seconds = compared(works, rounds, device, tick)
    for part, told in parts(device).items():
        own, twin = (getattr(seconds[name], part) * 1e3 for name in ("SHC", "twin"))
        yield found(measure=found.keywords["measure"] + told, unit="ms", value=own, baseline_value=twin)


def _captured(
    found: "partial[Measurement]", works: dict[str, Work], rounds: int, device: torch.device
) -> Iterator[Measurement]:
    """The same from CUDA graphs, or why there is none."""
    try:
        graphs = {name: captured(work) for name, work in works.items()}
    except Exception as error:  # whatever a graph cannot hold
        yield found(unit="ms", reason=one_line(error, slice(200)))
        return
    yield from _timed(found, graphs, rounds, device, lambda: None)
