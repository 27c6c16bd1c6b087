"""A network whose pass is changed at the boundaries of its modules: where a gradient goes on, and which logits attacks
see. What it decides stays the same."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SLIGHT = 1e-3  # of the distance between logits

Key = tuple[str, str, int]  # a place in a pass: a module's name, "in" or "out", which of its calls
Heads = tuple[Key, ...]
Visit = Callable[[Key, Tensor], Tensor]


class ReadOut(NamedTuple):
    """Logits of features: the nearer to the mean of a class, the larger. w (F, K), b (K,); features (n, F)."""

    w: Tensor
    b: Tensor

    @classmethod
    def of(cls, features: Tensor, classes: Tensor, count: int) -> "ReadOut":
        """From features (n, F) of images in classes (n,); a class without an image is the furthest."""
        of_class = nn.functional.one_hot(classes, count).to(features)
        images = of_class.sum(0)
        means = of_class.T @ features / images.clamp_min(1)[:, None]
        b = -means.square().sum(1)
        return cls(2 * means.T, torch.where(images > 0, b, 9 * b.min()))

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.w + self.b


class Through(nn.Module):
    """A network whose pass is changed at the boundaries of its modules; what it computes stays the same.

    links: the gradient at one boundary goes on at an earlier one, as if all between were the identity.
    heads: boundaries whose mean, as `read` reads it, is returned in the place of the network's own answer, with the
    network's class on top.
    """

    steady = False  # Python runs at every call, which a replayed graph would leave out

    def __init__(
        self, network: nn.Module, links: Mapping[Key, Key], heads: Heads = (), read: ReadOut | None = None
    ) -> None:
        super().__init__()
        self.network, self.links, self.heads, self.read = network, dict(links), heads, read
        self._names = {key[0] for key in (*self.links, *self.links.values(), *heads)}

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, lambda key, t: t, self._names)

    def run(self, x: Tensor, visit: Visit, names: set[str] | None = None) -> Tensor:
        """A pass in which `visit` may also change what passes the boundaries of the named modules, or of all."""
        held: dict[Key, Tensor] = {}
        sources = set(self.links.values())

        def both(key: Key, t: Tensor) -> Tensor:
            if key in self.links:
                with torch.inference_mode(False), torch.enable_grad():
                    slope, own = shaped(held[self.links[key]], t), t if t.is_leaf else t.detach()
                    t = t if slope is None else own + (slope - slope.detach())  # the network may ask for a leaf's slope
            t = visit(key, t)
            if key in sources or key in self.heads:
                held[key] = t
            return t

        with boundaries(self.network, len(x), both, names):
            out: Tensor = self.network(x)
        if not self.heads:
            return out
        logits = mean_of([held[key] for key in self.heads])
        return _deciding(logits if self.read is None else self.read(logits), out)


def mean_of(logits: Sequence[Tensor]) -> Tensor:
    return torch.stack([*logits]).mean(0)


def _deciding(logits: Tensor, out: Tensor) -> Tensor:
    """The logits (n, K), where the network answers out (n, K) otherwise with its class raised just above the others: an
    attack goes on until the network is wrong."""
    z, own = logits.detach(), out.detach().argmax(1, keepdim=True)
    above = z.amax(1, keepdim=True) + SLIGHT * (z.amax(1, keepdim=True) - z.amin(1, keepdim=True))
    asis = (z.argmax(1, keepdim=True) == own) | ~out.isfinite().all(1, keepdim=True)  # or no answer: wrong anyway
    lack = torch.where(asis, 0.0, above - z.gather(1, own))
    return logits + torch.zeros_like(z).scatter(1, own, lack)


@contextmanager
def boundaries(network: nn.Module, n: int, visit: Visit, names: set[str] | None) -> Iterator[None]:
    """Inside, what enters and leaves the modules passes `visit`, as far as it is a float tensor of n rows."""
    calls = Counter[str]()

    def fit(t: object) -> bool:
        return isinstance(t, Tensor) and t.is_floating_point() and t.dim() >= 2 and len(t) == n

    def before(name: str, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        calls[name] += 1
        if not inputs or not fit(inputs[0]):
            return None
        return (visit((name, "in", calls[name]), inputs[0]), *inputs[1:])

    def after(name: str, _: nn.Module, inputs: object, out: Any) -> Any:
        return visit((name, "out", calls[name]), out) if fit(out) else out

    with ExitStack() as hooks:
        for name, part in network.named_modules():
            if names is None or name in names:
                hooks.enter_context(part.register_forward_pre_hook(partial(before, name)))
                hooks.enter_context(part.register_forward_hook(partial(after, name)))
        yield


def shaped(source: Tensor, like: Tensor) -> Tensor | None:
    """`source` in the shape of `like`, each with n rows: as many values in another shape, or each value as often as an
    encoding repeats it (thermometer codes), in the layout that `like` follows more closely; None where neither fits."""
    ours, theirs = source[0].numel(), like[0].numel()
    if ours == theirs:
        return source.reshape(like.shape)
    if ours > theirs or theirs % ours or source.dim() < 3:
        return None
    n, channels, copies = len(source), source.shape[1], theirs // ours
    inner = source.flatten(2)[:, :, None].expand(n, channels, copies, -1)
    outer = source.flatten(2)[:, None].expand(n, copies, channels, -1)
    values = like.detach().flatten(1)
    return max((each.reshape(like.shape) for each in (inner, outer)), key=lambda each: _follows(each, values))


def _follows(source: Tensor, values: Tensor) -> float:
    a, b = (each.detach().flatten(1) - each.detach().mean() for each in (source, values))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))
