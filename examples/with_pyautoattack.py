"""AutoAttack's APGD (pyautoattack) on an SHC network: on its whole gradient, and on the convolution route's.

    python examples/with_pyautoattack.py

Uses random images and an untrained network; the labels are its own predictions. Replace them by your own.
Both attacks start from the same point and differ only in the gradient that they follow.
"""

import torch
from pyautoattack import AutoAttack
from torch import Tensor

import shconv


def main(n_images: int = 32, steps: int = 20, epsilon: float = 1 / 255) -> tuple[Tensor, dict[str, Tensor]]:
    """The images, and what became of them by the gradient's route."""
    images = torch.rand(n_images, 3, 16, 16)
    model = shconv.create_model("plain10_shc", num_classes=4, stem="small", width=4)
    with torch.no_grad():
        for _ in range(20):  # batch norm sees its statistics, in training's place
            model(images)
        labels = model.eval()(images).argmax(1)

    attack = AutoAttack(
        model, version="custom", attacks=["apgd-ce"], eps=epsilon, seed=0
    )  # "standard" is the whole suite
    attack.apgd.n_iter, attack.apgd.n_restarts = steps, 1

    found = {}
    for route in ("both", "convolution"):  # the whole gradient; the filter maps held constant
        with shconv.gradient_route(model, route):
            found[route], _ = attack.run_standard_evaluation(images, labels)
        with torch.no_grad():
            accuracy = (model(found[route]).argmax(1) == labels).float().mean()
        print(f"gradient route {route}: accuracy {accuracy:.0%}")
    return images, found


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
