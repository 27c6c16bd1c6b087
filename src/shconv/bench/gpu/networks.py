"""Networks beside their twins on a GPU, and attacks beside plain passes: rows of the report."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from shconv.bench import attack
from shconv.bench.check import layers_deviation
from shconv.bench.device import Times, captured, times
from shconv.bench.gpu.report import Row
from shconv.bench.setting import Setting
from shconv.errors import one_line

_FEW_IMAGES = 8  # that the layers of a network are checked with
_COMPILING = 45.0  # seconds that torch.compile takes for a network, about


def networks(settings: list[Setting], modes: tuple[str, ...], left: Callable[[], float]) -> Iterator[Row]:
    """A training step and inference of each pair: milliseconds of the SHC network and ratios to the twin, of the card,
    of the host and of both."""
    for setting in settings:
        pair = [setting, setting.shc()]
        shc = pair[1].build()
        with setting.autocast():
            reason = layers_deviation(shc, setting.images()[0][:_FEW_IMAGES])
        del shc
        if reason:
            yield {"network": setting.name, "error": reason}
            continue
        for mode in modes:
            for work in ("training step", "inference"):
                row = {"network": setting.name, "work": work, "mode": mode}
                if left() <= (_COMPILING if mode == "compiled" and setting.device != "cpu" else 0):
                    yield row | {"error": "no time left"}
                    continue
                try:
                    (twin, less), (own, more) = (_timed(each, work, mode) for each in pair)
                    yield row | _ratios(own, twin) | ({"memory_ratio": more / less} if less and mode == "eager" else {})
                except Exception as error:  # out of memory, what a graph cannot hold
                    yield row | {"error": one_line(error)}


def _timed(setting: Setting, work: str, mode: str) -> tuple[Times, int]:
    """And the most bytes that the work held, with network and images; 0 on a CPU."""
    device = torch.device(setting.device)
    on_card = device.type == "cuda"
    setting = replace(setting, compiled=mode == "compiled" and on_card)
    network = setting.build()
    setting.prepare(network)
    run = setting.training_step(network) if work == "training step" else setting.inference(network.eval())
    found = times(captured(run) if mode == "captured" and on_card else run, device, calls=1)
    if not on_card:
        return found, 0
    torch.cuda.reset_peak_memory_stats()
    run()
    return found, torch.cuda.max_memory_allocated()


def _ratios(own: Times, twin: Times) -> Row:
    return {f"{name}_ms": getattr(own, name) * 1e3 for name in Times._fields} | {
        f"{name}_ratio": getattr(own, name) / getattr(twin, name) for name in Times._fields
    }


def attacks(setting: Setting) -> Iterator[Row]:
    """FGSM over one forward pass and input gradient, LocSearchAdv's images a second over plain ones."""
    for each in attack.measure(setting, rounds=3):
        yield {"network": each.subject, "work": each.measure, "ratio": each.ratio} | (
            {"error": each.reason} if each.reason else {}
        )
