"""Which gradients flow through an SHC layer and which maps it uses, as context managers: the back-propagation routes
(section 2.2), frozen kernels (the quasi decision boundary of section 4.1), and a record of the maps."""

from shconv.routes.gradient import ROUTES, HypernetworkPaths, gradient_route, scale_gradient
from shconv.routes.in_force import in_force
from shconv.routes.maps import constant_maps, frozen_kernels, holds_a_batch, record_filter_maps
from shconv.routes.record import Routes, shc_layers

__all__ = [
    "ROUTES",
    "HypernetworkPaths",
    "Routes",
    "constant_maps",
    "frozen_kernels",
    "gradient_route",
    "holds_a_batch",
    "in_force",
    "record_filter_maps",
    "scale_gradient",
    "shc_layers",
]
