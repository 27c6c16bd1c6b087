"""Statistical Hyper-Convolution for PyTorch: a convolution whose kernel is filtered image by image."""

from shconv import attacks, metrics, ops
from shconv.convert import is_3x3, to_shc
from shconv.errors import InputError
from shconv.layers import SHConv2d
from shconv.models import create_model, list_models
from shconv.routes import frozen_kernels, gradient_route, record_filter_maps

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "SHConv2d",
    "attacks",
    "create_model",
    "frozen_kernels",
    "gradient_route",
    "is_3x3",
    "list_models",
    "metrics",
    "ops",
    "record_filter_maps",
    "to_shc",
]
