"""Audits made by hand: images of known hardness, so that each attack's outcome and the worst case can be worked out."""

import math

import numpy as np

from shconv.intervals import wilson

EPS, EPS_L2 = 8 / 255, 0.5
# (label, threat, route, network the examples are made on, strength): the hardest image it breaks
HEADLINE = (
    ("10,000 random signs", "linf", "both", None, 0.05),
    ("FGSM", "linf", "both", None, 0.45),
    ("PGD-10, cross-entropy", "linf", "both", None, 0.58),
    ("PGD-50 × 5, cross-entropy", "linf", "both", None, 0.62),
    ("PGD-50 × 5, DLR", "linf", "both", None, 0.63),
    ("PGD-50 × 5, margin, targeted", "linf", "both", None, 0.64),
    ("PGD-50, cross-entropy", "linf", "convolution", None, 0.93),
    ("PGD-50, cross-entropy", "linf", "frozen", None, 0.90),
    ("PGD-50, cross-entropy", "linf", "mixture:0.3", None, 0.95),
    ("PGD-50, transferred", "linf", "both", "resnet18", 0.80),
    ("Square, 5,000 queries", "linf", "both", None, 0.88),
    ("HopSkipJump", "linf", "both", None, 0.5),
    ("AutoAttack standard", "linf", "both", None, 0.91),
    ("PGD-50 × 5, cross-entropy", "l2", "both", None, 0.5),
    ("PGD-50, cross-entropy", "l2", "convolution", None, 0.85),
    ("LocSearchAdv, cyclic probe", "pixels", "both", None, 0.3),
)
WHOLE = ("FGSM", "PGD-50 × 5, cross-entropy", "AutoAttack standard")  # tried on every image that is right when clean
FINDINGS = (
    (1, "gradient routes", True, "The convolution route leaves 7.0 % right, both routes 38.0 %: 31.0 points fewer "
     "(24.7 to 37.6).", "Sun et al. 2017, Table 4; Athalye et al. 2018", "routes"),
    (2, "attack strength", False, "PGD-50 with 5 restarts leaves 38.0 % right, one step 55.0 %; doubling the steps "
     "moves 0.5 points.", "Athalye et al. 2018; Croce and Hein 2020", None),
    (3, "random start", False, "With a random start 38.0 % are right, without 38.5 %.", "Wong et al. 2020", None),
    (4, "budget curve", True, "At 0.5 accuracy is 18.5 %, above chance (10.0 %).", "Carlini et al. 2019", "budget"),
    (5, "transfer", True, "Examples made on ResNet-18 break 34 images that PGD on the network itself did not.",
     "Papernot et al. 2016; Athalye et al. 2018", None),
    (6, "gradient-free", True, "Square breaks 50 of 76 images that PGD left right.", "Andriushchenko 2020", None),
    (7, "random signs", False, "10,000 random signs break no image that gradients did not.", "Carlini 2019", None),
    (8, "gradient diagnostics", True, "The hypernetwork route's gradient is 3.4 times as long as the convolution "
     "route's, and their signs agree on 51 % of the entries.", "Sun et al. 2017; Papernot et al. 2016", "gradients"),
    (9, "loss surface", True, "Along the twin's gradient the loss climbs 2.1 times as fast as along its own.",
     "Tramèr et al. 2017, Figure 1", "surface"),
    (10, "indicators of attack failure", None, "Of six indicators none was raised; the budget left 16 images.",
     "Pintor et al. 2022", None),
    (12, "worst case", None, "Right on every attack: see above.", "", None),
)  # fmt: skip


def add_audit(run_folder, model="resnet18_shc", seed=0, *, n=200, strength=1.0, masked=True, finished=True, twin=True):
    """All rows and arrays of one audit. ``strength`` scales how hard the images are, ``masked`` raises the alarms."""
    rng = np.random.default_rng([seed, *map(ord, model)])
    hardness, clean = rng.random(n) * strength, rng.random(n) < 0.74
    confident = clean & (rng.random(n) < 0.6)
    standing = {threat: clean.copy() for threat in ("linf", "l2", "pixels")}
    shc = model.endswith("_shc")
    for place, (label, threat, route, source, reach) in enumerate(HEADLINE):
        if (not shc and route != "both") or source == model:
            continue
        whole = label in WHOLE or route != "both"
        tried = clean if whole else standing[threat].copy()
        complete = finished or label != "AutoAttack standard"
        broken = tried & (hardness < (reach if masked else 0.6 + 0.1 * reach))
        right = int((clean & ~broken).sum())
        _attack(
            run_folder, model, seed, f"{place:02d}", label, threat=threat, route=route, source=source,
            epsilon={"linf": EPS, "l2": EPS_L2, "pixels": math.inf}[threat],
            n=int(tried.sum()), successes=int(broken.sum()), accuracy=right / n if whole and complete else None,
            interval=list(wilson(right, n)) if whole and complete else None, headline=True, complete=complete,
            seconds=0.7 * (place + 1),
            parameters={"steps": 50, "restarts": 5, "loss": "cross_entropy"},
        )  # fmt: skip
        standing[threat] &= ~broken
    for eps in (0.5, 1.0):
        _attack(
            run_folder, model, seed, f"curve-{eps:g}", f"PGD-50 at ε {eps:g}", threat="linf", route="both", source=None,
            epsilon=eps, n=64, successes=52, accuracy=None, complete=True, seconds=2.5, interval=None, headline=False,
            parameters={"steps": 50},
        )  # fmt: skip
    for number, name, alarm, text, source, figure in FINDINGS if finished else FINDINGS[:8]:
        not_run = "it has no SHC layer" if number == 1 and not shc else ""
        run_folder.rows.append({
            "id": f"audit/{model}/seed{seed}/check/{number:02d}-{name.replace(' ', '-')}", "experiment": "audit",
            "kind": "finding", "model": model, "seed": seed, "check": number, "name": name,
            "alarm": None if not_run else alarm and masked, "text": "" if not_run else text, "not_run": not_run,
            "numbers": {"both": 0.38, "worst": [1, 2]}, "source": source, "seconds": 1.5 * number,
            "array": f"audit-{model}-seed{seed}-{figure}.npz" if figure and not not_run else None,
        })  # fmt: skip
    audit_arrays(run_folder, model, seed, shc=shc)
    if finished:
        _verdict(run_folder, model, seed, clean, confident, standing, twin=twin, masked=masked)


def _attack(run_folder, model, seed, slug, label, **fields):
    run_folder.rows.append({
        "id": f"audit/{model}/seed{seed}/attack/{slug}", "experiment": "audit", "kind": "attack", "model": model,
        "seed": seed, "attack": label, **fields,
    })  # fmt: skip


def share(right):
    n, correct = len(right), int(right.sum())
    return {"correct": correct, "n": n, "accuracy": correct / n, "interval": list(wilson(correct, n))}


def _verdict(run_folder, model, seed, clean, confident, standing, *, twin, masked):
    worst = {"linf": {**share(standing["linf"]), "attacks": 13, "untried": 0}}
    worst["l2"] = {**share(standing["l2"]), "attacks": 2, "untried": 0}
    worst["pixels"] = {**share(standing["pixels"]), "attacks": 1, "untried": 60}
    worst["confident"] = share(standing["linf"][confident])
    text = [
        f"Worst case within L-infinity 8/255: correct on {worst['linf']['correct']} of {len(clean)}.",
        "Alarm, check 1, gradient routes: the convolution route leaves fewer right."
        if masked
        else "None of the checks that ran raised an alarm. That is no evidence of robustness.",
    ]
    against = {"name": "resnet18", "n": len(clean), "accuracy": worst["linf"]["accuracy"], "twin_accuracy": 0.015}
    against |= {"difference": 0.02, "interval": [-0.006, 0.048], "p": 0.21875, "attacks": 13}
    run_folder.rows.append({
        "id": f"audit/{model}/seed{seed}/verdict", "experiment": "audit", "kind": "verdict", "n": len(clean),
        "clean": share(clean), "worst_case": worst, "twin": against if twin else None,
        "alarms": ["gradient routes"] if masked else [], "text": text,
        "preflight": ["The network was in training mode. It is audited in eval mode."] if seed else [],
    })  # fmt: skip


def audit_arrays(run_folder, model="resnet18_shc", seed=0, *, shc=True):
    """The four array files of one audit, from closed forms."""
    stem = f"audit-{model}-seed{seed}"
    epsilon = np.array([0, 1, 2, 4, 8, 16, 32, 64, 127.5, 255]) / 255
    run_folder.arrays(f"{stem}-budget", epsilon=epsilon, accuracy=0.18 + 0.56 * np.exp(-20 * epsilon), chance=0.1)
    if shc:
        accuracy = np.array([0.38, 0.07, 0.085, 0.98, 0.055, 0.21])
        names = np.array(["both", "convolution", "frozen", "hypernetwork", "mixture:0.3", "mixture:2"])
        ends = np.array([wilson(round(200 * each), 200) for each in accuracy])
        run_folder.arrays(f"{stem}-routes", names=names, accuracy=accuracy, low=ends[:, 0], high=ends[:, 1])
    a, b = np.linspace(-1, 2, 19) * 8 / 255, np.linspace(-1, 2, 17) * 8 / 255
    rise = 25 * a[:, None] + 4 * np.sin(60 * a[:, None]) ** 2 + 70 * b[None]
    run_folder.arrays(f"{stem}-surface", a=a, b=b, loss=np.log1p(np.exp(rise)),
                      twin_loss=np.log1p(np.exp(110 * b[None] + 10 * a[:, None])))  # fmt: skip
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:32, 0:32] / 31
    bump = np.exp(-8 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    maps = {"both": rng.normal(size=(32, 32)) * 1e-3 * (1 + 3 * bump)}
    if shc:
        maps |= {"convolution": rng.normal(size=(32, 32)) * 1e-3 * bump, "hypernetwork": np.sin(9 * x * y) * 4e-3}
    run_folder.arrays(f"{stem}-gradients", image=np.stack([x, bump, 1 - y]), **maps)
