"""The rows of the table: those of the registries, whatever they hold."""

from dataclasses import dataclass

import pytest

from shconv.errors import InputError
from shconv.relatives import RELATIVES
from shconv.rivals import which
from shconv.rivals.which import Rival, rivals, settings_of
from shconv.training.defences import DEFENCES, Plain


def test_all_is_the_vanilla_network_each_layer_and_each_defence_of_each_network():
    rows = rivals(["plain10", "resnet18"], ["all"])
    names = [row.name for row in rows]
    for vanilla in ("plain10", "resnet18"):
        wanted = {f"{vanilla}_{layer}" for layer in ("shc", "matched", *RELATIVES)}
        wanted |= {f"{vanilla}-{defence}" for defence in DEFENCES if defence != "none"} | {vanilla}
        assert {name for name in names if name.startswith(vanilla)} == wanted
    assert len(names) == len({*names})
    assert names[0] == "plain10"
    assert all(row.model.startswith(row.vanilla) for row in rows)


def test_a_defence_that_is_registered_is_a_row(monkeypatch):
    @dataclass(frozen=True)
    class Own(Plain):
        name = "own"

    monkeypatch.setitem(DEFENCES, "own", Own)
    monkeypatch.setattr(which, "OTHERS", tuple(name for name in DEFENCES if name != "none"))
    assert Rival("plain10", "", "own") in rivals(["plain10"], ["all"])
    assert settings_of("own", []) == Own()


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (["pgd"], ["plain10", "plain10-pgd"]),
        (["shc+pgd", "shc"], ["plain10", "plain10_shc", "plain10_shc-pgd"]),
        (["pgd", "none", "matched", "pgd"], ["plain10", "plain10_matched", "plain10-pgd"]),
        (["pgd+dfn_local"], ["plain10", "plain10_dfn_local-pgd"]),
    ],
)
def test_names_of_defences_and_layers_may_be_given_alone_and_together(asked, names):
    assert [row.name for row in rivals(["plain10"], asked)] == names


@pytest.mark.parametrize(
    ("word", "said"), [("pgdd", "got 'pgdd'; did you mean pgd"), ("shc+se", "got 'shc+se'"), ("shc+ppgd", "pgd")]
)
def test_another_word_is_refused_with_what_is_near(word, said):
    with pytest.raises(InputError, match=said.replace("+", r"\+")):
        rivals(["plain10"], [word])


def test_a_defence_that_needs_networks_has_undefended_ones_of_two_sizes():
    needing = [row for row in rivals(["plain10"], ["all"]) if row.sources]
    assert [row.defence for row in needing] == ["ensemble"]
    assert [source.name for source in needing[0].sources] == ["plain10", "plain10_matched"]
