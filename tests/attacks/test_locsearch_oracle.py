"""LocSearchAdv against a second implementation: one image, one pixel, one forward pass at a time, lists and loops."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from shconv.attacks import LocSearchAdv

Place = tuple[int, int]


class Network:
    """Two layers, three classes, float64."""

    def __init__(self, inputs: int, gain: float = 1.0, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.randn(16, inputs, generator=generator, dtype=torch.float64) / inputs**0.5
        self.second = gain * torch.randn(3, 16, generator=generator, dtype=torch.float64)

    def __call__(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.first.T).tanh() @ self.second.T


@dataclass
class Found:
    image: list[list[list[float]]]  # [channel][row][column]
    rounds: list[list[Place]] = field(default_factory=list)
    p: list[float] = field(default_factory=list)
    queries: int = 0


def brute_force(network: Network, image: Tensor, label: int, rules: LocSearchAdv) -> Found:
    """Every candidate is probed (no max_probes) and the first candidates are all pixels: nothing is drawn at random."""
    channels, height, width = image.shape
    found = Found(image.tolist())
    everywhere = [(y, x) for y in range(height) for x in range(width)]
    candidates, last_use, p = list(everywhere), {}, rules.p

    def p_y(picture: list[list[list[float]]]) -> float:
        found.queries += 1
        return float(network(torch.tensor([picture], dtype=torch.float64)).softmax(1)[0, label])

    def wrapped(value: float) -> float:
        v = rules.r * (value - 0.5)
        return (v + 1 if v < -0.5 else v - 1 if v > 0.5 else v) + 0.5

    def pushed(value: float) -> float:
        return 0.5 + p * ((value > 0.5) - (value < 0.5))

    for now in range(rules.steps):
        free = [place for place in everywhere if now - last_use.get(place, -(10**9)) > rules.exclude_rounds]
        candidates = [place for place in candidates if place in free]
        if len(candidates) < rules.pixels_per_step:
            candidates = free
        change = wrapped if rules.probe == "cyclic" else pushed
        scores = {}
        for y, x in candidates:
            probe = [[list(row) for row in channel] for channel in found.image]
            for channel in range(channels):
                probe[channel][y][x] = change(probe[channel][y][x])
            scores[y, x] = p_y(probe)
        best = sorted(candidates, key=lambda place: scores[place] * (-1 if rules.order == "highest" else 1))
        selected = best[: rules.pixels_per_step]
        for y, x in selected:
            last_use[y, x] = now
            for channel in range(channels):
                found.image[channel][y][x] = wrapped(found.image[channel][y][x])
        found.rounds.append(selected)
        found.p.append(p)
        if selected and rules.adapt_p and rules.probe == "perturb":
            mean = sum(scores[place] for place in selected) / len(selected)
            p = min(10.0, 2 * p) if mean > 0.9 else max(0.5, p / 2) if mean < 0.3 else p
        candidates = [
            (y, x)
            for y, x in everywhere
            if any(abs(y - b) <= rules.half_width and abs(x - a) <= rules.half_width for b, a in selected)
        ]
        found.queries += 1  # the look at the new image
    return found


SEARCHES = {
    "default rules": LocSearchAdv(pixels_per_step=2, steps=6, half_width=1),
    "cyclic probes": LocSearchAdv(pixels_per_step=2, steps=6, half_width=1, probe="cyclic"),
    "highest score": LocSearchAdv(pixels_per_step=1, steps=6, half_width=2, order="highest"),
    "pixels used again after three rounds": LocSearchAdv(pixels_per_step=3, steps=12, half_width=1, exclude_rounds=3),
    "pixels used again at once": LocSearchAdv(pixels_per_step=1, steps=5, half_width=1, exclude_rounds=0),
    "squares of one pixel run out every round": LocSearchAdv(pixels_per_step=2, steps=5, half_width=0),
    "more pixels than the image has": LocSearchAdv(pixels_per_step=3, steps=12, half_width=1),
    "another r": LocSearchAdv(pixels_per_step=2, steps=8, half_width=2, r=0.7, exclude_rounds=2),
    "fixed p": LocSearchAdv(pixels_per_step=2, steps=6, half_width=1, p=10.0, adapt_p=False),
}


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 3, 7)])
@pytest.mark.parametrize("gain", [1.0, 4.0])
@pytest.mark.parametrize("name", SEARCHES)
def test_search_of_many_images_finds_what_brute_force_finds_one_by_one(
    name: str, gain: float, shape: tuple[int, int, int]
) -> None:
    rules = LocSearchAdv(**{**vars(SEARCHES[name]), "initial_fraction": 1.0, "max_probes": None, "batch_size": 11})
    network = Network(shape[0] * shape[1] * shape[2], gain)
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1])
    result = rules.run(network, images, labels, trace=True)
    assert result.trace is not None
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        wanted = brute_force(network, image, label, rules)
        width = shape[2]
        chosen = [[(n // width, n % width) for n in step if n >= 0] for step in result.trace.pixels[i].tolist()]
        assert chosen == wanted.rounds
        assert result.trace.p[i].tolist() == wanted.p
        assert int(result.queries[i]) == wanted.queries
        torch.testing.assert_close(
            result.images[i], torch.tensor(wanted.image, dtype=torch.float64), rtol=0, atol=1e-12
        )
