"""Attacks on a network that is replayed from recordings find what they find when it is called: on a CPU by the tape
that stands for CUDA, on a GPU by CUDA graphs."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from shconv.attacks import FGSM, IFGSM, PGD, Attack, DeepFool, LocSearchAdv, RandFGSM, Square
from shconv.attacks.jsma import JSMA
from shconv.attacks.substitute import Substitute
from shconv.audit.subject import AuditedNetwork
from shconv.capturing import graphs
from shconv.experiments.network import Finite
from shconv.layers import SHConv2d
from shconv.models import create_model
from shconv.replaying import memory
from shconv.routes import gradient_route
from tape import Tape

ATTACKS: dict[str, Attack] = {
    "fgsm": FGSM(),
    "ifgsm": IFGSM(steps=3, objective="untargeted"),
    "rand_fgsm": RandFGSM(),
    "pgd": PGD(0.05, steps=6, restarts=2),
    "pgd_samples": PGD(0.05, steps=3, samples=2, until_broken=True),
    "square": Square(0.05, queries=8),
    "deepfool": DeepFool(steps=4),
    "jsma": JSMA(steps=3),
    "locsearch": LocSearchAdv(pixels_per_step=2, steps=4, max_probes=10, batch_size=7),
    "substitute": Substitute(seeds=6, rounds=1, epochs=1),
}


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(SHConv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))


def batch(seed: int, n: int = 5, side: int = 8) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)), torch.arange(n) % 5


def found(attack: Attack, model: nn.Module, seed: int) -> tuple[Tensor, Tensor]:
    result = attack.run(model, *batch(seed), seed=seed)
    return result.images, result.queries


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_find_the_same(name: str, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = ATTACKS[name]
    wanted = [found(attack, network, seed) for seed in range(4)]
    tape = Tape()
    monkeypatch.setattr("shconv.replaying.network._CUDA", tape)
    for seed in range(4):
        assert all(map(torch.equal, found(attack, network, seed), wanted[seed])), seed
    assert tape.recorded
    assert tape.replayed


def test_the_network_as_an_evaluation_gives_it_to_attacks_is_replayed(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, wanted = Finite(network), [found(ATTACKS["pgd"], network, seed) for seed in range(4)]
    tape = Tape()
    monkeypatch.setattr("shconv.replaying.network._CUDA", tape)
    for seed in range(4):
        assert all(map(torch.equal, found(ATTACKS["pgd"], given, seed), wanted[seed])), seed
    assert tape.replayed


@pytest.mark.parametrize("route", ["convolution", "hypernetwork"])
def test_attacks_through_one_route_find_the_same(
    route: str, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: Callable[[], AbstractContextManager[None]] = lambda: gradient_route(network, route)  # noqa: E731
    with inside():
        wanted = [found(FGSM(), network, seed)[0] for seed in range(4)]
    tape = Tape()
    monkeypatch.setattr("shconv.replaying.network._CUDA", tape)
    for seed in range(4):
        found(FGSM(), network, seed)  # through both, in turn
        with inside():
            assert torch.equal(found(FGSM(), network, seed)[0], wanted[seed])
    assert tape.recorded == 4


def test_the_watch_of_an_audit_is_called_at_every_pass(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    audited, calls = AuditedNetwork(network.eval().requires_grad_(False)).eval(), []
    audited.watch = lambda: calls.append(1)
    wanted = found(PGD(0.05, steps=6), audited, 0)
    passes = len(calls)
    tape = Tape()
    monkeypatch.setattr("shconv.replaying.network._CUDA", tape)
    for times in range(1, 4):
        assert all(map(torch.equal, found(PGD(0.05, steps=6), audited, 0), wanted))
        assert len(calls) == (1 + times) * passes
    assert tape.recorded == 3


def test_a_network_is_left_as_it_was(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shconv.replaying.network._CUDA", Tape())
    network.train()
    for seed in range(4):
        found(FGSM(), network, seed)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["fgsm", "pgd", "deepfool", "locsearch"])
def test_on_a_gpu_graphs_change_no_bit(name: str) -> None:
    model = create_model("plain10_shc", 5, stem="small", width=16).cuda().eval()
    x, y = (each.cuda() for each in batch(0, 16, 32))
    for seed in range(3):
        with graphs(False):
            wanted = ATTACKS[name].run(model, x, y, seed=seed)
        result = ATTACKS[name].run(model, x, y, seed=seed)
        assert torch.equal(result.images, wanted.images)
    known = memory.NETWORKS[model]
    assert known.pairs, known.reason
