"""Does the audit call networks whose defence others broke? Eight that were published as robust and are not.

    python benchmarks/audit_broken.py --vanilla DIR --distilled DIR --detector DIR --data folder:PATH --out DIR

--vanilla is a checkpoint without a defence, --distilled and --detector are of `shconv train --defence distillation` and
`detector`. JPEG and one draw of noise are put before the vanilla network, a softmax after it, and noise is carried
through it in closed form; k-winners-take-all and thermometer input are trained here, for a few epochs. What each check
should say (WANTED) and which networks are held out (HELD_OUT: no threshold may be changed after their first run) were
written down before the first run. The last two hide no gradient: of them no alarm is wanted, only a low worst case. The
time is the processor's, on one thread, so that other work on the machine changes nothing. A network that is done is
skipped: the same command goes on.
"""

import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from torch import Tensor, nn

from shconv import create_model
from shconv.attacks import PGD
from shconv.audit import run
from shconv.audit.checks import CHECKS
from shconv.audit.subject import Subject, drawing
from shconv.data import ImageData, evaluation_batches, load_data
from shconv.models.noise import NoiseNetwork
from shconv.training import load_checkpoint

EPS, LEVELS, QUALITY, SIGMA, CARRIED, SHARE = 8 / 255, 16, 50, 0.06, 0.05, 0.1
BLIND = {"attack strength", "gradients", "loss surface", "indicators of attack failure"}
WANTED = {
    "jpeg": BLIND,  # no gradient passes; an identity in its place gives nearly the network's own (Athalye et al. 2018)
    "k-winners": {"gradients"},  # a jagged surface: gradients say little of a step's length (Tramer et al. 2020)
    "one draw": {"indicators of attack failure"},  # random predictions; their mean is no more robust than the network
    "thermometer": BLIND,  # no gradient passes; a straight-through one breaks it (Athalye et al. 2018)
    "distilled": {
        "gradients",
        "attack strength",
        "indicators of attack failure",
    },  # the softmax saturates (Carlini 2017)
    "softmax": BLIND,  # softmax(100 z): the same, and no margin shows it from outside
    "noise-model": set(),  # a smooth function in closed form: weak, and nothing hides it
    "detector": set(),  # its classifier is the vanilla network; both are fooled together (Carlini and Wagner 2017)
}
HELD_OUT = ("thermometer", "distilled", "softmax", "noise-model", "detector")


class Before(nn.Module):
    """Does something to the image, then asks the network."""

    def __init__(self, change: Callable[[Tensor], Tensor], network: nn.Module) -> None:
        super().__init__()
        self.change, self.network = change, network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.change(x))
        return logits


class Softmax(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(100 * self.network(x), 1)


class Winners(nn.Module):
    """Of each image's values only the largest SHARE stay, the others become 0 (Xiao et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, int(SHARE * flat.shape[1])), 1).values[:, -1:]
        return torch.where(flat >= least, flat, torch.zeros_like(flat)).view_as(x)


def jpeg(x: Tensor) -> Tensor:
    """Compressed and opened again, image by image (Guo et al. 2018)."""
    made = []
    for image in (255 * x.detach()).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
        made.append(torch.from_numpy(np.array(Image.open(file))))
    return torch.stack(made).permute(0, 3, 1, 2).to(x) / 255


def noise(x: Tensor) -> Tensor:
    """One draw, where smoothing averages many (Cohen et al. 2019)."""
    return x + SIGMA * torch.randn_like(x)


def thermometer(x: Tensor) -> Tensor:
    """LEVELS bits for each value: above 1/16 of the range, above 2/16 ... (Buckman et al. 2018)."""
    levels = (torch.arange(LEVELS, device=x.device) + 0.5) / LEVELS
    return (x[:, :, None] > levels[:, None, None]).to(x).flatten(1, 2)


@dataclass(frozen=True, kw_only=True)
class Options:
    vanilla: Path
    distilled: Path | None = None
    detector: Path | None = None
    data: str = "demo"
    images: int = 60
    budget: str = "90s"
    epochs: int = 2
    width: int = 8
    out: Path = Path("runs/audit-broken")


def with_winners(network: nn.Module) -> nn.Module:
    for part in network.modules():
        for name, inner in list(part.named_children()):
            if isinstance(inner, nn.ReLU):
                setattr(part, name, Winners())
    return network


def trained(name: str, options: Options, data: ImageData) -> nn.Module:
    """Plain-10 with k-winners-take-all, or behind a thermometer, trained here with Adam; kept in the folder."""
    torch.manual_seed(0)
    channels = 3 * LEVELS if name == "thermometer" else 3
    plain = create_model("plain10", len(data.classes), in_channels=channels, stem="small", width=options.width)
    network = Before(thermometer, plain) if name == "thermometer" else with_winners(plain)
    place = options.out / f"{name}.pt"
    if place.exists():
        network.load_state_dict(torch.load(place))
        return network.eval()
    assert data.train is not None
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for epoch in range(options.epochs):
        order = np.random.default_rng(epoch).permutation(len(data.train)).tolist()
        for batch in evaluation_batches(data.train, order, 64):
            optimizer.zero_grad()
            F.cross_entropy(network(batch.images.float().div(255)), batch.labels).backward()
            optimizer.step()
    torch.save(network.state_dict(), place)
    return network.eval()


def network(name: str, options: Options, data: ImageData) -> nn.Module | None:
    if name in ("k-winners", "thermometer"):
        return trained(name, options, data)
    if name in ("distilled", "detector"):
        place = options.distilled if name == "distilled" else options.detector
        return None if place is None else load_checkpoint(place)[0].eval()
    vanilla = load_checkpoint(options.vanilla)[0].eval()
    made = {
        "jpeg": lambda: Before(jpeg, vanilla),
        "one draw": lambda: Before(noise, vanilla),
        "softmax": lambda: Softmax(vanilla),
        "noise-model": lambda: NoiseNetwork(vanilla, CARRIED),
    }
    return made[name]().eval()


def measure(name: str, model: nn.Module, x: Tensor, y: Tensor, options: Options) -> dict[str, Any]:
    subject = Subject(name, model, x, y)
    with drawing(True, "one draw"):
        attacked = PGD(EPS, steps=50, step_size=EPS / 4).run(model, x, y).images
    report = run(model, (x, y), EPS, budget=options.budget, name=name.replace(" ", "-"), folder=options.out / name)
    return {
        "n": len(y),
        "clean": int(subject.judge(x, y).right.sum()),
        "plain_pgd": int(subject.judge(attacked, y).right.sum()),
        "worst_case": report.worst_case["linf"]["correct"],
        "past_detector": report.worst_case.get("undetected", {}).get("correct"),
        "first_by": report.worst_case["linf"]["broken_by"],
        "alarms": {each.name: [each.alarm, each.not_run] for each in report.findings},
        "verdict": report.verdict,
    }


def word(name: str, check: str, alarm: bool | None) -> str:
    wanted = check in WANTED[name]
    if alarm is None:
        return "**no answer**" if wanted else "no answer"
    if alarm:
        return "**hit**" if wanted else "alarm, right" if WANTED[name] else "**FALSE ALARM**"
    return "**MISS**" if wanted else "quiet"


def markdown(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    titles = [f"{name}{' (held out)' if name in HELD_OUT else ''}" for name in found]
    yield f"| check | {' | '.join(titles)} |"
    yield "|---" * (len(found) + 1) + "|"
    for check in sorted(CHECKS[:-1], key=lambda check: check.NUMBER):
        said = [word(name, check.NAME, each["alarms"][check.NAME][0]) for name, each in found.items()]
        yield f"| {check.NUMBER} {check.NAME} | {' | '.join(said)} |"
    yield "\n| right of so many images | clean | plain PGD-50 | worst case | first broken by |"
    yield "|---" * 5 + "|"
    for name, each in found.items():
        by = ", ".join(f"{label} {k}" for label, k in list(each["first_by"].items())[:3])
        counts = " | ".join(str(each[key]) for key in ("clean", "plain_pgd", "worst_case"))
        past = each.get("past_detector")
        counts += "" if past is None else f" (past the detector {past})"
        yield f"| {name}, {each['n']} | {counts} | {by} |"


def main(options: Options) -> None:
    torch.set_num_threads(1)
    time.monotonic = time.perf_counter = time.process_time
    data = load_data(options.data)
    split = data.test
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[: options.images]).tolist()
    batch = next(iter(evaluation_batches(split, chosen, options.images)))
    x, y = batch.images.float().div(255), batch.labels
    options.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in WANTED:
        file = options.out / f"{name}.json"
        if not file.exists():
            model = network(name, options, data)
            if model is None:
                continue
            file.write_text(json.dumps(measure(name, model, x, y, options), indent=1))
        found[name] = json.loads(file.read_text())
    text = "\n".join(markdown(found))
    (options.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Options))
