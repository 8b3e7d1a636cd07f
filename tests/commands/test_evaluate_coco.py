"""`gear evaluate coco` with networks of a few numbers in the place of Inception and CLIP."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from torch import Tensor, nn

from gear.commands import evaluate_coco
from gear.evaluate import clip_score, inception, results
from gear.store.pretrained import PretrainedError
from gear.weights import MissingWeight


class Colours(nn.Module):
    """The mean of each colour, under several names."""

    def __init__(self, name: str, *features: str):
        super().__init__()
        self.name, self.file, self.weight = name, Path("colours.pt"), nn.Parameter(torch.zeros(()))
        self.channels = dict.fromkeys(features, 3)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return dict.fromkeys(self.channels, pixels.float().mean((2, 3)))

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": "0" * 64}


class Words(clip_score.Clip):
    """A text is the colour that it names."""

    def __init__(self, model: str):
        nn.Module.__init__(self)
        self.name, self.channels = "words", {"image": 3}
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = pixels.float().mean((2, 3))
        return {"image": x / x.norm(dim=1, keepdim=True)}

    def texts(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(name in text) for name in ("red", "green", "blue")] for text in texts])

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": {"model.safetensors": "1" * 64}}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "opened", lambda: Colours("colours", "pool", "spatial"))
    monkeypatch.setattr(clip_score, "Clip", Words)


def coco(*args: object) -> None:
    tyro.cli(evaluate_coco.coco, prog="gear evaluate coco", args=[str(arg) for arg in args])


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Nine images, a third of each colour, and their captions, of which a third is wrong."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    captions = []
    for i in range(9):
        colour = [0, 0, 0]
        colour[i % 3] = 200 + i
        Image.new("RGB", (16, 16), tuple(colour)).save(folder / f"{i:012d}.png")
        name = ("red", "green", "red")[i % 3]
        captions.append({"image_id": i, "caption": f"something {name}"})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)))
    return folder


@pytest.mark.usefixtures("small")
def test_both_numbers(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = tmp_path / "captions.jsonl"
    coco(drawn, "--captions", captions, "--reference", drawn, "--out", tmp_path / "o", "--device", "cpu")
    found = results.read(tmp_path / "o")
    assert found["protocol"] == "coco"
    assert found["metrics"]["clip_score"]["value"] == pytest.approx(100 * 2 / 3, rel=1e-5)
    assert found["metrics"]["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["weights"] == {
        "colours.pt": "0" * 64,
        "openai/clip-vit-base-patch32/model.safetensors": "1" * 64,
    }
    assert found["reference"]["captions"] == str(captions)
    assert found["reference"]["fid"]["n"] == 9
    assert "clip_score" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_one_without_the_other(drawn: Path, tmp_path: Path) -> None:
    coco(drawn, "--captions", tmp_path / "captions.jsonl", "--out", tmp_path / "c", "--device", "cpu", "--n", 6)
    assert {name: m["n"] for name, m in results.read(tmp_path / "c")["metrics"].items()} == {"clip_score": 6}
    np.savez(tmp_path / "real.npz", np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8))
    coco(drawn, "--reference", tmp_path / "real.npz", "--out", tmp_path / "f", "--device", "cpu")
    metrics = results.read(tmp_path / "f")["metrics"]
    assert list(metrics) == ["fid", "kid"]
    assert metrics["fid"]["value"] > 1000
    with pytest.raises(ValueError, match="give --captions for the CLIP score"):
        coco(drawn)


def test_missing_networks_are_told_before_images_are_read(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PretrainedError, match="hf download openai/clip-vit-base-patch32"):
        coco(drawn, "--captions", tmp_path / "captions.jsonl", "--device", "cpu")
    monkeypatch.setattr("gear.weights.path", lambda name: (_ for _ in ()).throw(MissingWeight(f"no {name}")))
    with pytest.raises(MissingWeight, match="no inception"):
        coco(drawn, "--reference", drawn, "--device", "cpu")
