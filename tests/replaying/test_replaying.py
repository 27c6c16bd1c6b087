"""A replayed network gives the logits and gradients that it gives when it is called, whoever holds on to what; and what
may do another thing at each call is called."""

import gc
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from shconv import capturing, replaying
from shconv.layers import SHConv2d
from shconv.models import create_model
from shconv.replaying import memory, network, state
from shconv.routes import HypernetworkPaths, frozen_kernels, gradient_route, record_filter_maps
from tape import Tape

Made = Callable[[], nn.Module]


def small(*more: nn.Module) -> nn.Module:
    parts = [SHConv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *more, nn.Flatten(), nn.Linear(4 * 36, 5)]
    return nn.Sequential(*parts).eval().requires_grad_(False)


def images(seed: int, n: int = 3) -> Tensor:
    return torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def slope(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    logits = model(x)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), x)[0]


def replays(model: nn.Module, tape: Tape, *ask: Callable[[Callable[[Tensor], Tensor]], object]) -> None:
    """Asks often enough that everything is recorded."""
    for _ in range(memory.SEEN + 1):
        for each in ask:
            each(replaying.replaying(model, tape))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    caplog.set_level("INFO", "shconv")
    monkeypatch.setattr(capturing, "_said", set())
    state.is_steady.cache_clear()


@pytest.mark.parametrize("name", ["plain10", "plain10_shc"])
def test_logits_and_gradients_are_those_of_a_call_bit_by_bit(name: str) -> None:
    model, tape = create_model(name, 5, stem="small", width=4).eval().requires_grad_(False), Tape()
    model(images(0))
    with torch.no_grad():
        for seed in range(5):
            assert torch.equal(replaying.replaying(model, tape)(images(seed)), model(images(seed)))
    seen = tape.replayed
    for seed in range(5):
        found, wanted = slope(replaying.replaying(model, tape), images(seed)), slope(model, images(seed))
        assert all(map(torch.equal, found, wanted))
    assert tape.recorded == 3  # logits alone; then forward and backward pass
    assert seen
    assert tape.replayed > seen


def test_results_are_the_callers_own() -> None:
    model, tape = small(), Tape()
    seen = replaying.replaying(model, tape)
    with torch.no_grad():
        kept = [seen(images(seed)) for seed in range(6)]
    slopes = [slope(seen, images(seed)) for seed in range(6)]
    assert tape.recorded == 3
    for seed in range(6):
        assert torch.equal(kept[seed], model(images(seed)))
        assert torch.equal(slopes[seed][1], slope(model, images(seed))[1])


def test_two_graphs_of_gradients_alive_at_once_do_not_mix() -> None:
    model, tape = small(), Tape()
    replays(model, tape, lambda seen: slope(seen, images(0)))
    seen = replaying.replaying(model, tape)
    one, two = (images(seed).requires_grad_() for seed in (1, 2))
    first, second = seen(one), seen(two)
    for x, logits in ((one, first), (two, second)):
        found = torch.autograd.grad(logits.square().sum(), x)[0]
        assert torch.equal(found, slope(model, x.detach())[1])


def test_several_gradients_of_one_pass_are_each_right() -> None:
    model, tape = small(), Tape()
    replays(model, tape, lambda seen: slope(seen, images(0)))
    x, y = images(1).requires_grad_(), images(1).requires_grad_()
    logits, wanted = replaying.replaying(model, tape)(x), model(y)
    before = tape.replayed
    for k in range(5):
        found = torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0]
        assert torch.equal(found, torch.autograd.grad(wanted[:, k].sum(), y, retain_graph=True)[0])
    assert tape.replayed == before + 5


def test_a_second_backward_pass_is_refused_where_the_first_did_not_keep_the_graph() -> None:
    """As by torch: what the pass had computed may be another's by then."""
    model, tape = small(), Tape()
    replays(model, tape, lambda seen: slope(seen, images(0)))
    x = images(1).requires_grad_()
    logits = replaying.replaying(model, tape)(x)
    logits.sum().backward()
    slope(replaying.replaying(model, tape), images(2))
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        logits.sum().backward()


def test_threads_that_ask_one_network_get_their_own_images_results() -> None:
    model, tape = small(), Tape()
    before = sys.getswitchinterval()

    def right(seed: int) -> bool:
        x, seen = images(seed), replaying.replaying(model, tape)
        with torch.no_grad():
            logits = seen(x)
        return torch.equal(logits, model(x)) and all(map(torch.equal, slope(seen, x), slope(model, x)))

    replays(model, tape, lambda seen: slope(seen, images(0)), lambda seen: seen(images(0)))
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(right, range(100)))
    finally:
        sys.setswitchinterval(before)


def test_each_route_is_recorded_for_itself() -> None:
    model, tape = small(), Tape()
    for _ in range(4):
        for route in ("both", "convolution", "hypernetwork"):
            with gradient_route(model, route):
                found, wanted = slope(replaying.replaying(model, tape), images(0)), slope(model, images(0))
            assert all(map(torch.equal, found, wanted)), route
    assert tape.recorded == 6


def test_new_numbers_in_the_weights_count_and_new_weights_are_recorded_anew() -> None:
    model, tape = small(), Tape()
    ask = lambda seen: seen(images(0))  # noqa: E731
    replays(model, tape, ask)
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert torch.equal(replaying.replaying(model, tape)(images(0)), model(images(0)))
    assert tape.recorded == 1
    model[0].weight = nn.Parameter(torch.randn_like(model[0].weight), requires_grad=False)
    model[0].stride = (1, 1)
    replays(model, tape, ask)
    assert torch.equal(replaying.replaying(model, tape)(images(0)), model(images(0)))
    assert tape.recorded == 2


class Own(nn.Linear):
    """A user's own module."""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.train(), "training mode"),
        (lambda model: model.append(Own(5, 5)), "the code of Own may do another thing at each call"),
        (lambda model: model[1].register_forward_hook(lambda *_: None), "a hook is on a BatchNorm2d"),
        (lambda model: setattr(model[2], "forward", lambda x: x), "the call of a ReLU was replaced"),
    ],
)
def test_what_may_do_another_thing_at_each_call_is_called(
    change: Callable[[nn.Module], object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, tape = small(), Tape()
    change(model)
    for _ in range(4):
        assert replaying.replaying(model, tape) is model
    assert tape.recorded == 0
    assert len(caplog.records) == 1
    assert reason in caplog.records[0].message


def test_held_and_recorded_maps_are_not_replayed() -> None:
    model, tape = small(), Tape()
    for _ in range(4):
        with frozen_kernels(model, images(0)):
            assert replaying.replaying(model, tape) is model
        with record_filter_maps(model):
            assert replaying.replaying(model, tape) is model


class Looking(nn.Module):
    """Waits for the device, or changes itself at a call, or draws on the CPU."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.weight, self.what, self.calls = nn.Parameter(torch.ones(5, 3), requires_grad=False), what, 0

    def forward(self, x: Tensor) -> Tensor:
        z = x.mean((2, 3)) @ self.weight.T
        if self.what == "waits" and float(z.sum()) > 1e9:
            return -z
        if self.what == "counts":
            self.calls += 1
        return z + torch.rand(()) if self.what == "draws" else z


@pytest.mark.parametrize(
    ("what", "reason"), [("waits", "waits for the device"), ("counts", "a call changes it"), ("draws", "on the CPU")]
)
def test_code_that_cannot_be_recorded_is_found_out(
    what: str, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "KNOWN", (*state.KNOWN, __name__))
    model, tape = Looking(what).eval(), Tape()
    seen = replaying.replaying(model, tape)
    for _ in range(memory.SEEN + 1):
        seen(images(0))
    assert replaying.replaying(model, tape) is model
    assert tape.recorded == 0
    assert len(caplog.records) == 1
    assert reason in caplog.records[0].message


def test_a_network_in_ever_new_states_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "KNOWN", (*state.KNOWN, __name__))
    model, tape = Looking("counts").eval(), Tape()
    for _ in range(network.STATES):
        replaying.replaying(model, tape)(images(0))
    assert replaying.replaying(model, tape) is model


def test_a_failure_is_said_once_and_everything_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    model, tape = small(), Tape(fails="out of memory")
    for seed in range(5):
        found, wanted = slope(replaying.replaying(model, tape), images(seed)), slope(model, images(seed))
        assert all(map(torch.equal, found, wanted))
    assert [record.message for record in caplog.records] == ["no CUDA graph: Sequential: out of memory"]


def test_where_memory_is_short_while_passes_are_recorded_they_run_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    class Short(Tape):
        def checked(self, run: Callable[[], capturing.Results]) -> tuple[capturing.Results, str]:
            raise torch.OutOfMemoryError("CUDA out of memory.\nIt tells more.")

    model, tape = small(), Short()
    for seed in range(5):
        found, wanted = slope(replaying.replaying(model, tape), images(seed)), slope(model, images(seed))
        assert all(map(torch.equal, found, wanted))
    assert [record.message for record in caplog.records] == ["no CUDA graph: Sequential: CUDA out of memory."]


def test_what_has_no_room_beside_others_makes_room_and_takes_longer_to_come_back_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_most", lambda device: 3.0)
    one, other = small(), small()
    tapes = {one: Tape(size=2), other: Tape(size=2)}
    with torch.no_grad():
        for seed in range(100):
            for model, tape in tapes.items():  # in turns, as a pair of networks is asked
                assert torch.equal(replaying.replaying(model, tape)(images(seed)), model(images(seed)))
                assert sum(len(memory.NETWORKS[each].pairs) for each in tapes if each in memory.NETWORKS) <= 1
    assert 1 <= tapes[one].recorded <= 3
    assert 1 <= tapes[other].recorded <= 3


def test_what_takes_more_than_all_graphs_may_is_given_up_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "_most", lambda device: 2.0**30)
    model, tape = small(), Tape(size=2**30)
    for seed in range(6):
        found, wanted = slope(replaying.replaying(model, tape), images(seed)), slope(model, images(seed))
        assert all(map(torch.equal, found, wanted))
    (record,) = caplog.records
    assert "its passes take 2.0 GB, more than a quarter of the memory" in record.message


def test_a_call_in_inference_mode_leaves_nothing_that_others_stumble_over() -> None:
    model, tape = small(), Tape()
    for seed in range(8):
        seen = replaying.replaying(model, tape)
        with torch.inference_mode() if seed < 4 else torch.no_grad():
            assert torch.equal(seen(images(seed)), model(images(seed)))
        assert torch.equal(slope(seen, images(seed))[1], slope(model, images(seed))[1])
    assert tape.recorded == 3


def test_parameters_that_want_gradients_get_them() -> None:
    model, tape = small().requires_grad_(True), Tape()
    for _ in range(4):
        replaying.replaying(model, tape)(images(0)).sum().backward()
    assert tape.recorded == 0
    assert model[0].weight.grad is not None


def test_graphs_do_not_keep_a_network_alive() -> None:
    model, tape = small(), Tape()
    replays(model, tape, lambda seen: slope(seen, images(0)))
    assert tape.recorded
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_function_and_an_ordinary_cpu_network_stay_what_they_are() -> None:
    model = small()
    assert replaying.replaying(model) is model
    assert replaying.replaying(torch.sin) is torch.sin


def test_the_strict_route_is_the_networks() -> None:
    model, tape = small(), Tape()
    strict = HypernetworkPaths(model).eval()
    for _ in range(4):
        found, wanted = slope(replaying.replaying(strict, tape), images(0)), slope(strict, images(0))
        assert all(map(torch.equal, found, wanted))
    assert tape.recorded == 2
