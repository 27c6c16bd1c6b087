"""Before a network's first step on a GPU: the kernels of its filtered convolutions compile side by side."""

import copy

import torch
from torch import Tensor

from shconv.layers import SHConv2d
from shconv.ops.cuda.ahead import compile_ahead
from shconv.routes import ROUTES, gradient_route
from shconv.training.learner import Learner

_IMAGES = 8  # kernels are the same for any number


def compiled_ahead(learner: Learner, image: Tensor) -> int:
    """Compiles what training on such images (C, H, W) launches, and what attacks on the trained network do in float32;
    how many kernels that is. Neither the network nor a random state changes."""
    network, device, dtype = learner.network, learner.device, learner.dtype
    if device.type != "cuda" or not any(isinstance(each, SHConv2d) for each in network.modules()):
        return 0
    own = copy.deepcopy(network)
    images = torch.zeros(_IMAGES, *image.shape, device=device).contiguous(memory_format=learner.layout)

    def passes() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = own.train()(images).sum()
        loss.backward()
        own.eval().requires_grad_(False)
        for route in ROUTES:
            with gradient_route(own, route):
                own(images.clone().requires_grad_()).sum().backward()
        with torch.no_grad():
            own(images)

    with torch.random.fork_rng(devices=[device]):
        return compile_ahead(passes, device)
