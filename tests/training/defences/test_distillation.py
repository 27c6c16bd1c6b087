"""Distillation: softened outputs, and the teacher that is trained first."""

import copy

import torch
import torch.nn.functional as F
from defence_toys import images, linear, source, step, trained_on

from shconv.training.defences import Distillation
from shconv.training.defences.distillation import AtTemperature


def test_distillation_is_the_cross_entropy_of_both_softened_outputs() -> None:
    student, teacher, x = linear(3), linear(3, seed=7, scale=20), images()
    defence, y = Distillation(5.0, (source(teacher),)), torch.arange(6) % 3
    result, batch = trained_on(student, defence, x, y, step(label_smoothing=0.1))
    P, Q = ((network(x).double() / 5).softmax(1) for network in (teacher, student))
    torch.testing.assert_close(result.loss.double(), -5 * (P * Q.log()).sum(1).mean(), rtol=1e-5, atol=1e-6)
    assert torch.equal(batch, x)
    torch.testing.assert_close(result.logits, student(x))  # at temperature 1
    other = defence.loss(student, x, 2 - y, step())
    assert torch.equal(other.loss, result.loss)  # labels say nothing


def test_no_student_is_better_than_one_that_says_what_its_teacher_says() -> None:
    teacher, x, y = linear(3, scale=20), images(), torch.zeros(6, dtype=torch.int64)
    defence = Distillation(5.0, (source(copy.deepcopy(teacher)),))
    teacher.requires_grad_(True)
    loss = defence.loss(teacher, x, y, step()).loss
    loss.backward()
    assert teacher[1].weight.grad is not None
    assert teacher[1].weight.grad.abs().max() < 1e-6
    P = (teacher(x) / 5).softmax(1)
    torch.testing.assert_close(loss, -5 * (P * P.log()).sum(1).mean())  # its entropy


def test_the_teacher_is_trained_at_the_temperature_and_from_other_weights() -> None:
    (name, (how, seed)), *others = Distillation(5.0).first(3).items()
    assert (name, others, how.record()) == ("teacher", [], {"name": "temperature", "temperature": 5.0})
    assert seed != 3
    network, x, y = linear(3), images(), torch.arange(6) % 3
    torch.testing.assert_close(how.loss(network, x, y, step()).loss, 5 * F.cross_entropy(network(x) / 5, y))
    assert isinstance(how, AtTemperature)
    assert Distillation(5.0, (source(linear()),)).first(3) == {}
