"""Statistical Hyper-Convolution for PyTorch: a convolution whose kernel is filtered image by image.

SHConv2d is the layer; create_model and to_shc make networks with it. evaluate attacks networks with any of `attacks`,
compare puts several networks into one table, and audit.run checks whether a robustness is real. The command `shconv`
does the same and reproduces the paper.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shconv.threads import ended_in_a_line, wait_without_spinning

wait_without_spinning()  # before torch comes in

with ended_in_a_line():
    from shconv import attacks, metrics, ops, relatives
    from shconv.conversion import conversion_report, is_3x3, load_vanilla, to_shc, to_vanilla
    from shconv.errors import InputError
    from shconv.layers import SHConv2d
    from shconv.models import create_model, list_models
    from shconv.routes import constant_maps, frozen_kernels, gradient_route, record_filter_maps

if TYPE_CHECKING:
    from shconv import audit as audit
    from shconv import data as data
    from shconv import export as export
    from shconv import flops as flops
    from shconv import inspection as inspection
    from shconv import pretrained as pretrained
    from shconv import results as results
    from shconv import training as training
    from shconv.comparing import compare as compare
    from shconv.evaluation import evaluate as evaluate

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "SHConv2d",
    "attacks",
    "constant_maps",
    "conversion_report",
    "create_model",
    "frozen_kernels",
    "gradient_route",
    "is_3x3",
    "list_models",
    "load_vanilla",
    "metrics",
    "ops",
    "record_filter_maps",
    "relatives",
    "to_shc",
    "to_vanilla",
]


def __getattr__(name: str) -> Any:
    """`shconv.audit` and its like, imported when first asked for: they bring torchvision and progress bars along."""
    if name in ("audit", "data", "export", "flops", "inspection", "pretrained", "results", "training"):
        return import_module(f"shconv.{name}")
    if name == "evaluate":
        return import_module("shconv.evaluation").evaluate
    if name == "compare":
        return import_module("shconv.comparing").compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
