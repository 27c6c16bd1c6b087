"""Formulations made of torch's own operations: they serve on every device, for every dtype that torch convolves."""

from torch import Tensor

from shconv.ops.geometry import Geometry
from shconv.ops.plain import grouped, shifted, unfold

FORMULATIONS = {"grouped": grouped, "unfold": unfold, "shifted": shifted}


def choose(x: Tensor, weight: Tensor, geometry: Geometry) -> str:
    """Materialised kernels win while they are small beside the activations. `shconv bench op` shows both."""
    height, width = geometry.output_size(x, weight)
    activations = x[0].numel() + weight.shape[0] * height * width if len(x) else 0
    if weight.numel() <= 2 * activations:
        return "grouped"
    return "unfold" if shifted.reasons_against(x, weight, geometry) else "shifted"
