"""A network that reckons with noise on its images: it takes the image for the mean of normal pixels and carries mean
and variance through every layer (Jin et al. 2015)."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shconv.errors import InputError
from shconv.models.moments import Moments, add, average, relu, reshaped, rule_of, through
from shconv.numbers import number

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    operator.add: add,
    operator.iadd: add,
    torch.add: add,
    torch.flatten: reshaped,
    torch.relu: relu,
    F.relu: lambda x, inplace=False: relu(x),
}
METHODS: dict[str, Callable[..., Any]] = {
    "add": add,
    "add_": add,
    "flatten": reshaped,
    "relu": relu,
    "relu_": relu,
    "mean": lambda x, dim, keepdim=False: average(x, dim, keepdim),
}


class Name(NamedTuple):
    """Of a value that an earlier call gave."""

    text: str


class Call(NamedTuple):
    """A step of the network: a layer by its name, a function, or a method by its name."""

    name: str
    kind: str  # call_module, call_function or call_method
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class NoiseNetwork(nn.Module):
    """Images (N, C, H, W) in [0, 1] -> logits (N, K): the mean of the network's logits under pixel noise N(0, sigma^2).

    In closed form and with the network's own parameters, in three times its time, with SHC layers six times. torch.fx
    reads the network; layers and operations without a rule are refused. Raises InputError for those, and for a sigma
    out of range.
    """

    def __init__(self, network: nn.Module, sigma: float | str = 0.1) -> None:
        super().__init__()
        self.network, self.sigma = network, number("sigma", sigma, high=1, above=True)
        self.calls = tuple(_calls(network))

    def forward(self, x: Tensor) -> Tensor:
        return self.moments(x).mean

    def moments(self, x: Tensor) -> Moments:
        """Mean and variance of each logit, both (N, K)."""
        values: dict[str, Any] = {INPUT: Moments(x, torch.full_like(x, self.sigma**2))}
        for call in self.calls:
            args = [values[each.text] if isinstance(each, Name) else each for each in call.args]
            if call.kind == "call_module":
                values[call.name] = through(self.network.get_submodule(call.target), args[0])
            else:
                rules: dict[Any, Callable[..., Any]] = FUNCTIONS if call.kind == "call_function" else METHODS
                values[call.name] = rules[call.target](*args, **call.kwargs)
        found: Moments = values[self.calls[-1].name]
        return found

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"


INPUT = "x"


def _calls(network: nn.Module) -> list[Call]:
    """The steps of a network from one image batch to logits. Raises InputError for a step without a rule."""
    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:  # torch.fx raises what the network's own code does
        raise InputError(f"the noise model cannot read this {type(network).__name__}: {error}") from error
    names: dict[fx.Node, Name] = {}
    calls = []
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = Name(INPUT)
        elif node.op != "output":
            _check(node, network)
            names[node] = Name(node.name)
            args = tuple(names[each] if isinstance(each, fx.Node) else each for each in node.args)
            calls.append(Call(node.name, node.op, node.target, args, dict(node.kwargs)))
    return calls


def _check(node: fx.Node, network: nn.Module) -> None:
    if node.op == "call_module":
        rule_of(network.get_submodule(str(node.target)))
        return
    known: dict[Any, Any] = {"call_function": FUNCTIONS, "call_method": METHODS}.get(node.op, {})
    if node.target not in known:
        name = getattr(node.target, "__name__", node.target)
        raise InputError(f"the noise model has no rule for the operation {name}")
