"""`gear evaluate reconstruction` on a run of half a second: its numbers by hand, going on, ranks, what it refuses."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro

from gear import inference, weights
from gear.commands.evaluate_reconstruction import reconstruction
from gear.commands.rebuilding import Beside
from gear.data import DataError
from gear.evaluate import extract, images, inception, pairs, results
from gear.evaluate.frechet import frechet, gaussian
from gear.evaluate.pairs import MeasureError, compared
from gear.run import Pair, load
from gear.tokenizer.perceptual import Perceptual

WORKER = Path(__file__).parent / "pairs_worker.py"


def small() -> Any:
    spec = importlib.util.spec_from_file_location("pairs_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Small()


@pytest.fixture(autouse=True)
def inception_of_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "opened", small)


def measure(*args: object) -> None:
    given = [str(arg) for arg in args]
    tyro.cli(reconstruction, prog="gear evaluate reconstruction", args=[*given, "--trunk", "alex", "--device", "cpu"])


def by_hand(pair: Pair, pixels: torch.Tensor) -> dict[str, float]:
    x_hat = inference.rebuild(pair, pixels)
    values = compared(x_hat, pixels, Perceptual("alex", weights.path("lpips-alex")))
    features = [gaussian(small()(t)["pool"]) for t in (pixels, x_hat)]
    return {"rfid": frechet(*features)} | {name: t.mean().item() for name, t in values.items()}


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_run(interpolation, trained, images_folder, tmp_path, capsys):
    measure(trained, "--data", images_folder, "--interpolation", interpolation, "--batch", 4, "--out", tmp_path)
    found, said = results.read(tmp_path), capsys.readouterr().out
    pair = load(trained, "cpu")
    (pixels,) = images.opened(images_folder, 32, interpolation).batches(0, 8, 8)
    for name, value in by_hand(pair, pixels).items():
        metric = found["metrics"][name]
        assert metric["value"] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        assert metric["n"] == 8
        assert metric["interval"][0] <= metric["value"] <= metric["interval"][1]
        assert f"\n{name}" in f"\n{said}"
    assert found["protocol"] == "reconstruction"
    assert found["settings"]["interpolation"] == found["reference"]["interpolation"] == interpolation
    assert found["settings"]["crop"] == "short side resized, middle cropped"
    assert (found["reference"]["kind"], found["reference"]["n"]) == ("folder", 8)
    assert found["source"]["kind"] == "reconstructions"
    assert found["source"]["of"]["path"] == str(images_folder)
    assert set(found["weights"]) == {"small.safetensors", weights.path("lpips-alex").name}
    assert found["model"]["name"] == "tiny"
    assert found["model"]["params"] == sum(p.numel() for p in pair.tokenizer.parameters())
    assert "published numbers are of the 50,000 images" in said
    assert str(tmp_path / "results.json") in said


def test_the_interpolations_have_other_originals(trained, images_folder, tmp_path):
    for name in ("bicubic", "bilinear"):
        measure(trained, "--data", images_folder, "--interpolation", name, "--out", tmp_path / name)
    a, b = (results.read(tmp_path / name)["metrics"]["psnr"]["value"] for name in ("bicubic", "bilinear"))
    assert a != b


def test_it_goes_on_where_it_was(trained, images_folder, tmp_path, monkeypatch):
    """Two chunks of four; interrupted after the first, only the second is read again."""
    monkeypatch.setattr(extract, "CHUNK", 4)
    whole, batches = tmp_path / "whole", Beside.batches
    measure(trained, "--data", images_folder, "--batch", 2, "--out", whole)

    def stopped(self, start, stop, size):
        for i, each in enumerate(batches(self, start, stop, size)):
            if i == 3:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(Beside, "batches", stopped)
    arguments = trained, "--data", images_folder, "--batch", 2, "--out", tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        measure(*arguments)
    asked = []

    def counted(self, start, stop, size):
        asked.append((start, stop))
        return batches(self, start, stop, size)

    monkeypatch.setattr(Beside, "batches", counted)
    measure(*arguments)
    assert asked == [(4, 8)]
    assert results.read(tmp_path / "parts")["metrics"] == results.read(whole)["metrics"]


def test_ranks_count_every_image_once(trained, images_folder, tmp_path):
    """Eight images in chunks of three: two for one rank and one, which is short, for the other."""

    def went(size: int, out: Path) -> dict[str, Any]:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)] if size > 1 else []
        command = [sys.executable, *launcher, str(WORKER), str(trained), str(images_folder), str(out), "3"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=180)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("written: ") == 1
        return json.loads((out / "results.json").read_text())

    one, two = went(1, tmp_path / "one"), went(2, tmp_path / "two")
    assert one["metrics"] == two["metrics"]
    assert one["source"]["pixels_sha256"] == two["source"]["pixels_sha256"]
    assert one["reference"] == two["reference"]
    assert [metric["n"] for metric in two["metrics"].values()] == [8] * 7


def test_other_sources_and_fewer_images(trained, tmp_path, capsys):
    """An .npz of the run's own size is taken as it is."""
    np.savez(tmp_path / "x.npz", np.random.randint(0, 256, (6, 32, 32, 3), dtype=np.uint8))
    measure(trained, "--data", tmp_path / "x.npz", "--n", 5, "--out", tmp_path / "out")
    found = results.read(tmp_path / "out")
    assert found["reference"]["n"] == found["metrics"]["psnr"]["n"] == 5
    assert found["settings"]["crop"] == "none"
    assert "fewer than the 6 dimensions" in capsys.readouterr().out


def test_fewer_images_are_of_every_class(trained, images_folder, tmp_path):
    measure(trained, "--data", images_folder, "--n", 4, "--out", tmp_path)
    (pixels,) = images.opened(images_folder, 32).batches(0, 8, 8)
    wanted = by_hand(load(trained, "cpu"), pixels[[0, 1, 4, 5]])
    found = results.read(tmp_path)
    assert found["metrics"]["psnr"]["value"] == pytest.approx(wanted["psnr"], rel=1e-4)
    assert (found["reference"]["n"], found["reference"]["part_of"]) == (4, 8)


def test_by_default_it_writes_into_the_run(trained):
    pair = load(trained, "cpu")
    folder = Beside(pair, images.opened("builtin")).folder("builtin", "bicubic")
    assert folder == trained / "evaluations" / "reconstruction-builtin-bicubic-step-6"


def test_two_sets_of_one_name_have_a_folder_each(trained, tmp_path):
    beside = Beside(load(trained, "cpu"), images.opened("builtin"))
    places = [tmp_path / name / "val" for name in ("one", "other")]
    for place in places:
        place.mkdir(parents=True)
    assert len({beside.folder(str(place), "bicubic") for place in places}) == 2


class Reached(Exception):
    pass


@pytest.mark.parametrize("more", [{"n": 6}, {"trunk": "alex"}, {"resolution": 64}])
def test_other_settings_have_folders_of_their_own(more, trained, monkeypatch):
    places, ways = list[str](), list[dict[str, Any]]([{}, {"trunk": "vgg"}, more])

    def features(detector: object, source: object, n: int, store: Path, **_: object) -> None:
        places.append(store.parent.name)
        raise Reached

    monkeypatch.setattr(extract, "features", features)
    monkeypatch.setattr(pairs, "perceptual", lambda trunk, resolution: (None, []))
    monkeypatch.setattr(pairs, "Compared", lambda inception, perceptual: inception)
    for options in ways:
        with pytest.raises(Reached):
            reconstruction(str(trained), "builtin", device="cpu", **options)
    assert places[:2] == ["reconstruction-builtin-bicubic-step-6"] * 2
    assert re.fullmatch(rf"{places[0]}-[0-9a-f]{{8}}", places[2])


def test_what_it_refuses(trained, images_folder, tmp_path):
    with pytest.raises(MeasureError, match="at least 4 images"):
        measure(trained, "--data", images_folder, "--n", 3, "--out", tmp_path)
    with pytest.raises(extract.FeatureError, match="from 1 to the 8 images there are; it is 9"):
        measure(trained, "--data", images_folder, "--n", 9, "--out", tmp_path)
    with pytest.raises(DataError, match="originals must be a folder"):
        measure(trained, "--data", tmp_path / "nowhere", "--out", tmp_path)
    assert not (tmp_path / "results.json").exists()
