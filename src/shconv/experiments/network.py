"""A trained network under its name, its pair, and how an attack sees it through a gradient route."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from shconv.attacks.checks import IN_PLACE, channels_last, check_logits_shape
from shconv.errors import InputError, first_line, is_short_of_memory
from shconv.metrics import answered
from shconv.routes import ROUTES, HypernetworkPaths, gradient_route, shc_layers

SAME = 1e-4  # two passes that differ by more, relative to the largest logit, are random
HUGE = 1e30  # in the place of an infinite logit
LATER = ("settings",)  # of an identity, what folders of earlier versions lack
ALL_ROUTES = (*ROUTES, "strict")
ROUTES_OF = {False: ("both",), True: ROUTES}  # by whether it is an SHC network
WITH_STRICT = {False: ("both",), True: ALL_ROUTES}


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network, in eval mode on the study's device."""

    name: str
    seed: int
    model: nn.Module

    @property
    def is_shc(self) -> bool:
        return bool(shc_layers(self.model))

    @cached_property
    def attacked(self) -> nn.Module:
        """The model as attacks are given it."""
        return (FiniteDetector if hasattr(self.model, "joint") else Finite)(self.model)

    @property
    def key(self) -> str:
        return f"{self.name}/seed{self.seed}"

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def digest(self) -> str:
        """Of all weights and buffers: tells a network from another one of its name."""
        sha = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            sha.update(name.encode())
            sha.update(_content(value))
        return sha.hexdigest()[:16]

    @property
    def identity(self) -> dict[str, str]:
        """What tells a network from another one of its name, as run folders keep it."""
        return {"weights": self.digest, "settings": _settings(self.model)}


def _content(value: Any) -> bytes:
    """Of a tensor its numbers; quantized modules hold tuples of tensors and types too."""
    if isinstance(value, tuple | list):
        return b"".join(map(_content, value))
    if not isinstance(value, Tensor):
        return repr(value).encode()
    plain = value.detach().cpu()
    plain = plain.dequantize() if plain.is_quantized else plain.to_dense() if plain.layout != torch.strided else plain
    content: bytes = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return content


def _settings(model: nn.Module) -> str:
    """A digest of the numbers with a fraction that its modules hold beside the weights, such as the constants of a
    normalisation; private ones left out."""
    held = [(key, value) for module in model.modules() for key, value in sorted(vars(module).items())]
    kept = [(key, value) for key, value in held if _is_fractional(value) and not key.startswith("_")]
    return hashlib.sha256(repr(kept).encode()).hexdigest()[:16]


def _is_fractional(value: object) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(_is_fractional(each) for each in value)
    return type(value) is float


class Finite(nn.Module):
    """A network whose logits and gradients attacks can use: without NaN and infinity."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self._finite(self.network, x)

    def _finite(self, ask: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return finite(check_logits_shape(ask(finite_gradient(x)), len(x)))


class FiniteDetector(Finite):
    """One with a detector: `joint` is what fools both."""

    def joint(self, x: Tensor, y: int) -> Tensor:
        network: Any = self.network
        return self._finite(lambda at: network.joint(at, y), x)


def finite(logits: Tensor) -> Tensor:
    """Logits (N, K) that an attack can use: 0 for an image without an answer, a huge number for minus infinity."""
    return torch.where(answered(logits)[:, None], logits, 0.0).nan_to_num(neginf=-HUGE)


def finite_gradient(x: Tensor) -> Tensor:
    """x itself; in its gradient NaN becomes 0, infinity a huge number."""
    same: Tensor = _FiniteGradient.apply(x)
    return same


class _FiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].nan_to_num(0.0, HUGE, -HUGE).contiguous()  # pyautoattack views it


@dataclass(frozen=True, eq=False)
class Pair:
    """A vanilla network and its SHC twin, trained with one seed; or one network alone."""

    members: tuple[Network, ...]

    @property
    def key(self) -> str:
        return "+".join(member.name for member in self.members) + f"-seed{self.members[0].seed}"


@torch.no_grad()
def first_logits(name: str, model: nn.Module, x: Tensor) -> Tensor:
    """What a network returns for images (n, C, H, W). Raises InputError where it takes none or gives no logits."""
    given = x.clone()
    try:
        out = model(given)
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if is_short_of_memory(error):  # of this batch: a smaller one may do
            raise
        shape, batch = tuple(x.shape[1:]), f" in a batch of {len(x)}" if len(x) > 1 else ""
        hint = channels_last(shape)
        raise InputError(
            f"{name} cannot take images of shape {shape} in [0, 1]{batch}: {first_line(error)}{hint}"
        ) from error
    if not given.is_inference() and given._version:
        raise InputError(IN_PLACE.replace("model:", f"{name}:", 1))
    try:
        return check_logits_shape(out, len(x))
    except InputError as error:
        raise InputError(str(error).replace("model:", f"{name}:", 1)) from None


def same_answers(first: Tensor, second: Tensor) -> bool:
    """Of two passes: the same up to what the order of additions does to floating point."""
    scale = float(first.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return torch.allclose(first, second, rtol=SAME, atol=SAME * scale, equal_nan=True)


def in_other_company(x: Tensor) -> Tensor:
    """A batch like x (n, C, H, W) that has its first image and no other one of it."""
    return x[:1].expand_as(x).contiguous()


def routes_of(network: Network) -> tuple[str, ...]:
    """The gradient routes that a network has."""
    return ROUTES_OF[network.is_shc]


@contextmanager
def routed(model: nn.Module, route: str) -> Iterator[nn.Module]:
    """The model as an attack sees it through a route: one of gradient_route's, or "strict"."""
    if route == "strict":
        yield HypernetworkPaths(model).eval()
    else:
        with gradient_route(model, route):
            yield model
