"""The paper's networks: Plain-10, ResNet-18, ResNet-50 and their SHC counterparts."""

from shconv.models.registry import create_model, list_models, matched_width

__all__ = ["create_model", "list_models", "matched_width"]
