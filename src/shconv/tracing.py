"""torch.fx: a module of ours is one node of a traced graph, whoever traces it (symbolic_trace, torchvision's feature
extractors), as torch's own modules are. What it does depends on its routes, which a graph of its parts would forget."""

from typing import Any

from torch import Tensor, fx, nn

from shconv.errors import InputError


def traced(x: object) -> bool:
    """Whether x stands for a tensor in a graph that is being traced."""
    return isinstance(x, fx.Proxy)


def as_leaf(module: nn.Module, *inputs: Any) -> Tensor:
    """The call of a module that is being traced, as one node; to be returned where forward meets an fx.Proxy.

    Raises:
        InputError: the module is itself what is traced, so that there is no name to call it by.
    """
    tracer = next(each.tracer for each in inputs if traced(each))
    if tracer.root is module:
        raise InputError(
            f"torch.fx cannot trace a {type(module).__name__} by itself, as it is one node of a graph: trace "
            "nn.Sequential(module), or the network it is part of"
        )
    node: Tensor = tracer.create_proxy("call_module", tracer.path_of_module(module), inputs, {})
    return node
