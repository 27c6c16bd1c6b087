"""What each row costs beside the vanilla network: the time of a training step and of inference, in one interleaved
run, and the peak memory of a training step, in a process of its own. On fresh networks, so before any is trained."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from shconv.bench import memory
from shconv.bench.device import Work
from shconv.bench.timing import interleaved
from shconv.rivals.which import Rival, settings_of
from shconv.training import ModelConfig
from shconv.training.defences import Defence, Source, Step

ROUNDS = 3  # and one to warm up
Prices = dict[str, dict[str, float | int | None]]  # of each row: "step", "inference", "memory" ..., over vanilla's


@dataclass(frozen=True)
class Trial:
    """A row's training step on made-up images; numbers and words only, so that another process can be told."""

    model: str
    defence: str
    classes: int
    stem: str
    width: int
    image_size: int
    batch: int
    device: str

    @classmethod
    def of(cls, rival: Rival, config: ModelConfig, image_size: int, batch: int, device: str) -> "Trial":
        about = (config.num_classes, config.stem, config.width)
        return cls(rival.model, rival.defence, *about, image_size, batch, device)

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(self.model, self.classes, stem=self.stem, width=self.width)

    def taught(self, defence: Defence, config: ModelConfig) -> Defence:
        """The defence with fresh networks in the place of those that are trained before it."""
        first = defence.first(0)
        return defence.taught({name: self.source(config) for name in first}) if first else defence

    def source(self, config: ModelConfig) -> Source:
        network = config.build().eval().requires_grad_(False)
        return Source(network, config, tuple(map(str, range(self.classes))), 0, "")

    def images(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.batch, 3, self.image_size, self.image_size, generator=generator)
        return x.to(self.device), torch.randint(self.classes, (self.batch,), generator=generator).to(self.device)

    def step(self, defence: Defence | None = None) -> Work:
        """One step: the defence's loss, backward, SGD with momentum. None: the row's own defence."""
        own = settings_of(self.defence, [self.source(self.config)]) if defence is None else defence
        own = self.taught(own, self.config)
        config = own.around(self.config)
        network = config.build().to(self.device)
        own.begin(network)
        x, y = self.images()
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9)
        generator = torch.Generator(self.device).manual_seed(0)

        def step() -> None:
            network.train()
            optimizer.zero_grad()
            own.loss(network, x, y, Step(generator)).loss.backward()
            optimizer.step()

        return step

    def before(self) -> list[Work]:
        """A step of each network that is trained before the row's own."""
        defence = settings_of(self.defence, [self.source(self.config)])
        return [self.step(each.defence) for each in defence.first(0).values()]

    def inference(self) -> Work:
        defence = settings_of(self.defence, [self.source(self.config)])
        network: nn.Module = defence.around(self.config).build().to(self.device).eval()
        x, _ = self.images()

        def forward() -> None:
            with torch.no_grad():
                network(x)

        return forward


def times(trials: Mapping[str, Trial], limit: float) -> Prices:
    """By row: seconds of a step, those of networks trained before included, and of inference; both over the first's.

    limit: seconds, about; on a machine on which one round takes long, one round has to do.
    """
    device = torch.device(next(iter(trials.values())).device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        steps = {name: _together([trial.step(), *trial.before()]) for name, trial in trials.items()}
        forwards = {name: trial.inference() for name, trial in trials.items()}
    began = time.monotonic()
    step = interleaved(steps, 1, device)
    rounds = ROUNDS if 3 * (time.monotonic() - began) < limit else 1
    if rounds > 1:
        step = interleaved(steps, rounds, device)
    forward = interleaved(forwards, 5 * rounds, device)
    first = next(iter(trials))
    return {
        name: {
            "step": step[name],
            "step_over": step[name] / step[first],
            "inference": forward[name],
            "inference_over": forward[name] / forward[first],
        }
        for name in trials
    }


def memories(trials: Mapping[str, Trial], known: Prices) -> Prices:
    """The same with the peak memory of a step, and over the first's; None where it is not known."""
    held = peaks(trials)
    first = held[next(iter(trials))]
    found: Prices = {}
    for name, own in held.items():
        over = own / first if isinstance(own, int) and isinstance(first, int) else None
        found[name] = {**known[name], "memory": own if isinstance(own, int) else None, "memory_over": over}
    return found


def peaks(trials: Mapping[str, Trial]) -> dict[str, int | None]:
    """Bytes of a few steps of each; None where they are not known."""
    device = next(iter(trials.values())).device
    told = {"trials": {name: asdict(trial) for name, trial in trials.items()}}
    lines = memory.lines_of("shconv.rivals.prices", told, device)
    found = {} if isinstance(lines, str) else dict(map(json.loads, lines))
    held = {name: memory.enough(found[name], device) if name in found else None for name in trials}
    return {name: each if isinstance(each, int) else None for name, each in held.items()}


def _together(works: Sequence[Work]) -> Work:
    def all_of_them() -> None:
        for work in works:
            work()

    return all_of_them


def _measured(about: Mapping[str, Any]) -> int:
    trial = Trial(**about)
    return memory.growth(trial.step, replace(trial, batch=2).step, torch.device(trial.device))


def _say_all(trials: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each trial, from a process of its own: a copy of this one, which has only read the code."""
    for name, about in trials.items():
        if not hasattr(os, "fork"):
            print(json.dumps([name, _measured(about)]))
        elif child := os.fork():
            os.waitpid(child, 0)
        else:
            try:
                print(json.dumps([name, _measured(about)]), flush=True)
            finally:
                os._exit(0)


if __name__ == "__main__":
    import torch._dynamo  # which every optimiser loads, for seconds: here once, and not in each copy

    told = json.loads(sys.argv[1])
    torch.set_num_threads(told["threads"])
    _say_all(told["trials"])
