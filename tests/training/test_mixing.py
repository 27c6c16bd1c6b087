"""MixUp and CutMix: what a step sees, with which labels; a function of seed, epoch and step."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loop_toys import Training
from stops import before_step, interrupt
from torch import Tensor

from shconv.errors import InputError
from shconv.training import Engine, Recipe, create_defence
from shconv.training.defences import Step
from shconv.training.mixing import mixing

pytestmark = pytest.mark.usefixtures("toy_network")


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_in_the_shares_of_the_images(recipe: Recipe, kind: str) -> None:
    assert mixing(recipe, 3) is None
    mix = mixing(replace(recipe, **{kind: 1.0}), 3)
    assert mix is not None
    labels = torch.tensor([0, 1, 2])
    images = torch.eye(3)[labels][:, :, None, None].expand(-1, -1, 8, 8).contiguous()  # channel k of class k is 1
    for seed in range(4):
        torch.manual_seed(seed)
        mixed, soft = mix(images, labels)
        torch.testing.assert_close(mixed.mean((2, 3)), soft)
        assert soft.shape == (3, 3)
        assert ((mixed == 0) | (mixed == 1)).all() == (kind == "cutmix")


def test_stopped_continued_or_in_micro_batches_the_same_mixtures_are_learnt(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training.but(epochs=2, mixup=0.4, cutmix=1.0, augmentation="trivialaugment")
    seen: list[tuple[Tensor, Tensor]] = []
    original = Step.cross_entropy

    def cross_entropy(self: Step, logits: Tensor, y: Tensor) -> Tensor:
        seen.append(y)
        return original(self, logits, y)

    monkeypatch.setattr(Step, "cross_entropy", cross_entropy)
    whole = training.run("whole")
    soft, seen[:] = torch.cat(seen), []
    assert soft.shape == (2 * 4 * 16, 3)
    assert (soft.amax(1) < 1).any()
    with monkeypatch.context() as patch:
        before_step(patch, 6, interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.run("stopped", engine=Engine(save_steps=5))
    training.run("stopped", workers=1)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]
    seen.clear()
    training.run("parts", engine=Engine(accumulation=2))
    assert torch.equal(torch.cat(seen), soft)
    assert whole.history[-1]["train_accuracy"] <= 1


@pytest.mark.parametrize("name", ["fgsm-rs", "stability"])
def test_a_defence_refuses_mixed_labels(tmp_path: Path, training: Training, name: str) -> None:
    with pytest.raises(InputError, match=f"defence {name} needs images of one label each"):
        training.but(mixup=0.2).run("folder", defence=create_defence(name), progress=True)
    assert not (tmp_path / "folder").exists()
