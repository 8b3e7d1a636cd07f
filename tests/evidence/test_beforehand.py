"""The pilot and the paces, on real runs of the smallest kind."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gear.config_json import read
from gear.evidence import pace, pilot
from gear.evidence.scales import Scale

pytestmark = pytest.mark.usefixtures("stand_ins")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pace_has_the_seconds_of_every_way_to_train(small_scale: Scale, tmp_path: Path, monkeypatch, precision):
    monkeypatch.setattr(pace, "ROUNDS", 1)
    monkeypatch.setattr(pace, "FIRST", 0)
    scale = replace(small_scale, base=replace(small_scale.base, precision=precision))
    found = json.loads(pace.pace(scale, tmp_path, "cpu").read_text())
    assert set(found["seconds"]) == {*pace.TIMED, *map(pace.stored, pace.STORING)}
    assert all(0 < each["least"] <= each["median"] <= each["largest"] for each in found["seconds"].values())


def test_the_pilot_tries_each_rate_and_leaves_the_others(small_scale: Scale, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pilot, "CANDIDATES", (("efficientnet_lite0", 3),))
    monkeypatch.setattr(pilot, "READ", 20)
    monkeypatch.setattr(pilot, "RATES", {"tokenizer": (1e-3, 2e-3), "generator": (1e-4, 3e-3)})
    found = json.loads(pilot.pilot(small_scale, tmp_path, tmp_path, "cpu", Console(quiet=True)).read_text())
    assert [(r["group"], r["rate"]) for r in found["learning_rates"]] == [
        *(("tokenizer", rate) for rate in (1e-3, 2e-3)),
        *(("generator", rate) for rate in (1e-4, 3e-3)),
    ]
    asked = read(tmp_path / "cpu" / "pilot-generator-0.0001" / "config.json")
    assert (asked.seed, asked.optimizer.generator_lr, asked.optimizer.tokenizer_lr) == (pilot.SEED, 1e-4, 2e-3)
    assert asked.tokenizer.init == str(tmp_path / "cpu" / "pilot-tokenizer-0.002")
    (target,) = found["targets"]
    assert (target["target"], target["layer"], target["channels"]) == ("efficientnet_lite0", 3, 40)


def test_a_linear_classifier_reads_what_is_linear_and_nothing_from_noise():
    labels = torch.arange(400) % 4
    x = torch.randn(400, 6)
    assert pilot.accuracy(x, labels, 200) < 0.4
    x[:, 0] += 20.0 * (labels % 2)
    x[:, 3] -= 20.0 * (labels // 2)
    assert pilot.accuracy(x, labels, 200) == 1.0
