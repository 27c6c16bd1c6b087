"""An SHC network against its vanilla twin: time of a training step and of inference, peak memory of a training step."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from shconv.bench.check import layers_deviation
from shconv.bench.measurement import Measurement
from shconv.bench.memory import peak_memory
from shconv.bench.setting import Setting
from shconv.bench.timing import interleaved

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
    steps = {name: setting.training_step(network) for name, network in networks.items()}
    seconds = interleaved(steps, rounds, torch.device(setting.device), tick)
    yield found(measure=TIMES[0], unit="ms", value=seconds["SHC"] * 1e3, baseline_value=seconds["twin"] * 1e3)
    passes = {name: setting.inference(network.eval()) for name, network in networks.items()}
    seconds = interleaved(passes, rounds, torch.device(setting.device), tick)
    yield found(measure=TIMES[1], unit="ms", value=seconds["SHC"] * 1e3, baseline_value=seconds["twin"] * 1e3)
    del network, networks, steps, passes  # room for the two processes
    twin, shc = peak_memory(setting), peak_memory(setting.shc())
    if isinstance(twin, str) or isinstance(shc, str):
        yield found(measure=MEMORY, unit="MiB", reason=next(each for each in (twin, shc) if isinstance(each, str)))
    else:
        yield found(measure=MEMORY, unit="MiB", value=shc / 2**20, baseline_value=twin / 2**20)
