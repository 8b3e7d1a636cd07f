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


def evaluated(folder: Path, recipe: str | None, protocol: str = "adm", metric: str = "gfid", **settings: Any) -> Path:
    folder.mkdir(parents=True)
    model = {"name": recipe, "recipe": recipe, "steps": 300} if recipe else None
    whole = {
        "protocol": protocol,
        "metrics": {metric: {"value": 12.3456, "n": 1000}},
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
    assert "n = 1,000, 300 steps of the row's 400,000, against imagenet.npz." in said
    assert "- mine: Few images.\n" in said
    assert "not said" not in said


def test_a_scale_that_is_not_known_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And counts neither as guided nor as without, in a row or among other runs."""
    for recipe in ("table13-resolution-384-gear", "cifar10"):
        called("13", evaluated(tmp_path / recipe, recipe))
        said = capsys.readouterr().out
        assert "12.346" not in said
        assert f"- {recipe}: adm, n = 1,000 against imagenet.npz, is not shown: its scale of guidance is not" in said
        assert "Measure the run itself, or its images beside the note that `gear sample` leaves of them." in said


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


@pytest.mark.parametrize(
    ("recipe", "number", "changes", "told"),
    [
        ("table06-lambda-0.5", 6, {"generator": {"init": "other"}}, "generator.init: None -> other"),
        ("table06-lambda-0.5", 6, {"engine": {"accumulate": 4}}, "engine.accumulate: 1 -> 4"),
        ("table06-lambda-0.5", 6, {"engine": {"recompute": True, "tf32": False}}, None),
        ("table06-lambda-0.5", 6, {"tokenizer": {"init": None}}, "tokenizer.init: runs/warmup-vq -> None"),
        ("table06-lambda-0.5", 6, {"tokenizer": {"init": "warmup-vq-16"}}, None),
        ("table12-without-init", 12, {"tokenizer": {"init": "x"}}, "tokenizer.init: None -> x"),
        ("table08-vq", 8, {"engine": {"accumulate": 4}}, None),
    ],
)
def test_what_could_move_a_number_is_told(
    recipe: str,
    number: int,
    changes: dict[str, dict[str, Any]],
    told: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, config = evaluated(tmp_path / "mine", recipe, cfg_scale=1.0), RECIPES[recipe]()
    for part, fields in changes.items():
        config = replace(config, **{part: replace(getattr(config, part), **fields)})
    (folder / "config.json").write_text(to_json(config))
    called(number, folder)
    said = [line for line in capsys.readouterr().out.splitlines() if "as it stands" in line]
    assert said == ([] if told is None else [f"- mine is not {recipe} as it stands: {told}."])


def test_latex(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("1", evaluated(tmp_path / "my_run", "cifar10", cfg_scale=1.0), "--format", "latex")
    said = capsys.readouterr().out
    assert r"my\_run & my\_run &  &  & 12.35 &" in said
    assert r"\toprule" in said


def test_a_result_that_fits_no_column_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = evaluated(tmp_path / "mine", "gear-l", cfg_scale=2.0)
    called("1", folder)
    said = capsys.readouterr().out
    new = "`gear evaluate adm RUN --reference imagenet.npz --n 1000 --cfg-scale 1` makes a fitting one."
    assert "- mine: adm, n = 1,000 against imagenet.npz, is not shown: it is at CFG 2." in said
    assert f"The table has CFG 1 and 1.5: {new}" in said
    whole = json.loads((folder / "results.json").read_text())
    whole["command"] = "gear evaluate adm 'my run' --cfg-scale 2 --reference imagenet.npz --n 1000"
    (folder / "results.json").write_text(json.dumps(whole))
    called("1", folder)
    again = "`gear evaluate adm 'my run' --reference imagenet.npz --n 1000 --cfg-scale 1` makes a fitting one."
    assert again in capsys.readouterr().out
    called("14", folder)
    assert "not shown" not in capsys.readouterr().out


def test_what_a_benchmark_does_not_say_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = evaluated(tmp_path / "a", None, "geneval", "overall", prompt_set=None, cfg_scale=16.0)
    called("3", folder, evaluated(tmp_path / "b", None, "dpg", "overall", cfg_scale=None))
    said = capsys.readouterr().out
    assert "is not shown: its prompts are not said. The table has CFG 1 and 16; prompts short and long" in said
    assert "--cfg-scale 16 --prompt-set short` makes a fitting one." in said
    assert "b: dpg, n = 1,000 against imagenet.npz, is not shown: its scale of guidance is not said." in said


def test_the_points_of_a_sweep_that_fit_none_are_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = [{"cfg_scale": s, "metrics": {"gfid": {"value": 9.0, "n": 50}}} for s in (1.0, 1.75, 2.0)]
    folder = evaluated(tmp_path / "mine", "cifar10", "sweep", cfg_scale=None, scales=[1.0, 1.75, 2.0, 3.0])
    whole = json.loads((folder / "results.json").read_text()) | {"points": points, "metrics": {}}
    (folder / "results.json").write_text(json.dumps(whole))
    called("1", folder)
    said = capsys.readouterr().out
    assert "is not shown: it is at CFG 1.75 and 2." in said
    assert said.count("not shown") == 1
    assert "3 of 4 scales measured; the same command continues." in said


def test_a_run_without_anything_for_the_table_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("18", evaluated(tmp_path / "mine", "cifar10", cfg_scale=1.0))
    assert "- mine has no results for this table, which holds reconstruction." in capsys.readouterr().out


def test_sampling_that_is_not_the_recipes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called("8", evaluated(tmp_path / "mine", "gear-l", cfg_scale=1.0, temperature=0.8, top_k=0, top_p=0.9))
    said = capsys.readouterr().out
    told = "sampling.temperature: 1.0 -> 0.8; sampling.top_p: 1.0 -> 0.9."
    assert f"- mine is not table08-vq-gear as it stands: {told}" in said
    called("8", evaluated(tmp_path / "kept", "gear-l", cfg_scale=1.0, temperature=1.0, top_k=0, top_p=1.0))
    assert "as it stands" not in capsys.readouterr().out
    called("8", evaluated(tmp_path / "other", "cifar10", cfg_scale=1.0, temperature=0.8))
    assert "against imagenet.npz, temperature: 1.0 -> 0.8." in capsys.readouterr().out


def test_a_probes_target_and_images_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = {"image": {"cka": 0.1, "cknna": 0.2}, "patch": {"cka": 0.1, "cknna": 0.2}}
    for target, said in (("efficientnet_lite0", "efficientnet_lite0 (not DINOv2)"), ("dinov2-b", "dinov2-b")):
        whole = {
            "protocol": "probe", "metrics": {}, "model": {"recipe": "gear-l", "stage": "gear"},
            "source": {"path": "cifar10-test"}, "reference": {"kind": "target encoder", "name": target},
            "similarity": {"target": target, "tokenizer": {"pre": levels, "post": levels}},
        }  # fmt: skip
        (tmp_path / "probe.json").write_text(json.dumps(whole))
        called("4", tmp_path / "probe.json")
        assert f"against {said}, on cifar10-test." in capsys.readouterr().out


def test_warnings_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [evaluated(tmp_path / name, "cifar10", cfg_scale=1.0) for name in ("a", "b")]
    called("8", *folders)
    said = capsys.readouterr().out
    assert "- a, b: Few images.\n" in said
    assert said.count("Few images") == 1
    assert "different n" not in said


def test_numbers_of_different_images_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [evaluated(tmp_path / name, "cifar10", cfg_scale=1.0) for name in ("a", "b")]
    file = folders[0] / "results.json"
    file.write_text(file.read_text().replace("imagenet.npz", "elsewhere.npz"))
    called("8", *folders)
    assert "different n or references: bold compares only those of equal ones." in capsys.readouterr().out


@pytest.mark.parametrize("number", [15, 16, 17])
def test_settings(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    called(number)
    assert "| here " in capsys.readouterr().out


def test_there_is_no_table_0() -> None:
    with pytest.raises(ValueError, match="no Table 0; it has 1 to 19"):
        called("0")
