"""What the attacks add to the passes they cannot do without, on an SHC network: FGSM to one forward pass and input
gradient, LocSearchAdv's probes to plain forward passes at the same batch."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.attacks import FGSM, LocSearchAdv
from shconv.bench.check import layers_deviation
from shconv.bench.measurement import Measurement
from shconv.bench.setting import Setting
from shconv.bench.timing import compared, parts

FGSM_TIME, PROBES = "FGSM, time", "LocSearchAdv, images a second"


def measure(setting: Setting, rounds: int, tick: Callable[[], object] = lambda: None) -> Iterator[Measurement]:
    """`setting` names the vanilla twin of the network attacked; `tick` is called 2 * (rounds + 1) times."""
    setting = setting.shc()
    found = partial(
        Measurement, subject=setting.subject, dtype=setting.dtype, layout=setting.layout, contender="attack"
    )
    fgsm = partial(found, measure=FGSM_TIME, baseline="forward + input gradient", unit="ms")
    probes = partial(found, measure=PROBES, baseline="forward", unit="images/s")
    images, labels = setting.images()
    network, device = setting.build().eval().requires_grad_(False), torch.device(setting.device)
    with setting.autocast():
        if reason := layers_deviation(network, images):
            yield from (kind(reason=reason, wrong=True) for kind in (fgsm, probes))
            return
        setting.prepare(network)
        works = {"attack": lambda: FGSM()(network, images, labels), "passes": lambda: _passes(network, images, labels)}
        seconds = compared(works, rounds, device, tick)
        for part, told in parts(device, first="wall").items():  # an attack waits for its look at the images
            own, passes = (getattr(seconds[name], part) * 1e3 for name in ("attack", "passes"))
            yield fgsm(measure=FGSM_TIME + told, value=own, baseline_value=passes)
        search = LocSearchAdv(steps=2, max_probes=16, batch_size=setting.batch)
        queries = int(search.run(network, images, labels).queries.sum()) + len(images)  # and the look at clean images
        forwards = -(-queries // len(images))
        searches = {
            "attack": lambda: search(network, images, labels),
            "forward": lambda: _forwards(network, images, forwards),
        }
        seconds = compared(searches, rounds, device, tick)
        for part, told in parts(device, first="wall").items():  # a search waits for what it has found
            plain = forwards * len(images) / getattr(seconds["forward"], part)
            yield probes(measure=PROBES + told, value=queries / getattr(seconds["attack"], part), baseline_value=plain)


def _passes(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    x = images.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(network(x), labels, reduction="sum"), x)[0]


@torch.no_grad()
def _forwards(network: nn.Module, images: Tensor, count: int) -> None:
    """As many as the search takes: a busy moment then weighs the same on both sides."""
    for _ in range(count):
        network(images)
