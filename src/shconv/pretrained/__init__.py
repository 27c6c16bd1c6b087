"""Networks that people share: folders in the Hugging Face layout, and other people's networks as a start."""

from shconv.pretrained.converted import ConvertedConfig
from shconv.pretrained.folder import from_pretrained, save_pretrained

__all__ = ["ConvertedConfig", "from_pretrained", "save_pretrained"]
