"""The paper's networks: Plain-10, ResNet-18, ResNet-50, their SHC counterparts, and the same with other layers."""

from shconv.models.detector import DetectorNetwork
from shconv.models.noise import NoiseNetwork
from shconv.models.registry import all_models, create_model, list_models, matched_width, vanilla_of

__all__ = [
    "DetectorNetwork",
    "NoiseNetwork",
    "all_models",
    "create_model",
    "list_models",
    "matched_width",
    "vanilla_of",
]
