"""results.json: written whole, read back, and refused where it is something else."""

import json
import sys
from pathlib import Path

import pytest
import torch

from gear.evaluate import results
from gear.evaluate.results import Metric, Model, Results, ResultsError


def made(**fields) -> Results:
    metrics = {"gfid": Metric(3.25, 100, (3.0, 3.5), "jackknife"), "kid": Metric(-1e-4, 100)}
    settings = {"n": 100, "seed": 0}
    whole = Results("adm", metrics, {"kind": "folder"}, {"kind": "npz"}, settings, {"a.pth": "0f"}, ["few"], 1.25)
    return Results(**{**vars(whole), **fields})


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/gear", "evaluate", "adm", "my run"])
    path = results.write(tmp_path / "new", made(model=Model("run", steps=7), more={"points": [1]}))
    found = results.read(path)
    assert found == results.read(tmp_path / "new") == json.loads(path.read_text())
    assert found["format"] == 1
    assert found["metrics"]["gfid"] == {"value": 3.25, "n": 100, "interval": [3.0, 3.5], "note": "jackknife"}
    assert found["metrics"]["kid"]["interval"] is None
    assert found["model"] == {"name": "run", "recipe": None, "stage": None, "steps": 7, "params": None}
    assert found["command"] == "gear evaluate adm 'my run'"
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert (found["points"], found["weights"], found["warnings"]) == ([1], {"a.pth": "0f"}, ["few"])
    assert found.keys() >= {"protocol", "source", "reference", "settings", "hardware", "date", "seconds"}


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        results.write(tmp_path, made(metrics={"gfid": Metric(float("nan"), 100)}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as results"),
        ("[]", "it says None"),
        ('{"format": 2}', "it says 2"),
        ('{"format": 1, "metrics": {"gfid": 3}}', 'each with a "value"'),
    ],
)
def test_another_file_is_refused(text: str, said: str, tmp_path: Path):
    (tmp_path / results.NAME).write_text(text)
    with pytest.raises(ResultsError, match=said):
        results.read(tmp_path)


def test_a_missing_file_says_what_makes_it(tmp_path: Path):
    with pytest.raises(ResultsError, match="`gear evaluate` writes it"):
        results.read(tmp_path)


def test_the_table_has_a_line_for_each():
    lines = results.table(made().metrics).splitlines()
    assert lines[0].split() == ["gfid", "3.2500", "[3,", "3.5]", "n", "=", "100;", "jackknife"]
    assert lines[1].split() == ["kid", "-0.0001", "n", "=", "100"]
