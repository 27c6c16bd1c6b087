"""The watch on a defence: a PGD attack after each epoch, and the warning of a sudden fall."""

import pytest
import torch
from loop_toys import Training

from shconv.data import ImageData
from shconv.training import ModelConfig, job
from shconv.training.defences import FGSMRS
from shconv.training.defences.overfitting import collapse, pgd_accuracy

pytestmark = pytest.mark.usefixtures("toy_network")


def test_the_watch_leaves_the_network_as_it_is_and_sees_the_same_each_time(
    data: ImageData, config: ModelConfig
) -> None:
    model = config.build()
    model(torch.rand(8, 3, 8, 8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert data.train is not None
    state = torch.get_rng_state()
    first, again = (pgd_accuracy(model, data.train, 0.02, 3, "cpu") for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("accuracies", "warned"),
    [
        ([0.0], False),
        ([0.1, 0.3, 0.4], False),
        ([0.4, 0.3, 0.21], False),
        ([0.1, 0.4, 0.35, 0.19], True),
        ([0.4, 0.0], True),
        ([0.4, 0.0, 0.3], False),
    ],
)
def test_a_fall_of_more_than_a_fifth_below_the_best_is_called_catastrophic(
    accuracies: list[float], warned: bool
) -> None:
    said = collapse([{"pgd_accuracy": each} for each in accuracies])
    assert (said is not None) == warned
    if said is not None:
        assert f"fell from {max(accuracies):.1%} to {accuracies[-1]:.1%}" in said


def test_the_lines_of_an_epoch_show_the_attacked_accuracies_and_the_warning(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    falling = iter([0.5, 0.4, 0.1])
    monkeypatch.setattr(job, "pgd_accuracy", lambda *_: next(falling))
    result = training.run(defence=FGSMRS(0.1), progress=True)
    title, _, few, *lines = capsys.readouterr().err.splitlines()
    assert "may be too few to learn" in few
    assert title.startswith("toy, seed 0, defence fgsm-rs, on toy: ")
    assert [line.split()[0] for line in lines] == ["epoch", "epoch", "epoch", "warning:"]
    assert "PGD 50.00%" in lines[0]
    assert f"adversarial {result.history[0]['adversarial_accuracy']:6.2%}" in lines[0]
    assert "catastrophic overfitting" in lines[3]
    assert [row["warning"] is None for row in result.history] == [True, True, False]
    assert result.history[2]["warning"] in lines[3]
