"""Classifiers whose robustness is known in closed form, the same ones with gradients masked in known ways, and audits.

An image is grey plus contrast times its class's pattern: a linear classifier breaks where the L-infinity radius exceeds
the distance from grey. Of the usual 40 images 14 lie within EPS of grey. Images lie on the grid of 8-bit levels.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from shconv import SHConv2d
from shconv.audit.audit import Audit
from shconv.audit.check import why_not
from shconv.audit.clock import Clock
from shconv.audit.findings import Finding
from shconv.audit.ledger import Ledger
from shconv.audit.probe import Probe
from shconv.audit.setting import FULL, Effort, Setting
from shconv.audit.subject import Subject
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.layers import Hypernetwork

CLASSES, SIDE, EPS = 4, 6, 0.102
SMALL = replace(
    FULL.scaled(0.001),
    steps=(5, 10, 20),
    compared_images=40,
    start_images=40,
    curve_images=24,
    curve_points=7,
    square_queries=300,
    square_images=20,
    hard_label_images=0,
    standard_images=0,
    sign_draws=300,
    sign_images=20,
    gradient_images=20,
    surface_images=20,
    indicator_images=20,
    binarisation_images=10,
    ablation_images=24,
)


def patterns() -> Tensor:
    """(K, 3, SIDE, SIDE) of -1/4 and 1/4."""
    signs = torch.randint(0, 2, (CLASSES, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3))
    return (2 * signs - 1) / 4


def toy_images(n: int = 40, contrasts: tuple[float, float] = (0.1, 1.0)) -> tuple[Tensor, Tensor]:
    """Float images (n, 3, SIDE, SIDE) on the grid of 8-bit levels, of evenly spread contrasts, and their classes."""
    y = torch.arange(n) % CLASSES
    contrast = torch.linspace(*contrasts, n)[:, None, None, None]
    return (255 * (0.5 + contrast * patterns()[y])).round() / 255, y


class Honest(nn.Module):
    """A linear classifier, by two layers without anything between them; `scale` multiplies its logits."""

    def __init__(self, scale: float = 5.0) -> None:
        super().__init__()
        size = 3 * SIDE * SIDE
        turn = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(4)))[0]
        self.features, self.fc = nn.Linear(size, size, bias=False), nn.Linear(size, CLASSES, bias=False)
        self.features.weight.data = turn
        self.fc.weight.data = scale * patterns().flatten(1) @ turn.T

    def see(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(self.see(x - 0.5).flatten(1)))
        return logits


class Masked(Honest):
    """The same decisions; what it does to the gradient is `turned(x)` (n, C, H, W) times it."""

    def __init__(self, turned: Callable[[Tensor], Tensor], scale: float = 5.0) -> None:
        super().__init__(scale)
        self.turned = turned

    def see(self, x: Tensor) -> Tensor:
        seen: Tensor = _Turned.apply(x, self.turned(x.detach() + 0.5))
        return seen


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None


def blind() -> Masked:
    """No gradient comes back, as through a quantiser."""
    return Masked(torch.zeros_like)


def saturated() -> Honest:
    """Logits so large that the cross-entropy's gradient is exactly zero in float32."""
    return Honest(scale=1e5)


def _on_grid(x: Tensor) -> Tensor:
    """1 for images all of whose values are 8-bit levels, 0 for others; (n, 1, 1, 1)."""
    off = (255 * x - (255 * x).round()).abs().flatten(1).amax(1)
    return (off < 1e-3).float()[:, None, None, None]


def right_on_data_only() -> Masked:
    """The gradient is true at 8-bit images and points the wrong way beside them."""
    return Masked(lambda x: (2 * _on_grid(x) - 1).expand_as(x))


def bent_on_data() -> Masked:
    """The gradient is gone at 8-bit images and true beside them."""
    return Masked(lambda x: (1 - _on_grid(x)).expand_as(x))


class Noisy(Honest):
    """Adds noise to its input, other noise in every pass."""

    def see(self, x: Tensor) -> Tensor:
        return x + 0.3 * torch.randn_like(x)


class Guarded(Honest):
    """With a detector: an image is rejected where `score` (n,) is above 0."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score, self.threshold = score, torch.zeros(())

    def joint(self, x: Tensor, y: int) -> Tensor:
        logits, others = self(x), self(x)
        others[:, y] = -torch.inf
        rejected = others.amax(1) + self.score(x)
        return others.index_copy(1, torch.tensor([y]), logits[:, y].maximum(rejected)[:, None])


class Shc(nn.Module):
    """The linear classifier as one SHC layer whose kernel spans the image; M lies near 1/2 and hardly moves.

    `mislead`: the gradient through M is that many times too large; outputs stay the same.
    """

    def __init__(self, mislead: float = 0.0) -> None:
        super().__init__()
        self.conv = SHConv2d(3, CLASSES, SIDE, bias=False)
        self.conv.weight.data = 10 * patterns()
        hyper = Exaggerated(3, (SIDE, SIDE), hidden_features=8)
        hyper.mislead = mislead
        draw = torch.Generator().manual_seed(5)
        for layer, size in ((hyper.hidden, 1.0), (hyper.output, 0.1)):
            for parameter in layer.parameters():
                parameter.data = size * torch.randn(parameter.shape, generator=draw)
        self.conv.hyper = hyper

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv(x - 0.5).flatten(1)
        return logits


class Exaggerated(Hypernetwork):
    mislead = 0.0

    def forward(self, x: Tensor) -> Tensor:
        M = super().forward(x)
        return M + self.mislead * (M - M.detach())


def make_audit(
    folder: Path,
    network: nn.Module,
    twin: nn.Module | None = None,
    *,
    data: tuple[Tensor, Tensor] | None = None,
    effort: Effort = SMALL,
    eps: float = EPS,
    batch_size: int = 40,
    **sources: nn.Module,
) -> Audit:
    """A real audit of a toy, without a limit of time; by default all images are one batch, which is quickest."""
    x, y = toy_images() if data is None else data
    setting = Setting(eps, 5 * eps, batch_size=batch_size, budget="full")
    folder.mkdir(exist_ok=True)  # as RunFolder.opened makes it
    held = RunFolder(folder)

    def subject(name: str, each: nn.Module) -> Subject:
        each.eval()
        for parameter in each.parameters():
            parameter.requires_grad_(False)
        return Subject(name, each, x, y, batch_size=setting.batch_size)

    index = torch.arange(len(x))
    audit = Audit(
        subject("toy", network),
        x,
        y,
        index,
        setting,
        Ledger(held, "toy/seed0", index.numpy()),
        Clock(held, setting.seconds),
        Probe(1e-6, 1e-6),
        ExperimentProgress(False),
        twin=None if twin is None else subject("twin", twin),
        sources={name: subject(name, each) for name, each in sources.items()},
    )
    audit.effort = effort
    return audit


def finding(check: ModuleType, audit: Audit) -> Finding:
    """What a check finds that applies, once its cost has been asked for as the plan does."""
    assert why_not(check, audit) == ""  # type: ignore[arg-type]
    assert check.cost(audit).forwards >= 0
    audit.ledger.check = check.NAME
    found: Finding = check.run(audit)
    return found
