"""Kernels to be checked or timed, and processes that compile them ahead."""

import itertools

import torch

from shconv.bench.gpu.problems import Layer, blank
from shconv.bench.gpu.variants import variant, variants
from shconv.errors import one_line
from shconv.forked import Forked, processors
from shconv.ops.cuda import ahead
from shconv.ops.cuda.hopper.tiles import Tile

_PROCESSES = 15

Job = tuple[Layer, torch.dtype, str, Tile]


def jobs(layers: tuple[Layer, ...], dtype: torch.dtype, tiles: int) -> list[Job]:
    """Every pass of the layers, each with so many tiles, the rule's first."""
    found: list[Job] = []
    for layer in layers:
        with torch.device("meta"):
            shapes = blank(layer, dtype)
        for _, group in itertools.groupby(variants(shapes), key=lambda each: each.name):
            found += [(layer, dtype, each.name, each.tile) for each in itertools.islice(group, tiles)]
    return found


class Compiler:
    """Compiles jobs ahead, in processes that never touch the card, into Triton's cache on disk; others compile when
    they are first run."""

    def __init__(self, of: list[Job]) -> None:
        jobs = list(dict.fromkeys(of))
        self._places = {job: place for place, job in enumerate(jobs)}
        count = max(1, min(_PROCESSES, processors() - 1))
        self._forked = Forked(lambda place: compile_job(jobs[place]), len(jobs), count)

    def reason(self, job: Job, seconds: float) -> str:
        """Why the job does not compile, "" where it does or was not heard of in so many seconds."""
        wanted = [self._places[job]] if job in self._places else []
        return "".join(self._forked.results(wanted, seconds, end=False).values())

    def close(self) -> None:
        """What is not compiled by now compiles when it is first run."""
        self._forked.results(self._places.values(), 0.0)


def compile_job(job: Job) -> str:
    """Why it does not compile for sm_90, or "". In a process of its own."""
    layer, dtype, name, tile = job
    try:
        ahead.stand_in(90)
        variant(blank(layer._replace(N=2), dtype), name, tile).compile()
    except Exception as error:
        return one_line(error, slice(-300, None))
    return ""
