"""Has a network a gradient that attacks can use? Where it has none, a view of it that has one: an identity backward in
the place of what passes none (BPDA, Athalye et al. 2018), or the logits before what saturates, ties or votes."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shconv.attacks.losses import margin
from shconv.audit.subject import AuditedNetwork, Subject, drawing

VANISHED = 0.05  # of the images, with a gradient that is exactly zero: above this there is something to repair
BLIND = 0.5  # of the images: attacks by gradient then see nothing of the network
AGREEING = 0.75  # of the images, with the network's class: inner logits may be one member's of several that vote
MOST_LINKS = 64
STRAIGHT_THROUGH, INNER_LOGITS = "straight-through", "inner logits"

Key = tuple[str, str, int]  # a place in a pass: a module's name, "in" or "out", which of its calls
Visit = Callable[[Key, Tensor], Tensor]


@dataclass(frozen=True)
class Sight:
    """On how many of n images a gradient is exactly zero: the cross-entropy's at the clean image, and beside it the
    margin's, which no softmax can saturate. cut: autograd knows of no way from the answer back to the image."""

    n: int
    clean: int
    margin: int
    cut: bool = False

    @property
    def blind(self) -> bool:
        """Attacks by gradient see nothing of the network."""
        return self.margin >= BLIND * self.n

    @property
    def dim(self) -> bool:
        """On some images they see nothing, whatever their loss."""
        return self.margin > VANISHED * self.n


class View(NamedTuple):
    """A network as only an attack sees it. `route` is what rows call it, `said` a sentence about it."""

    route: str
    model: AuditedNetwork
    said: str


def look(subject: Subject, x: Tensor, y: Tensor, epsilon: float, model: nn.Module | None = None) -> Sight:
    """Counts on images x (n, C, H, W): at them, and at random points within epsilon, where attacks start.

    model: of a view of the subject, instead of its own.
    """
    model = subject.model if model is None else model
    with drawing(True, "look"):
        beside = (x + epsilon * (2 * torch.rand(x.shape) - 1).to(x)).clamp(0, 1)

    def slope(loss: Callable[[Tensor, Tensor], Tensor], at: Tensor) -> Tensor | None:
        at = at.clone().requires_grad_()
        with drawing(subject.is_random, "gradient"), torch.enable_grad():
            return _gradient(loss(model(at), y).sum(), [at])[0]

    found = (slope(partial(F.cross_entropy, reduction="none"), x), slope(margin, beside))
    clean, near = (int(_zero(each, x).sum()) for each in found)
    return Sight(len(x), clean, near, cut=found[1] is None)


def view_of(subject: Subject, x: Tensor, y: Tensor, epsilon: float, sight: Sight) -> View | None:
    """A view of a network with a better gradient than its own; None where its own will do, or none was found."""
    if not sight.dim:
        return None
    try:
        found = _repaired(subject.inside, x, y)
    except (RuntimeError, ValueError, TypeError, LookupError):  # a network that bears no hooks has no view
        return None
    if found is None:
        return None
    through, route, said = found
    model = AuditedNetwork(through, subject.probabilities and through.head is None, subject.model.passes)
    view = View(route, model.eval(), f"{subject.name}: {said}")
    seen = look(subject, x, y, epsilon, model)
    return view if seen.margin < sight.margin / 2 and _leads(model, x, y, epsilon) else None


def _leads(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> bool:
    """Does the margin rise higher along the gradient than along random signs, on most images?"""
    with drawing(True, "lead"):
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(margin(model(at), y).sum(), at)
        signs = [slope.sign(), *((2 * torch.randint(0, 2, x.shape) - 1).to(x) for _ in range(4))]
    with torch.no_grad():
        reached = []
        for sign in signs:
            with drawing(True, "lead"):
                reached.append(margin(model((x + epsilon * sign).clamp(0, 1)), y))
    return bool((reached[0] > torch.stack(reached[1:]).amax(0)).double().mean() > 0.5)


class Through(nn.Module):
    """A network whose pass is changed at the boundaries of its modules; what it computes stays the same.

    links: the gradient at one boundary goes on at an earlier one, as if all between were the identity.
    head: the boundary whose tensor is returned in the place of the network's own answer.
    """

    steady = False  # Python runs at every call, which a replayed graph would leave out

    def __init__(self, network: nn.Module, links: Mapping[Key, Key], head: Key | None = None) -> None:
        super().__init__()
        self.network, self.links, self.head = network, dict(links), head
        self._names = {key[0] for key in (*self.links, *self.links.values(), *([head] if head else []))}

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, lambda key, t: t, self._names)

    def run(self, x: Tensor, visit: Visit, names: set[str] | None = None) -> Tensor:
        """A pass in which `visit` may also change what passes the boundaries of the named modules, or of all."""
        held: dict[Key, Tensor] = {}
        sources = set(self.links.values())

        def both(key: Key, t: Tensor) -> Tensor:
            if key in self.links:
                with torch.inference_mode(False), torch.enable_grad():
                    slope = _shaped(held[self.links[key]], t)
                    t = t if slope is None else t.detach() + (slope - slope.detach())
            t = visit(key, t)
            if key in sources or key == self.head:
                held[key] = t
            return t

        with _boundaries(self.network, len(x), both, names):
            out: Tensor = self.network(x)
        return out if self.head is None else held[self.head]


@contextmanager
def _boundaries(network: nn.Module, n: int, visit: Visit, names: set[str] | None) -> Iterator[None]:
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


class _Place(NamedTuple):
    """What passed a boundary, and whether a gradient came back to it."""

    key: Key
    t: Tensor
    alive: bool


def _repaired(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Through, str, str] | None:
    """The network with as few links as give it a gradient, a name of the view, and what was done in words."""
    places, out = _passed(Through(network, {}), x, y)
    best = out.amax(1, keepdim=True)

    def agreement(place: _Place) -> float:
        """On how many images its class is the network's, or one of those that tie."""
        return float((out.gather(1, place.t.argmax(1, keepdim=True)) == best).double().mean())

    alike = [place for place in reversed(places) if place.t.shape == out.shape and not torch.equal(place.t, out)]
    ranked = sorted(((agreement(place), place.key) for place in alike), key=lambda each: each[0], reverse=True)
    heads = [key for share, key in ranked if share >= AGREEING]
    found = [(head, links) for head in (*heads, None) if (links := _links(network, x, y, head)) is not None]
    if not found:
        return None
    head, links = min(found, key=lambda each: len(each[1]))
    gaps = [f"from {_where(live)} back to {_where(dead)}" for live, dead in links.items()]
    said = []
    if head is not None:
        said.append(f"its answer loses the gradient, so attacks see {_where(head)} as its logits")
    if gaps:
        more = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
        said.append(
            f"no gradient passes {gaps[0]}{more}, so attacks put the identity there (BPDA, Athalye et al. 2018)"
        )
    return Through(network, links, head), STRAIGHT_THROUGH if gaps else INNER_LOGITS, f"{'; '.join(said)}."


def _where(key: Key) -> str:
    name, side, call = key
    what = f"the {'input' if side == 'in' else 'output'} of {name}" if name else f"its {side}put"
    return f"{what} (call {call})" if call > 1 else what


def _links(network: nn.Module, x: Tensor, y: Tensor, head: Key | None) -> dict[Key, Key] | None:
    """Links that carry the gradient of the margin back to the images, from the end on; None where none do."""
    links: dict[Key, Key] = {}
    for _ in range(MOST_LINKS):
        places, _ = _passed(Through(network, links, head), x, y)
        if places[0].alive:
            return links
        first = next((at for at, place in enumerate(places) if place.alive), None)
        if first is None or (live := places[first]).key in links:
            return None
        dead = next((place for place in reversed(places[:first]) if _shaped(place.t, live.t) is not None), None)
        if dead is None:
            return None
        links[live.key] = dead.key
    return None


def _passed(through: Through, x: Tensor, y: Tensor) -> tuple[list[_Place], Tensor]:
    """The boundaries of a pass in their order, and the answer. A boundary without a gradient begins a new graph, so
    that one pass shows what every part behind it passes back."""
    seen: list[tuple[Key, Tensor]] = []

    def visit(key: Key, t: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            if t.requires_grad:
                seen.append((key, t))
                return t
            leaf = t.detach().clone().requires_grad_()
            seen.append((key, leaf))
            return leaf.clone()

    with drawing(True, "view"), torch.enable_grad():
        out = through.run(x.detach(), visit)
        finite = out.nan_to_num(0.0)
        gradients = _gradient(margin(finite, y).sum(), [t for _, t in seen])
    places = [
        _Place(key, t.detach(), bool(_zero(gradient, t).double().mean() <= VANISHED))
        for (key, t), gradient in zip(seen, gradients, strict=True)
    ]
    return places, out.detach()


def _gradient(loss: Tensor, at: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(at)
    found: Sequence[Tensor | None] = torch.autograd.grad(loss, at, retain_graph=True, allow_unused=True)
    return found


def _zero(gradient: Tensor | None, at: Tensor) -> Tensor:
    """bool (n,): images whose gradient is exactly zero."""
    if gradient is None:
        return torch.ones(len(at), dtype=torch.bool)
    return (gradient.flatten(1).nan_to_num(0.0) == 0).all(1).cpu()


def _shaped(source: Tensor, like: Tensor) -> Tensor | None:
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
