"""One training of the mechanism study, and what is measured of it: a configuration in, a record out.
The layers, attacks and measures are shconv's; the loop is bare, as the networks train in seconds."""

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import shconv
import shconv.layers
from shconv import inspection
from shconv.attacks import FGSM, PGD, RandFGSM
from shconv.experiments.network import ALL_ROUTES as ROUTES
from shconv.inspection.attacks import compared, examples, judged
from shconv.relatives import CondConv2d, Relative, SEConv2d, SpatialAttentionConv2d, odconv
from shconv.routes import shc_layers

GRID = (1, 2, 4, 8)  # budgets of one step, in levels of 255: together they have no floor and no ceiling
STATISTICS = {"both": ("mean", "std"), "mean": ("mean",), "std": ("std",)}
Data = Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Config:
    """The centre of the study; a factor changes one field, or the few that go together."""

    data: str = (
        "cifar10"  # cifar10, imagenette, both (20 classes), patches (7 photographs), photos (each its own class)
    )
    classes: int = 10
    size: int = 32
    images: int = 6000
    test: int = 500
    model: str = "plain10"
    width: int = 16
    stem: str = "small"
    layers: str = "all"  # all, first, last, none (the vanilla twin)
    epochs: int = 20
    batch: int = 250
    lr: float = 0.1
    decay: float = 5e-4
    hyper_lr: float = 1.0  # of theta, times lr
    hyper_decay: float | None = None  # of theta; None: decay
    start: str = "random"
    statistics: str = "both"
    activation: str = "sigmoid"
    temperature: float = 1.0  # sigmoid(temperature * z)
    batch_norm: bool = True
    smoothing: float = 0.0
    precision: str = "float32"
    seed: int = 0


def small(config: Config) -> Config:
    """The same configuration at a size that two CPU cores afford."""
    return replace(
        config,
        images=min(config.images, 2500),
        test=300,
        width=config.width // 2,
        epochs=max(2, config.epochs // 2),
        batch=125,
        lr=config.lr / 2,
    )


# Images


def png(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) as the bytes of one PNG, side by side in rows of 50."""
    n, h, w, _ = images.shape
    rows = -(-n // 50)
    padded = np.zeros((rows * 50, h, w, 3), np.uint8)
    padded[:n] = images
    sheet = padded.reshape(rows, 50, h, w, 3).transpose(0, 2, 1, 3, 4).reshape(rows * h, 50 * w, 3)
    held = io.BytesIO()
    Image.fromarray(sheet).save(held, "PNG", optimize=True)
    return np.frombuffer(held.getvalue(), np.uint8)


def unpacked(path: str) -> dict[str, NDArray[np.uint8]]:
    """The arrays of `mechanism.py data`: x_NAME_PART (N, 3, H, W) and y_NAME_PART (N,)."""
    found: dict[str, NDArray[np.uint8]] = {}
    with np.load(path) as file:
        for key in file.files:
            if key.startswith("y_"):
                found[key] = file[key]
                continue
            sheet = np.asarray(Image.open(io.BytesIO(file[key].tobytes())).convert("RGB"))
            n, side = len(file["y_" + key[2:]]), sheet.shape[1] // 50
            tiles = sheet.reshape(-1, side, 50, side, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side)
            found[key] = np.ascontiguousarray(tiles[:n])
    return found


def split(data: Data, config: Config) -> dict[str, tuple[Tensor, Tensor]]:
    """train and test: uint8 (N, 3, size, size) and int64 (N,), as many of each class as there are."""
    if config.data == "photos":
        return {part: _photos(data, config, part) for part in ("train", "test")}
    names = ("cifar10", "imagenette") if config.data == "both" else (config.data,)
    found = {}
    for part, wanted in (("train", config.images), ("test", config.test)):
        pairs = []
        for place, name in enumerate(names):
            x, y = torch.from_numpy(data[f"x_{name}_{part}"]), torch.from_numpy(data[f"y_{name}_{part}"]).long()
            order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))[: wanted // len(names)]
            pairs.append((_resized(x[order], config.size), y[order] + 10 * place))
        x, y = (torch.cat(each) for each in zip(*pairs, strict=True))
        keep = y < config.classes
        found[part] = x[keep], y[keep]
    return found


def _resized(x: Tensor, size: int) -> Tensor:
    if x.shape[-1] == size:
        return x
    small = F.interpolate(x.float(), (size, size), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def _photos(data: Data, config: Config, part: str) -> tuple[Tensor, Tensor]:
    """Each of the first `classes` pictures is a class: windows of it, at other places in train and test."""
    x = torch.from_numpy(data["x_imagenette_train"][: config.classes])
    n = config.images if part == "train" else config.test
    rng = np.random.default_rng(1)
    room = x.shape[-1] - config.size + 1
    places = [(r, c) for r in range(room) for c in range(room) if ((r // 4 + c // 4) % 2 == 0) == (part == "train")]
    y = np.arange(n) % config.classes
    at = [places[k] for k in rng.integers(0, len(places), n)]
    windows = [x[k, :, r : r + config.size, c : c + config.size] for k, (r, c) in zip(y, at, strict=True)]
    return torch.stack(windows), torch.from_numpy(y).long()


# The network


class Scaled:
    """sigmoid(temperature * z)."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.temperature * z)


def network(config: Config) -> nn.Module:
    torch.manual_seed(config.seed)
    model = shconv.create_model(config.model, config.classes, stem=config.stem, width=config.width)
    if config.model not in ("plain10", "resnet18"):
        return model  # a relative of SHC
    if not config.batch_norm:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, nn.Identity())
    names = [name for name, module in model.named_modules() if shconv.is_3x3(name, module) and name != "conv1"]
    wanted = {"all": names, "first": names[:1], "last": names[-1:], "none": []}[config.layers]
    if not wanted:
        return model
    activation: Any = config.activation if config.temperature == 1 else Scaled(config.temperature)
    options = {"statistics": STATISTICS[config.statistics], "activation": activation}
    return shconv.to_shc(model, where=wanted, start=config.start, **options)  # type: ignore[arg-type]


def plain_on_cuda(model: nn.Module) -> None:
    """Have SHC layers computed by torch's own operations: Triton's kernels would take longer to compile than these
    networks to train."""
    for layer in shc_layers(model).values():
        layer.hyper.order = None  # the definition, not the fused layer
    shconv.layers.filtered_conv2d = odconv.filtered_conv2d = windowed  # type: ignore[assignment]


def windowed(
    x: Tensor, weight: Tensor, M: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """shconv.ops.filtered_conv2d in five launches, for small images: windows times map, then one matrix product."""
    assert groups == 1
    assert tuple(dilation) == (1, 1)
    height, width = weight.shape[2:]
    xp = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    windows = xp.unfold(2, height, stride[0]).unfold(3, width, stride[1])  # (N, D, H', W', S_h, S_w)
    n, _, h, w = windows.shape[:4]
    scaled = (windows.permute(0, 1, 4, 5, 2, 3) * M[:, None, :, :, None, None]).reshape(n, -1, h * w)
    Y = (weight.flatten(1) @ scaled).view(n, -1, h, w)
    return Y if bias is None else Y + bias[:, None, None]


# Training


class NoTimeError(Exception):
    """The training would not be finished in time."""


def train(config: Config, model: nn.Module, x: Tensor, y: Tensor, deadline: float | None) -> None:
    """SGD with Nesterov's momentum, a cosine after a warm-up of one epoch, shifted and mirrored images."""
    theta = {id(p) for layer in shc_layers(model).values() for p in layer.hyper.parameters()}
    decay = config.decay if config.hyper_decay is None else config.hyper_decay
    own, hyper = ([p for p in model.parameters() if (id(p) in theta) == which] for which in (False, True))
    groups = [{"params": own, "factor": 1.0, "weight_decay": config.decay}]
    if hyper:
        groups.append({"params": hyper, "factor": config.hyper_lr, "weight_decay": decay})
    optimizer = torch.optim.SGD(groups, config.lr, 0.9, nesterov=True)
    draws = torch.Generator(x.device).manual_seed(config.seed)
    per_epoch = len(x) // config.batch
    total = per_epoch * config.epochs
    autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bf16", cache_enabled=False)
    model.train()

    def gradient(x: Tensor, y: Tensor) -> None:
        with autocast:
            loss = F.cross_entropy(model(x), y, label_smoothing=config.smoothing)
        loss.backward()

    graphed = x.is_cuda and "MECHANISM_EAGER" not in os.environ
    if graphed:
        gradient = _replayed(gradient, model, shifted(x[: config.batch], draws), y[: config.batch].clone())
    began = time.monotonic()
    for step in range(total):
        if step % per_epoch == 0:
            order = torch.randperm(len(x), generator=draws, device=x.device)
        at = order[(step % per_epoch) * config.batch :][: config.batch]
        share = min(1.0, (step + 1) / per_epoch) * (1 + np.cos(np.pi * max(0, step - per_epoch) / total)) / 2
        for group in optimizer.param_groups:
            group["lr"] = config.lr * group["factor"] * share
        if not graphed:
            optimizer.zero_grad()  # a replay writes its gradients anew
        gradient(shifted(x[at], draws), y[at])
        optimizer.step()
        if deadline is not None and step in (19, total // 3, total // 2):
            synchronize(x)
            if time.monotonic() + (time.monotonic() - began) / (step + 1) * (total - step) * 1.1 > deadline:
                raise NoTimeError
    synchronize(x)


def _replayed(
    gradient: Callable[[Tensor, Tensor], None], model: nn.Module, x: Tensor, y: Tensor
) -> Callable[[Tensor, Tensor], None]:
    """The forward and backward pass as one CUDA graph: these networks are so small that launching takes the time."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            gradient(x, y)
    torch.cuda.current_stream().wait_stream(side)
    model.load_state_dict(state)  # running means have moved
    for parameter in model.parameters():
        parameter.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradient(x, y)

    def replay(images: Tensor, labels: Tensor) -> None:
        x.copy_(images)
        y.copy_(labels)
        graph.replay()

    return replay


def synchronize(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def shifted(x: Tensor, draws: torch.Generator) -> Tensor:
    """uint8 (B, 3, H, H) to floats in [0, 1]: moved by up to an eighth of the side, half of them mirrored."""
    n, _, side, _ = x.shape
    pad = side // 8
    padded = F.pad(x, (pad,) * 4)
    move = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=draws, device=x.device)
    flip = torch.rand(n, 1, generator=draws, device=x.device) < 0.5
    steps = torch.arange(side, device=x.device)
    rows = move[0] + steps
    columns = move[1] + torch.where(flip, side - 1 - steps, steps)
    images = padded[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return images.permute(0, 3, 1, 2).float().div(255)


# Measures


def measured(config: Config, data: Data, device: torch.device, deadline: float | None) -> dict[str, Any]:
    """Train a configuration and measure it. Raises NoTimeError where the deadline would be missed."""
    began = time.monotonic()
    parts = {part: (x.to(device), y.to(device)) for part, (x, y) in split(data, config).items()}
    model = network(config).to(device)
    if device.type == "cuda":
        plain_on_cuda(model)
    train(config, model, *parts["train"], deadline)
    trained = time.monotonic()
    model.eval()
    x, y = parts["test"][0].float().div(255), parts["test"][1]
    record: dict[str, Any] = {"config": asdict(config), "device": device.type, **attacked(model, x, y, config.batch)}
    if not shc_layers(model):
        return {**record, "trained": trained - began, "seconds": time.monotonic() - began}
    try:
        found = inspection.run(
            model, (x.cpu(), y.cpu()), eps=4 / 255, images=len(x), steps=3, batch_size=config.batch, progress=False
        )
        record["inspection"] = asdict(found)
    except Exception as error:  # the attacks are worth keeping
        record["not inspected"] = repr(error)[:300]
    return {**record, "trained": trained - began, "seconds": time.monotonic() - began}


def attacked(model: nn.Module, x: Tensor, y: Tensor, batch: int) -> dict[str, Any]:
    """Every attack of the study through its routes, and the worst case within 2 levels over all of them."""
    attacks: dict[str, Any] = {f"FGSM {e}": FGSM(epsilon=e / 255, objective="untargeted") for e in GRID}
    attacks["RAND+FGSM"] = RandFGSM()  # the paper's, least likely
    attacks["RAND+FGSM untargeted"] = RandFGSM(objective="untargeted")
    attacks["PGD 2"] = PGD(2 / 255, steps=10)
    some = ROUTES[:2] if shc_layers(model) or attentions(model) else ROUTES[:1]
    clean, held, rows = judged(model, x, y)[0], {}, []
    for name, attack in attacks.items():  # the other parts alone hardly break anything: they are taken once
        routes = ROUTES if name == "RAND+FGSM" and shc_layers(model) else some
        held[name] = {route: _outcome(model, attack, x, y, route, batch) for route in routes}
        rows += [{"attack": name, **each} for each in compared(held[name], clean)]
    within = [held[name] for name in ("FGSM 1", "FGSM 2", "PGD 2")]
    worst = np.logical_and.reduce([right for each in within for right, _ in each.values()])
    both = np.logical_and.reduce([each["both"][0] for each in within])
    n = max(1, int(clean.sum()))
    return {
        "clean": float(clean.mean()),
        "n": n,
        "rows": rows,
        "worst": float((worst & clean).sum() / n),
        "worst_both": float((both & clean).sum() / n),
        **({"gap": gap(rows)} if len(some) > 1 else {}),
    }


def gap(rows: list[dict[str, Any]]) -> float:
    """The study's outcome, in points: accuracy through both routes less through the convolution route, the mean over
    one step of each budget in GRID. Above 0 the whole gradient is the weaker guide: it is masked."""
    found = [
        -100 * row["difference"] for row in rows if row["attack"].startswith("FGSM ") and row["route"] == "convolution"
    ]
    return float(np.mean(found))


def attentions(model: nn.Module) -> list[nn.Module]:
    """Of SHC's relatives, the last linear layer of each attention: its output is all that the image decides."""
    names = {SEConv2d: "output", SpatialAttentionConv2d: "output", CondConv2d: "routing"}
    return [getattr(each, names[type(each)]) for each in model.modules() if isinstance(each, Relative)]


@contextmanager
def attentions_held(model: nn.Module) -> Iterator[None]:
    """No gradient passes through an attention: a relative's convolution route."""
    hooks = [each.register_forward_hook(lambda _, __, out: out.detach()) for each in attentions(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _outcome(model: nn.Module, attack: Any, x: Tensor, y: Tensor, route: str, batch: int) -> Any:
    relative = route == "convolution" and not shc_layers(model)
    with attentions_held(model) if relative else nullcontext():
        made = [
            examples(model, attack, part, labels, range(place, place + len(part)), 0, "both" if relative else route)
            for place, part, labels in _batches(x, y, batch)
        ]
    return judged(model, torch.cat(made), y)


def _batches(x: Tensor, y: Tensor, batch: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    for place in range(0, len(x), batch):
        yield place, x[place : place + batch], y[place : place + batch]
