"""`gear evaluate sweep` on a run of the smallest kind, with a stand-in for the Inception network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gear.commands import evaluate_sweep
from gear.commands.evaluate_adm import adm
from gear.commands.evaluate_sweep import sweep
from gear.evaluate import inception, reference, results


class Small(nn.Module):
    """Means over the image and its quarters in place of Inception's features; counts the images it has seen."""

    name, channels, file = "small", {"pool": 3, "spatial": 12}, Path("small.pth")
    calls = 0

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        type(self).calls += len(pixels)
        x = pixels.float() / 255
        return {"pool": x.mean((2, 3)), "spatial": nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": "00"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inception, "opened", Small)
    monkeypatch.setattr(reference, "SIZES", {"pool": 3, "spatial": 12})
    monkeypatch.setattr(Small, "calls", 0)
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))


def swept(trained: Path, images_folder: Path, out: Path) -> dict[str, Any]:
    sweep(str(trained), str(images_folder), scales=(2.0, 1.0), n=12, out=out, device="cpu")
    return json.loads((out / "results.json").read_text())


def test_a_sweep_is_the_single_evaluations(trained: Path, images_folder: Path, tmp_path: Path):
    out = tmp_path / "sweep"
    found = swept(trained, images_folder, out)
    assert found["protocol"] == "sweep"
    assert found["metrics"] == {}
    assert [point["cfg_scale"] for point in found["points"]] == [1.0, 2.0]
    for point in found["points"]:
        alone = tmp_path / "alone"
        adm(str(trained), str(images_folder), n=12, cfg_scale=point["cfg_scale"], out=alone, device="cpu")
        single = results.read(alone)["metrics"]
        assert {name: m["value"] for name, m in point["metrics"].items()} == {n: m["value"] for n, m in single.items()}
    assert found["points"][0]["metrics"] != found["points"][1]["metrics"]
    for name in ("figure_cfg.png", "figure_cfg.pdf"):
        assert (out / name).stat().st_size > 1000


def test_given_again_nothing_is_drawn_again(trained: Path, images_folder: Path, tmp_path: Path):
    first = swept(trained, images_folder, tmp_path)
    drawn = Small.calls
    second = swept(trained, images_folder, tmp_path)
    assert Small.calls == drawn > 0
    assert first["points"] == second["points"]


def test_other_scales_are_added(trained: Path, images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """To the points of the same settings; those of others are not of the curve."""
    monkeypatch.setattr(evaluate_sweep, "_draw", lambda folder, name: None)

    def found(*scales: float, **options: Any) -> tuple[list[float], list[float]]:
        sweep(str(trained), str(images_folder), scales=scales, n=12, out=tmp_path, device="cpu", **options)
        whole = json.loads((tmp_path / "results.json").read_text())
        return [point["cfg_scale"] for point in whole["points"]], whole["settings"]["scales"]

    assert found(1.0, 3.0) == ([1.0, 3.0], [1.0, 3.0])
    first = json.loads((tmp_path / "results.json").read_text())["points"]
    assert found(2.0, 4.0) == ([1.0, 2.0, 3.0, 4.0],) * 2
    assert json.loads((tmp_path / "results.json").read_text())["points"][::2] == first
    assert found(1.0, 2.0) == ([1.0, 2.0, 3.0, 4.0],) * 2
    assert found(2.0, 5.0, seed=1) == ([2.0, 5.0],) * 2
    (tmp_path / "results.json").write_text("{")
    assert found(1.0, 2.0) == ([1.0, 2.0],) * 2


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.0), (-1.0, 2.0), (1.0, float("inf"))])
def test_scales_that_make_no_curve_are_refused(scales, trained: Path, images_folder: Path):
    with pytest.raises(ValueError, match="--scales must be two or more different numbers"):
        sweep(str(trained), str(images_folder), scales=scales, device="cpu")


def test_images_cannot_be_swept(images_folder: Path):
    with pytest.raises(ValueError, match="holds images, not a model: cfg_scale cannot be given"):
        sweep(str(images_folder), str(images_folder), device="cpu")
