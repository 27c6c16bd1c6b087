"""Networks that people share: folders in the Hugging Face layout, and other people's networks as a start."""

from shconv.pretrained.converted import ConvertedConfig
from shconv.pretrained.folder import Config, from_pretrained, load_network, save_pretrained
from shconv.pretrained.hub import push_to_hub

__all__ = ["Config", "ConvertedConfig", "from_pretrained", "load_network", "push_to_hub", "save_pretrained"]
