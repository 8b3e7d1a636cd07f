"""`gear evaluate gpic` with a detector of three channels in the place of DINOv2."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from torch import Tensor, nn

from gear import fetch
from gear.commands import evaluate_gpic
from gear.data import DataError
from gear.evaluate import dino, results


class Colours(nn.Module):
    """The mean of each colour, with a parameter that says where it is."""

    name = "colours"

    def __init__(self, weights_path: Path, positions: str):
        super().__init__()
        self.channels, self.weight, self.positions = {"cls": 3}, nn.Parameter(torch.zeros(())), positions

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"cls": pixels.float().mean((2, 3))}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": "0" * 64, "positions": self.positions}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dino, "DinoDetector", Colours)
    monkeypatch.setattr(fetch, "on_demand", lambda name: Path("none"))


def gpic(*args: object) -> None:
    tyro.cli(evaluate_gpic.gpic, prog="gear evaluate gpic", args=[str(arg) for arg in args])


def pixels(n: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(n).integers(0, high, (n, 8, 8, 3), dtype=np.uint8)


def features(of: np.ndarray) -> np.ndarray:
    return of.astype(np.float32).mean((1, 2))


def test_images_against_statistics_and_against_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, fake = pixels(40), pixels(30, high=200)
    np.savez(tmp_path / "fake.npz", fake)
    np.savez(tmp_path / "real.npz", real)
    f = features(real)
    np.savez(tmp_path / "test_stats.npz", dino_mu=f.mean(0), dino_sigma=np.cov(f.T), dino_embeddings=f)
    found = []
    for reference in ("test_stats.npz", "real.npz"):
        out = tmp_path / reference.split(".")[0]
        gpic(tmp_path / "fake.npz", "--reference", tmp_path / reference, "--out", out, "--device", "cpu", "--n", 25)
        found.append(results.read(out))
        assert str(out / "results.json") in capsys.readouterr().out
    for one in found:
        assert one["protocol"] == "gpic"
        assert list(one["metrics"]) == ["fdd", "precision", "recall", "density", "coverage", "mmd"]
        assert (one["settings"]["n"], one["settings"]["k"], one["source"]["n"]) == (25, 5, 25)
        assert one["settings"]["detector"]["positions"] == "hub"
        assert one["weights"] == {"dinov2-l": "0" * 64}
        assert any("published numbers are of" in line for line in one["warnings"])
    for name, metric in found[0]["metrics"].items():
        assert found[1]["metrics"][name]["value"] == pytest.approx(metric["value"], rel=1e-4)
    mean = np.square(features(fake[:25]).mean(0) - f.mean(0)).sum()
    assert found[0]["metrics"]["fdd"]["value"] > mean > 100


def test_called_again_it_looks_at_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", pixels(30))
    args = (tmp_path / "a.npz", "--reference", tmp_path / "a.npz", "--out", tmp_path / "o", "--device", "cpu")
    gpic(*args)
    first = results.read(tmp_path / "o")["metrics"]

    def forward(self: Colours, pixels: Tensor) -> dict[str, Tensor]:
        raise AssertionError("they are there")

    monkeypatch.setattr(Colours, "forward", forward)
    gpic(*args)
    assert results.read(tmp_path / "o")["metrics"] == first


def test_a_reference_is_refused_before_anything_is_drawn(tmp_path: Path, images_folder: Path) -> None:
    np.savez(tmp_path / "r.npz", dino_mu=np.zeros(3))
    with pytest.raises(DataError, match="lacks dino_sigma, dino_embeddings"):
        gpic(images_folder, "--resolution", 32, "--reference", tmp_path / "r.npz", "--device", "cpu")
