"""`gear table`: the paper's numbers and ours."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tyro

from gear.commands.table import table
from gear.config import Gear
from gear.config_json import to_json
from gear.recipes import RECIPES


def called(*args: object) -> None:
    tyro.cli(table, prog="gear table", args=[str(arg) for arg in args])


def evaluated(folder: Path, recipe: str, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    model = {"name": recipe, "recipe": recipe, "steps": 300}
    whole = {
        "protocol": "adm",
        "metrics": {"gfid": {"value": 12.3456, "n": 1000}},
        "settings": settings,
        "model": model,
    }
    whole |= {"reference": {"path": "imagenet.npz"}, "warnings": ["Few images."]}
    (folder / "results.json").write_text(json.dumps(whole))
    return folder


def test_without_runs_it_is_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    called("9")
    said = capsys.readouterr().out
    assert said.startswith("**Table 9. Ablation of the model size.**")
    assert "**7.693**" in said
    assert said.count("not run") == 6


def test_ours_stand_below_with_what_they_were_measured_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = evaluated(tmp_path / "mine", "table06-lambda-0.5", cfg_scale=1.0)
    called("8", folder)
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("| mine"))
    assert "12.346" in line  # as many decimals as the paper
    assert "n = 1,000, 300 steps of the row's 400,000, against imagenet.npz; warnings: Few images." in said
    assert "not said" not in said


def test_a_scale_that_is_not_known_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("8", evaluated(tmp_path / "mine", "gear-l"))
    assert "scale of guidance not said, taken as none" in capsys.readouterr().out


def test_a_run_that_did_not_keep_to_the_recipe_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of its folder alone would have put it there."""
    folder = evaluated(tmp_path / "gear-l", "gear-l", cfg_scale=1.0)
    kept = RECIPES["gear-l"]()
    config = replace(kept, stage=Gear(tau=0.2), data=replace(kept.data, path="elsewhere"))
    (folder / "config.json").write_text(to_json(config))
    called("8", folder)
    said = capsys.readouterr().out
    assert "- gear-l is not table08-vq-gear as it stands: stage.tau: 0.1 -> 0.2." in said
    (folder / "config.json").write_text(to_json(kept))
    called("8", folder)
    assert "as it stands" not in capsys.readouterr().out


def test_latex(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("1", evaluated(tmp_path / "my_run", "cifar10", cfg_scale=1.0), "--format", "latex")
    said = capsys.readouterr().out
    assert r"my\_run &  &  &  & 12.35 &" in said
    assert r"\toprule" in said


@pytest.mark.parametrize("number", [15, 16, 17])
def test_settings(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    called(number)
    assert "| here " in capsys.readouterr().out


def test_there_is_no_table_0() -> None:
    with pytest.raises(ValueError, match="no Table 0; it has 1 to 19"):
        called("0")
