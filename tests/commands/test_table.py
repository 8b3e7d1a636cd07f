"""`gear table`: the paper's numbers and ours."""

import json
from pathlib import Path
from typing import Any

import pytest
import tyro

from gear.commands.table import table


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
