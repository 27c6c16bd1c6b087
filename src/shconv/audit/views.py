"""Has a network a gradient that attacks can use? Where it has none, a view of it that has one: an identity backward in
the place of what passes none (BPDA, Athalye et al. 2018), or the logits before what saturates, ties or votes. A view
decides as the network does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shconv.attacks.losses import gradient_at, margin
from shconv.audit.subject import FEW, AuditedNetwork, Subject, drawing
from shconv.audit.through import Heads, Key, ReadOut, Through, mean_of, shaped

VANISHED = 0.05  # of the images, with a gradient that is exactly zero: above this there is something to repair
BLIND = 0.5  # of the images: attacks by gradient then see nothing of the network
AGREEING, VOTING = 0.75, 0.5  # of the images, with the network's class: inner logits, and each of several that vote
MOST, MANY = 0.5, 0.25  # of the images, on which a view leads further: random signs, and the network's own gradient
MOST_LINKS = 64
STRAIGHT_THROUGH, INNER_LOGITS = "straight-through", "inner logits"


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
    """A network as only an attack sees it. `route` is what rows call it, `said` a sentence about it.

    beside: the network's own gradient is of use too.
    """

    route: str
    model: AuditedNetwork
    said: str
    beside: bool


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
    try:
        wanted = sight.dim or (len(x) > FEW and _ranks_twice(subject.inside, x[:FEW]))  # with so few time is short
        found = _repaired(subject.inside, x, y, sight.dim) if wanted else None
    except (RuntimeError, ValueError, TypeError, LookupError):  # a network that bears no hooks has no view
        return None
    if found is None:
        return None
    through, route, said = found
    model = AuditedNetwork(through, subject.probabilities and not through.heads, subject.model.passes).eval()
    if sight.dim:
        better = (
            look(subject, x, y, epsilon, model).margin < sight.margin / 2 and _lead(model, model, x, y, epsilon) > MOST
        )
    else:
        better = _lead(model, subject.model, x, y, epsilon) > MANY
    return View(route, model, f"{subject.name}: {said}", beside=not sight.dim) if better else None


def _lead(model: nn.Module, judge: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> float:
    """On which share of the images the judge's margin rises higher along the model's gradient than along random signs;
    where it has a gradient of its own, than along that too."""

    def slope(network: nn.Module) -> Tensor:
        at = x.clone().requires_grad_()
        return gradient_at(at, margin(network(at), y)).sign()

    with drawing(True, "lead"):
        signs = [slope(model), *((2 * torch.randint(0, 2, x.shape) - 1).to(x) for _ in range(4))]
        signs += [] if judge is model else [slope(judge)]
    with torch.no_grad():
        reached = []
        for sign in signs:
            with drawing(True, "lead"):
                reached.append(margin(judge((x + epsilon * sign).clamp(0, 1)), y))
    return float((reached[0] > torch.stack(reached[1:]).amax(0)).double().mean())


def _ranks_twice(network: nn.Module, x: Tensor) -> bool:
    """Do logits pass a boundary that rank the classes otherwise than the answer?"""
    seen: list[Tensor] = []

    def visit(_: Key, t: Tensor) -> Tensor:
        seen.extend([t] if t.dim() == 2 else [])
        return t

    with drawing(True, "view"), torch.no_grad():
        out = Through(network, {}).run(x, visit)
    return any(t.shape == out.shape and not torch.equal(t.argsort(1), out.argsort(1)) for t in seen)


class _Place(NamedTuple):
    """What passed a boundary, and whether a gradient came back to it."""

    key: Key
    t: Tensor
    alive: bool


def _repaired(network: nn.Module, x: Tensor, y: Tensor, dim: bool) -> tuple[Through, str, str] | None:
    """The network with as few links as give it a gradient, a name of the view, and what was done in words.

    dim: whether it has none. Else only inner logits are looked for that rank the classes otherwise.
    """
    places, out = _passed(Through(network, {}), x, y)
    best = out.amax(1, keepdim=True)

    def agreement(logits: Tensor) -> float:
        """On how many images their class is the network's, or one of those that tie."""
        return float((out.gather(1, logits.argmax(1, keepdim=True)) == best).double().mean())

    alike = [place for place in reversed(places) if place.t.shape == out.shape and not torch.equal(place.t, out)]
    if not dim:
        alike = [place for place in alike if not torch.equal(place.t.argsort(1), out.argsort(1))]
    members = list({tuple(place.t.flatten().tolist()): place for place in alike}.values())  # with answers of their own
    voting = [place for place in members if agreement(place.t) > VOTING]
    singles: list[Heads] = [(place.key,) for place in sorted(alike, key=lambda each: agreement(each.t), reverse=True)]
    together = [tuple(place.key for place in voting)] if len(voting) > 1 else []
    values = {place.key: place.t for place in alike}
    several: list[Heads] = [
        heads for heads in (*together, *singles) if agreement(mean_of([values[key] for key in heads])) >= AGREEING
    ]
    several += [()] if dim else []
    found: list[Through] = []
    for heads in several:
        found += [through] if (through := _linked(network, x, y, heads)) is not None else []
        if found and not found[-1].links:
            break
    features = [place for place in reversed(places) if place.t.dim() == 2 and place.t.shape != out.shape]
    for place in features if dim and not found else []:
        read = ReadOut.of(place.t, out.argmax(1), out.shape[1])
        if agreement(read(place.t)) >= AGREEING:
            found += [through] if (through := _linked(network, x, y, (place.key,), read)) is not None else []
            break
    if not found:
        return None
    through = min(found, key=lambda each: len(each.links))
    heads, links = through.heads, through.links
    gaps = [f"from {_where(live)} back to {_where(dead)}" for live, dead in links.items()]
    said = []
    if heads:
        what = (
            f"the mean of {len(heads)} boundaries, the first {_where(heads[0])},"
            if len(heads) > 1
            else _where(heads[0])
        )
        what = what if through.read is None else f"how near {what} is to each class's mean there"
        why = "its answer loses the gradient, so" if dim else "its own gradient shows less, so some"
        said.append(f"{why} attacks see {what} as its logits")
    if gaps:
        more = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
        said.append(
            f"no gradient passes {gaps[0]}{more}, so attacks put the identity there (BPDA, Athalye et al. 2018)"
        )
    return through, STRAIGHT_THROUGH if gaps else INNER_LOGITS, f"{'; '.join(said)}."


def _where(key: Key) -> str:
    name, side, call = key
    what = f"the {'input' if side == 'in' else 'output'} of {name}" if name else f"its {side}put"
    return f"{what} (call {call})" if call > 1 else what


def _linked(network: nn.Module, x: Tensor, y: Tensor, heads: Heads, read: ReadOut | None = None) -> Through | None:
    """With links that carry the gradient of the margin back to the images, from the end on; None where none do."""
    links: dict[Key, Key] = {}
    for _ in range(MOST_LINKS):
        through = Through(network, links, heads, read)
        try:
            places, _ = _passed(through, x, y)
        except RuntimeError:  # the network has used up this graph for a gradient of its own
            return None
        if places[0].alive:
            return through
        first = next((at for at, place in enumerate(places) if place.alive), None)
        if first is None or (live := places[first]).key in links:
            return None
        fit = (place for place in reversed(places[:first]) if shaped(place.t, live.t) is not None)
        dead = min(fit, key=lambda place: place.t.shape != live.t.shape, default=None)  # the last in this very shape
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
