"""`shconv train --model plain10_hypernet` and its like: trained, evaluated and audited by their names."""

import json
from pathlib import Path


def test_trained_and_evaluated_by_its_name(shconv, pictures):
    run = ("train", "--data", f"folder:{pictures}", "--width", 2, "--epochs", 1, "--batch-size", 12)
    for name in ("plain10_hypernet", "plain10_matched"):
        ended = shconv(*run, "--model", name)
        assert ended.code == 0, ended.err
    place = "runs/train/plain10_hypernet-seed0"
    assert json.loads(Path(f"{place}/config.json").read_text())["model"]["name"] == "plain10_hypernet"
    ended = shconv("evaluate", place, "--data", f"folder:{pictures}", "--table2-images", 4, "--tables", "2")
    assert ended.code == 0, ended.err
    assert "plain10_hypernet" in ended.out
    assert shconv("train", "--model", "plain10_hypernett").message.count("did you mean plain10_hypernet")
