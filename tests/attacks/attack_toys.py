"""Small networks: trained toys, and models whose answer is known or exact."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Toy = tuple[nn.Module, Tensor, Tensor]  # a trained network, test images in [0, 1], labels
EPSILON = 0.06  # L-inf: what the robust toys are trained for


def noisy_templates(classes: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 8, 8): one smooth template a class, under noise."""
    coarse = torch.randn(classes, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    template = F.interpolate(coarse, (8, 8), mode="bilinear", align_corners=True)
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = 0.5 + 0.12 * template[y] + 0.12 * torch.randn(n, 3, 8, 8, generator=generator)
    return x.clamp(0, 1), y


def train_toy(classes: int, robust: bool) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, classes),
        )
        optimizer = torch.optim.Adam(network.parameters(), 5e-3)
        for step in range(150):
            x, y = noisy_templates(classes, 128, 100 + step)
            if robust:
                z = (x + EPSILON * (2 * torch.rand_like(x) - 1)).requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(network(z), y), z)
                x = (x + (z.detach() - x + EPSILON * gradient.sign()).clamp(-EPSILON, EPSILON)).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
    return network.eval(), *noisy_templates(classes, 120, 7)


class Linear:
    """x -> x W^T + b in float64, whose optimal attack is known in closed form."""

    def __init__(self, classes: int, shape: tuple[int, ...] = (2, 4, 4), seed: int = 0, lead: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(classes, *shape, generator=generator, dtype=torch.float64)
        self.lead = lead  # added to the true class, which is 0

    def __call__(self, x: Tensor) -> Tensor:
        logits = x.flatten(1) @ self.weight.flatten(1).T.to(x)
        return torch.cat([logits[:, :1] + self.lead, logits[:, 1:]], 1)


class RowWise:
    """Two layers computed image by image without a matrix product, so that not even rounding depends on the batch."""

    def __init__(self, shape: tuple[int, ...] = (2, 6, 6), classes: int = 5) -> None:
        generator = torch.Generator().manual_seed(4)
        self.first = torch.randn(12, *shape, generator=generator, dtype=torch.float64)
        self.second = torch.randn(classes, 12, generator=generator, dtype=torch.float64)

    def __call__(self, x: Tensor) -> Tensor:
        hidden = ((x - 0.5)[:, None] * self.first.to(x)).sum((2, 3, 4)).tanh()
        return (hidden[:, None] * self.second.to(x)).sum(2)


class InUse(nn.Module):
    """Batch norm, dropout, a frozen parameter, a part already in eval mode, and gradients lying about."""

    def __init__(self, values: int, classes: int) -> None:
        super().__init__()
        self.norm, self.dropout, self.head = nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Linear(values, classes)
        self.head.bias.requires_grad_(False)
        self.dropout.eval()
        self.head.weight.grad = torch.full_like(self.head.weight, 7.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.dropout(self.norm(x)).flatten(1))

    def read(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden)
        return logits


def everything_about(network: nn.Module) -> Iterator[object]:
    yield from (module.training for module in network.modules())
    for tensor in (*network.parameters(), *network.buffers()):
        yield tensor.requires_grad, tensor.detach().clone().tolist()
        yield tensor.grad is None or (id(tensor.grad), tensor.grad.tolist())


def inner_images(n: int, shape: tuple[int, ...] = (2, 4, 4), seed: int = 1) -> Tensor:
    """Images between 0.3 and 0.7, float64: a budget up to 0.3 meets no edge of the box."""
    return 0.3 + 0.4 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def accuracy(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((network(x).argmax(1) == y).double().mean())
