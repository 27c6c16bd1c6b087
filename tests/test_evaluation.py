"""shconv.evaluate from end to end: an attack of twelve lines, plain modules, own data; what it stores and refuses."""

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shconv
from shconv.attacks import FGSM, PGD, DeepFool, Foreign, Standard
from shconv.audit.subject import Subject
from shconv.errors import InputError
from shconv.intervals import wilson
from shconv.models.normalize import Normalize
from toys import colour_networks, colours

LABELS = torch.tensor([i % 3 for i in range(20)])
IMAGES = colours(LABELS.tolist()).float() / 255
QUICK: dict[str, Any] = {"batch_size": 8, "progress": False}


def sign_step(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), labels), x)
    return (images + 0.05 * gradient.sign()).clamp(0, 1).detach()


def right(model: nn.Module, images: Tensor) -> Tensor:
    """float64 (N,): 1 where the model is right."""
    with torch.no_grad():
        return (model(images).argmax(1) == LABELS).double()


def test_own_functions_and_ours_are_judged_alike() -> None:
    vanilla, shc = colour_networks()
    attacks = {"mine": sign_step, "fgsm": FGSM(0.05, objective="untargeted")}
    results = shconv.evaluate({"plain": vanilla, "shc": shc}, (IMAGES, LABELS), attacks, **QUICK)
    rows = results.rows().set_index(["model", "attack"])
    for name, model in (("plain", vanilla), ("shc", shc)):
        assert rows.loc[(name, "clean"), "accuracy"] == float(right(model, IMAGES).mean())
        wanted = float(right(model, sign_step(model, IMAGES, LABELS)).mean())
        assert rows.loc[(name, "mine"), "accuracy"] == wanted
        assert rows.loc[(name, "fgsm"), "accuracy"] == wanted
    assert rows.loc[("plain", "fgsm"), "threat"] == "L∞ 0.05"
    assert rows.loc[("plain", "mine"), "threat"] == "any change"


def test_an_attack_may_be_given_by_its_name() -> None:
    vanilla, _ = colour_networks()
    attacks = {"named": "fgsm", "made": shconv.attacks.create_attack("fgsm")}
    rows = shconv.evaluate(vanilla, (IMAGES, LABELS), attacks, **QUICK).records
    named, made = (row for row in rows if row["attack"] != "clean")
    assert (named["parameters"], named["accuracy"]) == (made["parameters"], made["accuracy"])


def test_an_attack_meets_no_more_images_than_there_are() -> None:
    """Slow attacks would take hours for copies that fill a batch."""
    met: list[int] = []

    def counting(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        met.append(len(images))
        return images

    shconv.evaluate(colour_networks()[0], (IMAGES, LABELS), {"mine": counting}, batch_size=128, progress=False)
    assert met == [len(IMAGES)]


def test_images_say_what_became_of_each() -> None:
    vanilla, _ = colour_networks()
    results = shconv.evaluate(vanilla, (IMAGES, LABELS), {"mine": sign_step}, keep=True, **QUICK)
    images = results.images(attack="mine")
    adversarial = sign_step(vanilla, IMAGES, LABELS)
    with torch.no_grad():
        logits = vanilla(adversarial)
        wanted = shconv.metrics.rcd(vanilla(IMAGES), logits, LABELS)
    assert images["index"].tolist() == list(range(20))
    assert images["label"].tolist() == LABELS.tolist()
    assert images["prediction"].tolist() == logits.argmax(1).tolist()
    assert images["correct"].tolist() == (logits.argmax(1) == LABELS).tolist()
    assert torch.tensor(images["rcd"]).allclose(wanted, atol=1e-4)
    assert images["clean_correct"].tolist() == right(vanilla, IMAGES).bool().tolist()
    kept = results.outcomes["evaluate/model/seed0/mine/both"]["adversarial"]
    assert torch.from_numpy(kept).allclose(adversarial)


def test_worst_case_is_per_image_over_attacks_that_all_networks_met() -> None:
    vanilla, shc = colour_networks()
    attacks = {"small": FGSM(0.02, objective="untargeted"), "large": FGSM(0.08), "pgd": PGD(0.08, steps=3)}
    results = shconv.evaluate(
        {"plain": vanilla, "shc": shc}, (IMAGES, LABELS), attacks, routes=("both", "convolution"), **QUICK
    )
    worst = results.worst_case().set_index(["model", "threat", "own_routes"])
    images = results.images()
    for model in ("plain", "shc"):
        held = images[(images.model == model) & (images.route == "both")]
        for threat, names in (("L∞ 0.02", ["small"]), ("L∞ 0.08", ["small", "large", "pgd"])):
            of_all = held[held.attack.isin(names)].groupby("index").correct.all()
            line = worst.loc[(model, threat, False)]
            assert line.accuracy == of_all.mean()
            assert line.attacks == len(names)
            assert (line.low, line.high) == wilson(int(of_all.sum()), 20)
    assert worst.loc[("shc", "L∞ 0.08", True)].attacks == 6
    assert ("plain", "L∞ 0.08", True) not in worst.index


def test_an_image_that_an_attack_repairs_is_not_robust() -> None:
    """The clean image lies within every budget: attacked towards another class, a wrong image may become right."""

    def repair(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return (2 * images - sign_step(model, images, labels)).clamp(0, 1)

    vanilla, _ = colour_networks()
    wrong = LABELS.clone()
    wrong[:7] = (wrong[:7] + 1) % 3
    attacks = {"repair": Foreign(repair, epsilon=0.05), "away": FGSM(0.05, objective="untargeted")}
    results = shconv.evaluate({"a": vanilla, "b": vanilla}, (IMAGES, wrong), attacks, **QUICK)
    images = results.images()
    hand = images[images.model == "a"].groupby("index").correct.all()
    assert 0 < hand.mean() < images[(images.model == "a") & (images.attack == "repair")].correct.mean()
    assert results.worst_case().accuracy.tolist() == [hand.mean()] * 2
    assert set(results.summary()["worst case L∞ 0.05"]) == {hand.mean()}
    clean = images[(images.model == "a") & (images.attack == "clean")].correct.mean()
    assert results.curve("a", "repair").accuracy.tolist() == [clean]
    assert results.compare("a", "b").set_index("measure").loc["worst case L∞ 0.05", "a"] == hand.mean()


def test_compare_pairs_the_images() -> None:
    vanilla, shc = colour_networks()
    results = shconv.evaluate({"a": vanilla, "b": shc}, (IMAGES, LABELS), {"mine": sign_step}, **QUICK)
    line = results.compare("a", "b").set_index("measure").loc["mine"]
    a, b = (right(model, sign_step(model, IMAGES, LABELS)) for model in (vanilla, shc))
    assert line.difference == pytest.approx(float(b.mean() - a.mean()))
    assert line.low <= line.difference <= line.high
    same = results.compare("a", "a").set_index("measure").loc["mine"]
    assert (same.difference, same.p) == (0, 1)
    with pytest.raises(InputError, match="compare: got 'c'; want one of a"):
        results.compare("a", "c")


def test_a_folder_goes_on_where_it_was_and_refuses_another_run(tmp_path: Path) -> None:
    vanilla, _ = colour_networks()
    asked = 0

    def counted(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return images

    first = shconv.evaluate(vanilla, (IMAGES, LABELS), {"none": counted}, folder=tmp_path, **QUICK)
    done = asked
    again = shconv.evaluate(vanilla, (IMAGES, LABELS), {"none": counted, "more": sign_step}, folder=tmp_path, **QUICK)
    assert asked == done == 3
    assert len(again.records) == len(first.records) + 1
    assert shconv.results.load(tmp_path).summary().equals(again.summary())
    with pytest.raises(InputError, match="seed"):
        shconv.evaluate(vanilla, (IMAGES, LABELS), {"none": counted}, folder=tmp_path, seed=3, **QUICK)


def test_an_attack_of_others_is_not_asked_what_it_calls_itself() -> None:
    class Endless:
        """As ART's SquareAttack, whose words hold a method of its own."""

        def __repr__(self) -> str:
            raise RecursionError

        def __call__(self, model: Any, images: Tensor, labels: Tensor) -> Tensor:
            return images

    vanilla, _ = colour_networks()
    assert len(shconv.evaluate(vanilla, (IMAGES, LABELS), {"endless": Endless()}, **QUICK).records) == 2


def test_a_folder_that_did_not_keep_the_adversarial_images_is_refused_where_they_are_wanted(tmp_path: Path) -> None:
    networks, data = colour_networks(), (IMAGES, LABELS)
    shconv.evaluate(networks[0], data, {"mine": sign_step}, folder=tmp_path / "a", **QUICK)
    with pytest.raises(InputError, match="without its adversarial images; take another folder"):
        shconv.evaluate(networks[0], data, {"mine": sign_step}, folder=tmp_path / "a", keep=True, **QUICK)
    for keep in (True, False):
        shconv.evaluate(networks[0], data, {"mine": sign_step}, folder=tmp_path / "b", keep=keep, **QUICK)


def test_names_longer_than_a_files_are_no_error(tmp_path: Path) -> None:
    attacks = {f"{'ü' * 200}{end}": sign_step for end in "ab"}
    results = shconv.evaluate(colour_networks()[0], (IMAGES, LABELS), attacks, folder=tmp_path, keep=True, **QUICK)
    results.write_csv(tmp_path, png=True)
    assert len(list((tmp_path / "outcomes").iterdir())) == 3
    assert len(list((tmp_path / "adversarial").iterdir())) == 2
    assert len(shconv.results.load(tmp_path).images()) == 3 * len(IMAGES)


def test_a_folder_refuses_other_images_labels_and_settings_of_the_network(tmp_path: Path) -> None:
    """Rows of other images would be returned as these, as nothing in a name or in weights tells them apart."""
    vanilla, _ = colour_networks()

    def run(images: Tensor, labels: Tensor, mean: float) -> None:
        network = nn.Sequential(Normalize((mean,) * 3, (0.5,) * 3), vanilla)
        shconv.evaluate(network, (images, labels), {"mine": sign_step}, folder=tmp_path, **QUICK)

    run(IMAGES, LABELS, 0.5)
    run(IMAGES, LABELS, 0.5)
    for images, labels, mean, said in (
        (IMAGES * 0.9, LABELS, 0.5, "images_and_labels"),
        (IMAGES, LABELS.flip(0), 0.5, "images_and_labels"),
        (IMAGES, LABELS, 0.4, "settings"),
    ):
        with pytest.raises(InputError, match=f"holds a run with .*{said}"):
            run(images, labels, mean)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strange", [torch.nan, torch.inf])
def test_an_image_whose_logits_are_not_finite_is_wrong_and_attacks_work_on_the_others(
    classes: int, strange: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """argmax finds class 0 among NaN, and the class with the infinite logit; a class at minus infinity is ruled out."""

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = [x[:, 0, 0, 0] * 0 - torch.inf] * (classes - 2)
            logits = torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1] - 0.4, *out], 1)
            return torch.where(x[:, 2, 3, 3, None] == 1, strange, logits)

    x, y = torch.full((16, 3, 4, 4), 0.5), torch.zeros(16, dtype=torch.int64)
    x[:, 2, 3, 3] = (torch.arange(16) == 2).float()
    attacks = {"pgd": PGD(0.3, steps=5, random_start=False), "fgsm": FGSM(0.1), "deepfool": DeepFool()}
    results = shconv.evaluate(Broken(), (x, y), attacks, **{**QUICK, "progress": True})
    rows = results.rows().set_index("attack")
    assert rows.nan.tolist() == [1, 1, 1, 1]
    assert rows.accuracy.tolist() == [15 / 16, 0, 15 / 16, 0]
    clean = results.images(attack="clean")
    assert clean.prediction.isna().tolist() == [place == 2 for place in range(16)]
    assert clean.p_y[2] == 0
    said = capsys.readouterr().err
    assert said.count("model/seed0 returned logits with NaN or infinity on 1 of 16 images: they count as misclass") == 1
    assert "has a gradient with NaN on" not in said
    judged = Subject("Net", Broken(), x, y).judge(x, y)
    assert judged.right.tolist() == clean.correct.tolist()
    assert judged.nan.tolist() == clean.prediction.isna().tolist()


def test_of_a_network_whose_gradient_has_nan_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The square root of 0 has an infinite slope, which a factor 0 makes NaN."""

    class Rooted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.mean((1, 2, 3)), 0.4 + (x * 0).sum((1, 2, 3)).sqrt()], 1)

    data = torch.full((3, 3, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    results = shconv.evaluate(Rooted(), data, {"fgsm": FGSM(0.2, objective="untargeted")}, batch_size=4)
    assert "has a gradient with NaN on 3 of 3 images" in capsys.readouterr().err
    assert results.rows().accuracy.tolist() == [1, 1]


@pytest.mark.parametrize(("attack", "said"), [("fgsm", True), ("gaussian", False), (None, True)])
def test_of_a_network_without_a_gradient_it_is_said_where_attacks_follow_one(
    attack: str | None, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    class Off(nn.Module):
        @torch.inference_mode()
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    data = torch.rand(3, 3, 4, 4), torch.zeros(3, dtype=torch.int64)
    shconv.evaluate(Off(), data, None if attack is None else {attack: attack}, batch_size=4)
    assert ("has a gradient of exactly 0 on 3 of 3 images" in capsys.readouterr().err) == said


def test_images_out_of_range_are_refused_before_a_network_sees_them() -> None:
    with pytest.raises(InputError, match="images: got values from 0 to 2"):
        shconv.evaluate(colour_networks()[0], (255 * IMAGES, LABELS), {"mine": sign_step}, **QUICK)
    with pytest.raises(InputError, match="images: got NaN"):
        shconv.evaluate(colour_networks()[0], (IMAGES / IMAGES, LABELS), {"mine": sign_step}, **QUICK)


def test_a_network_that_works_in_place_is_refused_and_the_images_are_as_they_were() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sub_(0.5).flatten(1)[:, :3]

    images = IMAGES.clone()
    with pytest.raises(InputError, match="net: it changes the images that it is given, by an operation in place"):
        shconv.evaluate({"net": InPlace()}, (images, LABELS), {"mine": sign_step}, **QUICK)
    assert torch.equal(images, IMAGES)


def test_images_of_different_sizes_are_refused_by_their_places() -> None:
    data = [(IMAGES[0], 0), (IMAGES[1], 1), (IMAGES[2, :, :4], 2)]
    with pytest.raises(InputError, match=r"image 0 has shape \(3, 8, 8\), image 2 \(3, 4, 8\); want one shape"):
        shconv.evaluate(colour_networks()[0], data, {"mine": sign_step}, **QUICK)


def test_saved_results_are_a_run_folder_with_csv_and_pictures(tmp_path: Path) -> None:
    vanilla, _ = colour_networks()
    results = shconv.evaluate(vanilla, (IMAGES, LABELS), {"mine": sign_step}, keep=True, images=5, **QUICK)
    results.save(tmp_path / "kept", png=True)
    loaded = shconv.results.load(tmp_path / "kept")
    assert loaded.rows().equals(results.rows())
    assert loaded.images().equals(results.images())
    assert (tmp_path / "kept" / "rows.csv").read_text().startswith("id,experiment,model")
    assert len(list((tmp_path / "kept" / "adversarial" / "evaluate--model--seed0--mine--both").glob("*.png"))) == 5


@pytest.mark.parametrize(
    ("name", "content"),
    [("data.json", "{ half"), ("images.csv", "index,file,label\n0,0,x\n"), ("images.csv", "index,file,label\n0,0,1\n")],
)
def test_a_damaged_file_is_named_where_results_are_read(tmp_path: Path, name: str, content: str) -> None:
    vanilla, _ = colour_networks()
    shconv.evaluate(vanilla, (IMAGES, LABELS), {"fgsm": FGSM(0.1)}, folder=tmp_path, **QUICK)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"{name} is damaged"):
        shconv.results.load(tmp_path).images()


def test_results_are_not_saved_over_those_of_another_run(tmp_path: Path) -> None:
    """Its rows have the same names."""
    runs = [
        shconv.evaluate(colour_networks()[0], (IMAGES, LABELS), {"fgsm": FGSM(epsilon)}, **QUICK)
        for epsilon in (0.01, 0.08)
    ]
    for _ in range(2):
        runs[0].save(tmp_path / "kept")
    with pytest.raises(InputError, match="kept holds another run; take another folder"):
        runs[1].save(tmp_path / "kept")
    assert shconv.results.load(tmp_path / "kept").rows().equals(runs[0].rows())


@dataclass(frozen=True)
class Own(FGSM):
    """A user's attack, with a setting that JSON has no word for."""

    kind: torch.dtype = torch.float32


def test_numbers_of_numpy_are_taken_as_pythons_and_no_result_is_lost_for_others(tmp_path: Path) -> None:
    def rows(attack: Any, number: Any, name: str) -> Any:
        how = {"seed": number(2), "images": number(12), "batch_size": number(8), "progress": False}
        return shconv.evaluate(colour_networks()[0], (IMAGES, LABELS), {"a": attack}, folder=tmp_path / name, **how)

    for name, number, real in (
        ("python", int, float),
        ("numpy", np.int64, np.float64),
        ("again", np.int32, np.float64),
    ):
        results = rows(PGD(real(0.05), steps=number(3), random_start=np.bool_(True)), number, name)
        assert results.records[1]["parameters"] == asdict(PGD(0.05, steps=3))
        stored = json.loads((tmp_path / name / "attacks.json").read_text())
        assert stored == {"a": repr(PGD(0.05, steps=3))}
    own = rows(Own(epsilon=Fraction(1, 20)), int, "own")
    assert own.records[1]["parameters"]["kind"] == "torch.float32"
    assert own.records[1]["parameters"]["epsilon"] == 0.05


def test_of_a_network_that_is_random_or_mixes_its_batch_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    vanilla, _ = colour_networks()

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return vanilla(x) + torch.randn(len(x), 3)

    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return vanilla(x - x.mean(0))

    random, mixing = "net/seed0 is random: two passes", "net/seed0 answers for an image by the other images of its"
    for network, told in ((vanilla, []), (Noisy(), [random]), (Mixing(), [mixing])):
        shconv.evaluate({"net": network}, (IMAGES, LABELS), {"a": FGSM(0.1)}, batch_size=8)
        said = capsys.readouterr().err
        assert [words for words in (random, mixing) if words in said] == told


def test_what_autoattack_leaves_out_for_few_classes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    attacks = {"aa": Standard(0.01, attacks=("apgd-ce", "apgd-t"))}
    shconv.evaluate({"net": colour_networks()[0]}, (IMAGES, LABELS), attacks, images=2, batch_size=8)
    assert "net/seed0, aa: AutoAttack's apgd-t is left out: its loss needs 4 classes" in capsys.readouterr().err


def test_networks_are_compared_by_a_seed_that_both_have() -> None:
    vanilla, shc = colour_networks()
    results = shconv.evaluate({"a": vanilla, "b": shc}, (IMAGES, LABELS), {"mine": sign_step}, **QUICK)
    several = []
    for row in results.records:
        for seed in (3, 1) if row["model"] == "a" else (1, 2):
            id = row["id"].replace("seed0", f"seed{seed}")
            several.append(({**row, "id": id, "seed": seed}, results.outcomes[row["id"]]))
    shifted = [
        (row, {**held, "correct": ~held["correct"]}) if row["seed"] != 1 else (row, held) for row, held in several
    ]
    both = shconv.results.Results([row for row, _ in shifted], {row["id"]: held for row, held in shifted})
    assert both.compare("a", "b").equals(results.compare("a", "b"))
    assert both.compare("a", "b").equals(both.compare("a", "b", seed=1))


def test_two_classes_have_no_relative_confidence_and_everything_else(tmp_path: Path) -> None:
    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            level = x.mean((1, 2, 3))
            return torch.stack([level, 1 - level], 1) * 10

    labels = Bright()(IMAGES).argmax(1)
    results = shconv.evaluate(Bright(), (IMAGES, labels), {"mine": sign_step}, folder=tmp_path, **QUICK)
    assert results.rows()["accuracy"].tolist()[0] == 1.0
    assert results.rows()["rcd_mean"].isna().all()


def test_selection_takes_the_places_or_the_confident_images() -> None:
    vanilla, _ = colour_networks()
    places = shconv.evaluate(vanilla, (IMAGES, LABELS), {"mine": sign_step}, selection=[7, 2, 11], **QUICK)
    assert places.images(attack="mine")["index"].tolist() == [2, 7, 11]
    confident = shconv.evaluate(vanilla, (IMAGES, LABELS), {"mine": sign_step}, selection="confident", **QUICK)
    images = confident.images()
    sure = images[(images.attack == "clean") & images.correct & (images.p_y > 0.9)]["index"].tolist()
    assert images[images.attack == "mine"]["index"].tolist() == sure


def test_the_papers_tables_come_without_attacks() -> None:
    vanilla, shc = colour_networks()
    results = shconv.evaluate(shc, (IMAGES, LABELS), twin=vanilla, images=4, **QUICK)
    rows = results.rows()
    assert {"table1", "table2", "table3", "table4"} <= set(rows.experiment)
    assert set(rows.model) == {"model", "model_shc"}


def test_results_read_well_in_a_terminal_and_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    vanilla, _ = colour_networks()
    results = shconv.evaluate({"<b>": vanilla}, (IMAGES, LABELS), {"[red]": sign_step}, **QUICK)
    results.print()
    out = capsys.readouterr().out
    assert "[red]" in out
    assert "<b>" in out
    assert "&lt;b&gt;" in results._repr_html_()


@pytest.mark.parametrize(
    ("models", "options", "said"),
    [
        ({}, {}, "models: got none"),
        (3, {}, "models: got 3; want a torch.nn.Module, a string, a path or a dict"),
        ({"a/b": nn.Identity()}, {}, "without a slash"),
        (nn.Identity(), {}, "of shape (1, 3, 8, 8); want float logits"),
        (nn.Conv2d(1, 1, 1), {}, "cannot take images of shape (3, 8, 8)"),
        ("colours", {"attacks": {}}, "attacks: got {}; want them by name"),
        ("colours", {"attacks": {"clean": sign_step}}, "and not 'clean'"),
        ("colours", {"selection": [20]}, 'want "confident" or places from 0 to 19'),
        ("colours", {"selection": "sure"}, 'want "confident" or places'),
        ("colours", {"routes": ("up",)}, "routes: got 'up'"),
        ("colours", {"images": 0}, "images: got 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(models: Any, options: dict[str, Any], said: str) -> None:
    network = colour_networks()[0] if isinstance(models, str) else models
    with pytest.raises(InputError) as refused:
        shconv.evaluate(network, (IMAGES, LABELS), **{"attacks": {"mine": sign_step}, **options}, **QUICK)
    assert said in str(refused.value)


def test_rows_that_lack_what_a_report_can_do_without_are_read(tmp_path: Path) -> None:
    vanilla, shc = colour_networks()
    whole = shconv.evaluate({"a": vanilla, "b": shc}, (IMAGES, LABELS), {"fgsm": FGSM(0.1)}, folder=tmp_path, **QUICK)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        for field in ("interval", "seed", "parameters", "seconds", "step"):
            del row[field]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = shconv.results.load(tmp_path)
    for column in ("low", "high", "seed", "accuracy"):
        assert results.rows()[column].tolist() == whole.rows()[column].tolist()
    assert results.worst_case().equals(whole.worst_case())
    assert results.compare("a", "b").equals(whole.compare("a", "b"))
    assert [line[-1] for line in shconv.compare([tmp_path]).text()[1]] == ["–", "–"]
    assert results.save(tmp_path) == tmp_path


def test_outcomes_of_others_may_lack_what_was_not_measured_and_are_refused_where_images_do_not_fit(
    tmp_path: Path,
) -> None:
    vanilla, _ = colour_networks()
    shconv.evaluate(vanilla, (IMAGES, LABELS), {"own": FGSM(0.1)}, folder=tmp_path / "a", **QUICK)
    (place,) = (tmp_path / "a" / "outcomes").glob("*own*.npz")
    index = np.arange(len(LABELS))
    right = index < 5

    def results(**arrays: Any) -> Any:
        np.savez(place, **arrays)
        return shconv.results.load(tmp_path / "a")

    held = results(index=index, correct=right)
    assert held.worst_case()["accuracy"].max() <= 5 / len(index)
    images = held.images(attack="own")
    assert images["correct"].sum() == 5
    assert images["l2"].isna().all()
    with pytest.raises(InputError, match="there are none of image 99"):
        results(index=np.append(index[1:], 99), correct=right).images()
    for damaged in ({"correct": right}, {"index": index, "correct": right[:5]}, {"index": index * 0, "correct": right}):
        with pytest.raises(InputError, match=r"own.*\.npz is missing or damaged"):
            results(**damaged).worst_case()
