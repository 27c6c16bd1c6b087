"""What Python's users give by mistake is refused in a line that says what is wanted."""

import numpy as np
import pytest
import torch

import shconv
import shconv.audit
from shconv.errors import InputError

X, Y = torch.rand(12, 3, 8, 8), torch.arange(12) % 3


def network() -> torch.nn.Module:
    return shconv.create_model("plain10", num_classes=3, stem="small", width=2)


FGSM = shconv.attacks.FGSM(0.1)
GIVEN = {
    "no model": (lambda: FGSM(None, X, Y), "model: got NoneType; want a torch.nn.Module"),
    "images alone": (lambda: shconv.audit.run(network(), X, "8/255"), "data: item 0 has the label shape"),
    "no network": (
        lambda: shconv.to_shc("resnet18"),
        "model: got 'resnet18'; want a torch.nn.Module, such as shconv.create_model or .*from_pretrained gives",
    ),
    "no network to a relative": (lambda: shconv.relatives.to_relative("resnet18", "se"), "model: got 'resnet18'; want"),
    "no network to report on": (lambda: shconv.conversion_report("resnet18"), "model: got 'resnet18'; want"),
    "no network to undo": (lambda: shconv.to_vanilla("resnet18"), "model: got 'resnet18'; want"),
    "classes in words": (
        lambda: shconv.create_model("plain10", num_classes="10"),
        "num_classes: got '10'; want an integer",
    ),
    "pretrained": (
        lambda: shconv.create_model("plain10", pretrained=True),
        "pretrained: got True; want a string, a path, a dict or None",
    ),
    "device": (lambda: shconv.evaluate(network(), (X, Y), {"f": FGSM}, device="gpu"), "device: got 'gpu'; want one of"),
    "a network's name": (
        lambda: shconv.evaluate("resnet18", (X, Y), {"f": FGSM}),
        "models: got the name 'resnet18'; want its folder after training, or the network itself",
    ),
    "an attack's name": (lambda: shconv.evaluate(network(), (X, Y), {"f": "fgms"}), "attack: got 'fgms'.*fgsm"),
    "a data set's name": (
        lambda: shconv.training.train(shconv.training.ModelConfig("plain10", 3), "demo", "short", "x"),
        "data: got 'demo'; want an ImageData, such as shconv.data.load_data gives",
    ),
    "channels last": (
        lambda: shconv.evaluate(torch.nn.Conv2d(3, 1, 1), (X.permute(0, 2, 3, 1), Y), {"f": FGSM}, progress=False),
        r"channels come second: images\.permute\(0, 3, 1, 2\)",
    ),
    "channels last, attacked": (
        lambda: FGSM(torch.nn.Conv2d(3, 1, 1), X.permute(0, 2, 3, 1), Y),
        r"images: got 8 channels; want 3, which the network takes; channels come second",
    ),
    "logits inside": (lambda: FGSM(lambda x: {"logits": x}, X, Y), "they are its .logits: wrap the network"),
}


@pytest.mark.parametrize(("call", "message"), GIVEN.values(), ids=GIVEN)
def test_refused_with_what_is_wanted(call, message) -> None:
    with pytest.raises(InputError, match=message):
        call()


KINDS = {
    "model": (lambda bad: shconv.audit.run(bad, (X, Y), 0.1), (None, "x", 3, [])),
    "sources": (lambda bad: shconv.audit.run(network(), (X, Y), 0.1, sources=bad), ("x", -1, [], torch.rand(2))),
    "seeds": (lambda bad: shconv.audit.run(network(), (X, Y), 0.1, seeds=bad), (-1, [3], {"x": network()})),
    "effort": (lambda bad: shconv.audit.run(network(), (X, Y), 0.1, effort=bad), ("x", 1, {}, object())),
    "images": (lambda bad: shconv.audit.run(network(), (X, Y), 0.1, images=bad), ("x", 2.5, float("nan"), True, 0)),
    "folder": (lambda bad: shconv.audit.run(network(), (X, Y), 0.1, folder=bad), (0, [], b"x")),
    "restarts": (lambda bad: shconv.audit.Effort(restarts=bad), ("x", 1.5, None, -1)),
    "steps": (lambda bad: shconv.audit.Effort(steps=bad), (5, (5,), (0, 1), ("x", "y"))),
    "twin": (lambda bad: shconv.evaluate(network(), (X, Y), {"f": FGSM}, twin=bad), (-1, [], FGSM)),
    "keep": (lambda bad: shconv.evaluate(network(), (X, Y), {"f": FGSM}, keep=bad), (None, "x", 1)),
    "routes": (lambda bad: shconv.evaluate(network(), (X, Y), {"f": FGSM}, routes=bad), (None, "both", 1)),
    "width": (lambda bad: shconv.create_model("plain10", width=bad), ("x", 2.5, True, torch.rand(2))),
    "pattern": (lambda bad: shconv.list_models(bad), (None, 3)),
    "logits": (lambda bad: shconv.metrics.relative_confidence(bad, Y), (None, 1.0, [[1.0]])),
    "inplace": (lambda bad: shconv.to_shc(network(), inplace=bad), (None, "x", torch.rand(2))),
}


@pytest.mark.parametrize(("name", "bad"), [(name, bad) for name, (_, values) in KINDS.items() for bad in values])
def test_an_argument_of_another_kind_is_named(name: str, bad: object) -> None:
    with pytest.raises(InputError, match=f"^{name}\\b.*(want|must be)"):
        KINDS[name][0](bad)


def test_an_argument_of_another_name_is_refused_with_the_functions() -> None:
    with pytest.raises(TypeError, match=r"list_models\(\) got an unexpected keyword argument 'patern'"):
        shconv.list_models(patern="plain*")  # type: ignore[call-arg]


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    for three in (np.int64(3), torch.tensor(3)):
        assert shconv.create_model("plain10", num_classes=three, stem="small", width=2).fc.out_features == 3
    assert shconv.metrics.alarm_threshold(torch.rand(9), np.float32(0.5)) < 1


def test_no_source_has_the_name_that_reports_give_to_the_twin() -> None:
    for twin_name, name in (("twin", "twin"), ("vanilla", "twin vanilla")):
        with pytest.raises(InputError, match=f"sources: got the name '{name}', as reports call the twin"):
            shconv.audit.run(
                network(), (X, Y), 0.1, network(), twin_name=twin_name, sources={name: network()}, progress=False
            )
