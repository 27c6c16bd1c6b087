"""What Python's users give by mistake is refused in a line that says what is wanted."""

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
    "no network": (lambda: shconv.to_shc("resnet18"), "model: got str; want a torch.nn.Module"),
    "no network to a relative": (lambda: shconv.relatives.to_relative("resnet18", "se"), "model: got str; want"),
    "no network to report on": (lambda: shconv.conversion_report("resnet18"), "model: got str; want"),
    "no network to undo": (lambda: shconv.to_vanilla("resnet18"), "model: got str; want"),
    "classes in words": (lambda: shconv.create_model("plain10", num_classes="10"), "and integers, got '10', 3, 64"),
    "pretrained": (lambda: shconv.create_model("plain10", pretrained=True), "pretrained: got True; want a checkpoint"),
    "device": (lambda: shconv.evaluate(network(), (X, Y), {"f": FGSM}, device="gpu"), "device: got 'gpu'; want one of"),
    "logits inside": (lambda: FGSM(lambda x: {"logits": x}, X, Y), "they are its .logits: wrap the network"),
}


@pytest.mark.parametrize(("call", "message"), GIVEN.values(), ids=GIVEN)
def test_refused_with_what_is_wanted(call, message) -> None:
    with pytest.raises(InputError, match=message):
        call()
