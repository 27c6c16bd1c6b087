"""Figure 4: for one image, the gradient of the loss J (cross-entropy of the least-likely class) with respect to its red
channel, through both routes, the convolution route, the hypernetwork route, and "strict": every path through a filter
map."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks.losses import gradient_at
from shconv.experiments.network import WITH_STRICT, routed
from shconv.experiments.run_folder import file_name
from shconv.experiments.study import Study


def save(study: Study) -> None:
    """arrays/figure4_MODEL-seedS.npz for every SHC network."""
    for pair in study.pairs:
        image = study.selected(pair, study.counts.table3)[:1]
        for network in (member for member in pair.members if member.is_shc):
            name = f"arrays/figure4_{file_name(network.name)}-seed{network.seed}"
            if (study.folder.path / f"{name}.npz").exists():
                continue
            for x, y, _, _ in study.batches(image):  # of which there is one at most
                gradients = {route: _red_gradient(network.model, x[:1], route) for route in WITH_STRICT[True]}
                channel = {1: "grey image", 3: "red channel"}.get(x.shape[1], "first channel")
                about = {"label": study.data.classes[int(y[0])], "objective": "least_likely", "channel": channel}
                study.folder.save_arrays(name, {"red": x[0, 0].cpu().numpy(), **gradients, **about})


def _red_gradient(model: nn.Module, x: Tensor, route: str) -> NDArray[np.float32]:
    """dJ/dx of the red channel (H, W) for one image x (1, 3, H, W)."""
    x = x.clone().requires_grad_()
    with routed(model, route) as seen, torch.enable_grad():
        logits = seen(x)
        gradient = gradient_at(x, F.cross_entropy(logits, logits.argmin(1)))
    return gradient[0, 0].cpu().numpy()
