"""Networks run from CUDA graphs where they are asked for logits and gradients of the same kind again and again: by
attacks and evaluations. Forward pass, and backward pass down to the images, are a graph each; the bits are the same."""

from shconv.replaying.network import module_of, replaying

__all__ = ["module_of", "replaying"]
