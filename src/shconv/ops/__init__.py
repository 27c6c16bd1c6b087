"""The filtered convolution: one definition (reference) and several ways to compute it."""

from shconv.ops import flops, layer, reference
from shconv.ops.choice import FORMULATIONS
from shconv.ops.op import filtered_conv2d

__all__ = ["FORMULATIONS", "filtered_conv2d", "flops", "layer", "reference"]
