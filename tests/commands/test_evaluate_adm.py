"""`gear evaluate adm` end to end, on a run of the smallest kind and a stand-in for the Inception network."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gear import inference, run
from gear.commands import drawing, measuring, models
from gear.commands.drawing import Drawn
from gear.commands.evaluate_adm import adm
from gear.commands.sample import sample
from gear.commands.table import table
from gear.data import DataError
from gear.data.writing import save_npz
from gear.evaluate import images, inception, reference, results
from gear.figures.paper.result import loaded
from gear.generator.sampling import LANES
from gear.weights import MissingWeight


class Small(nn.Module):
    """Means over the image and its quarters in place of Inception's features."""

    name = "small"
    calls = 0

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)
        self.channels = {"pool": 6, "spatial": 12, "logits": 3}
        self.file = Path("small.pth")

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        type(self).calls += len(pixels)
        x = pixels.float() / 255
        quarters = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        means = x.mean((2, 3))
        return {"pool": torch.cat([means, x.std((2, 3))], 1), "spatial": quarters, "logits": 5 * means}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": "00"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inception, "opened", Small)
    monkeypatch.setattr(reference, "SIZES", {"pool": 6, "spatial": 12})
    monkeypatch.setattr(Small, "calls", 0)
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))


def pixels(source: Any, size: int, n: int) -> Tensor:
    return torch.cat(list(source.batches(0, n, size)))


def test_samples_are_those_of_gear_sample_whatever_the_batch(trained: Path):
    from gear.inference import draw

    pair = run.load(trained, "cpu")
    source = Drawn(pair, 70, seed=3, cfg_scale=2.0)
    whole = pixels(source, 64, 70)
    labels = source.labels
    wanted = draw(pair, labels, 3, cfg_scale=2.0)
    assert torch.equal(whole, wanted)
    assert torch.equal(pixels(source, 7, 70), whole)
    assert torch.equal(torch.cat(list(source.batches(LANES + 5, 69, 10))), whole[LANES + 5 : 69])
    assert torch.equal(pixels(Drawn(pair, 40, seed=3, cfg_scale=2.0), 64, 40), whole[:40])
    assert labels.bincount().tolist() == [35, 35]
    assert not torch.equal(pixels(Drawn(pair, 40, seed=4, cfg_scale=2.0), 64, 40), whole[:40])


def test_what_is_drawn_otherwise_is_another_source(trained: Path):
    pair = run.load(trained, "cpu")
    about = Drawn(pair, 8, seed=0).about()
    others = [Drawn(pair, 8, seed=1), Drawn(pair, 8, cfg_scale=3.0), Drawn(pair, 8, top_k=2)]
    others += [Drawn(pair, 8, precision="bfloat16"), Drawn(pair, 8, batch=4)]
    others += [Drawn(pair, 8, classes=("disc",)), Drawn(pair, 8, cfg_interval=(0, 2))]
    others += [Drawn(run.load(trained, "cpu", resize=16), 8)]
    assert all(other.about() != about for other in others)
    tensors = dict(pair.checkpoint.tensors)
    name = next(name for name in tensors if name.startswith("generator_ema.") and tensors[name].is_floating_point())
    tensors[name] = tensors[name] + 1
    moved = replace(pair, checkpoint=replace(pair.checkpoint, tensors=tensors))
    assert Drawn(moved, 8).about()["weights_sha256"] != about["weights_sha256"]


def test_a_run_is_measured_and_again_without_work(trained: Path, images_folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    adm(str(trained), str(images_folder), n=40, cfg_scale=1.5, seed=2, out=out, device="cpu")
    calls, found = Small.calls, results.read(out)
    assert calls == 40 + 8
    assert list(found["metrics"]) == ["gfid", "sfid", "inception_score", "precision", "recall", "kid"]
    assert found["protocol"] == "adm"
    assert (found["settings"]["n"], found["settings"]["seed"], found["settings"]["cfg_scale"]) == (40, 2, 1.5)
    assert found["reference"]["kind"] == "folder"
    assert found["reference"]["resolution"] == found["source"]["resolution"] == [32, 32]
    assert found["weights"] == {"small.pth": "00"}
    assert found["model"]["name"] == "tiny"
    assert (found["model"]["stage"], found["model"]["steps"]) == ("gear", 6)
    shown = capsys.readouterr().out
    assert "gfid" in shown
    assert "warning: gfid, sfid: of 40 samples" in shown

    adm(str(trained), str(images_folder), n=40, cfg_scale=1.5, seed=2, out=out, device="cpu")
    assert Small.calls == calls  # all of it is kept
    again = results.read(out)
    assert again["metrics"] == found["metrics"]
    assert again["source"]["pixels_sha256"] == found["source"]["pixels_sha256"]


def test_saved_samples_measure_as_those_drawn_live(trained: Path, images_folder: Path, tmp_path: Path):
    adm(str(trained), str(images_folder), n=40, out=tmp_path / "live", device="cpu", intervals=False)
    drawn = pixels(Drawn(run.load(trained, "cpu"), 40), 64, 40)
    save_npz(drawn, tmp_path / "samples.npz")
    where = str(tmp_path / "samples.npz")
    adm(where, str(images_folder), out=tmp_path / "saved", device="cpu", intervals=False)
    live, saved = (results.read(tmp_path / name) for name in ("live", "saved"))
    assert live["metrics"] == saved["metrics"]
    assert live["source"]["pixels_sha256"] == saved["source"]["pixels_sha256"]
    assert (
        live["source"]["pixels_sha256"]
        == hashlib.sha256(hashlib.sha256(drawn.numpy().tobytes()).hexdigest().encode()).hexdigest()
    )
    assert (saved["settings"]["n"], saved["model"]) == (40, None)


def test_resized_samples_are_measured_at_their_size(trained: Path, images_folder: Path, tmp_path: Path):
    """Live and saved alike, against images of that size (Table 13)."""
    pair = run.load(trained, "cpu", resize=16)
    inference.sample(pair, 40, (), 0, "npz", tmp_path / "a.npz", cfg_scale=1.0)
    shown = images.opened(images_folder, 16)
    np.savez(tmp_path / "reference.npz", torch.cat(list(shown.batches(0, len(shown), 64))).permute(0, 2, 3, 1).numpy())
    options: dict[str, Any] = {"n": 40, "device": "cpu", "intervals": False}
    adm(str(trained), str(tmp_path / "reference.npz"), cfg_scale=1.0, resize=16, out=tmp_path / "live", **options)
    adm(str(tmp_path / "a.npz"), str(tmp_path / "reference.npz"), out=tmp_path / "saved", **options)
    live, saved = (loaded(tmp_path / name / "results.json") for name in ("live", "saved"))
    assert live["metrics"] == saved["metrics"]
    assert live["source"]["resize"] == saved["source"]["resize"] == 16
    assert live["source"]["resolution"] == [16, 16]


@pytest.mark.parametrize("save", ["npz", "png"])
def test_images_that_were_saved_are_known_as_their_runs(
    save: Any, trained: Path, images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """At the scale that they were drawn at, in the row of their recipe; other images of that name are not."""
    monkeypatch.setattr(models, "name_of", lambda config: "table13-resolution-384-gear")
    where, out = tmp_path / f"some{'.npz' * (save == 'npz')}", tmp_path / "out"
    sample(trained, n=40, cfg_scale=1.5, temperature=0.9, save=save, out=where, device="cpu")
    adm(str(where), str(images_folder), n=40, resolution=32, out=out, device="cpu", intervals=False)
    found = loaded(out / "results.json")
    assert (found["settings"]["cfg_scale"], found["source"]["temperature"]) == (1.5, 0.9)
    assert found["model"] | {"name": "tiny", "steps": 6, "stage": "gear"} == found["model"]
    capsys.readouterr()
    table(13, (out,))
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("| out")]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert (cells[-10:-5], "not run" in cells[-5:]) == (["not run"] * 5, False)
    assert "sampling.temperature: 1.0 -> 0.9" in said

    if save == "npz":
        save_npz(255 - pixels(drawing.opened(str(where), 40), 64, 40), where)
    else:
        (where / "000039.png").unlink()
    adm(str(where), str(images_folder), n=39, out=out, device="cpu", intervals=False)
    found = loaded(out / "results.json")
    assert (found["settings"]["cfg_scale"], found["model"]) == (None, None)


def test_results_go_into_the_run_and_other_samples_elsewhere(
    trained: Path, images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An evaluation at another scale, seed or step, or against other images, replaces none."""
    monkeypatch.chdir(tmp_path)

    def folder(reference: str = "cifar10", **options: Any) -> Path:
        source = drawing.opened(str(trained), 4, device="cpu", **options)
        return drawing.folder_of(source, str(trained), "adm", reference)

    assert folder() == trained / "evaluations" / "adm-cifar10-step-6-cfg-1.5"
    assert folder(resize=16).name == "adm-cifar10-step-6-cfg-1.5-resize-16"
    assert folder(cfg_scale=1.0, seed=3, classes=("disc",)).name == "adm-cifar10-step-6-cfg-1-seed-3-classes-disc"
    warm = rf"adm-{images_folder.name}-step-6-cfg-1\.5-temperature-0\.8-[0-9a-f]{{8}}"
    assert re.fullmatch(warm, folder(str(images_folder), temperature=0.8).name)
    sampled = Drawn(run.load(trained, "cpu"), 4, seed=3, temperature=0.8)
    assert sampled.label(but="cfg_scale") == "step-6-temperature-0.8-seed-3"  # of a sweep
    images = drawing.opened("builtin", 4, device="cpu")
    assert drawing.folder_of(images, "builtin", "adm", "cifar10") == Path("evaluations/builtin/adm-cifar10")


def test_what_else_the_numbers_depend_on_has_folders_of_its_own(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """References of one name, and options that are not the usual ones. The same place said otherwise is the same."""
    used: list[Path] = []

    @contextmanager
    def judging(asked: measuring.Asked) -> Iterator[Any]:
        yield SimpleNamespace(samples=samples, measure=lambda samples, folder: used.append(folder))

    samples = drawing.opened(str(trained), 4, device="cpu")
    monkeypatch.setattr(measuring, "judging", judging)
    monkeypatch.chdir(tmp_path)
    for name in ("imagenet", "cifar"):
        (tmp_path / name / "val").mkdir(parents=True)

    def place(reference: str = "builtin", **options: Any) -> str:
        adm(str(trained), reference, **options)
        return used[-1].name

    usual = place(n=50_000, interpolation="bicubic")
    assert usual == "adm-builtin-step-6-cfg-1.5"
    several = [usual, place(n=8), place(n_reference=8), place(interpolation="bilinear"), place(tokenizer=str(trained))]
    several += [place("imagenet/val"), place("cifar/val"), place("cifar/val", n=8)]
    assert len(set(several)) == len(several)
    assert place(str(tmp_path / "cifar" / "val")) == several[-2]
    assert all(re.fullmatch(r"adm-(builtin|val)-step-6-cfg-1\.5-[0-9a-f]{8}", name) for name in several[1:])


@pytest.mark.parametrize("where", ["folder", "npz", "public file"])
def test_sources_of_one_name_have_a_folder_each(
    where: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """RUN/samples is where `gear sample` puts them. A place said otherwise is the same."""
    names = {"folder": "samples", "npz": "samples-40.npz", "public file": "model.safetensors"}
    places = [tmp_path / "runs" / name / names[where] for name in "ab"]
    np.savez(tmp_path / "x.npz", np.full((4, 8, 8, 3), 200, np.uint8))
    source, checkpoint = images.opened(tmp_path / "x.npz"), run.load(trained, "cpu").checkpoint

    def folder(path: Path) -> Path:
        if where == "public file":
            return models.folder(replace(checkpoint, step=0, path=path))
        return drawing.folder_of(source, str(path), "adm", "cifar10-test").parent

    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    one, other = map(folder, places)
    assert one != other
    for place in (one, other):
        assert re.fullmatch(rf"evaluations/{places[0].stem}-[0-9a-f]{{8}}", place.as_posix())
    assert folder(Path("a/../a") / names[where]) == one


def test_many_classes_do_not_make_a_name_too_long_for_a_folder(trained: Path):
    pair = run.load(trained, "cpu")
    many = ["disc", "square"] * 45
    name, other = (Drawn(pair, 4, classes=tuple(given)).label() for given in (many, [*many[:-1], "disc"]))
    assert re.fullmatch(r"step-6-cfg-1\.5-classes-90-[0-9a-f]{8}", name)
    assert name != other


# ------------------------------------------------------------------------------------------------ bad input


def test_a_reference_of_another_resolution_is_refused_before_anything_is_drawn(trained: Path, tmp_path: Path):
    np.savez(tmp_path / "x.npz", np.full((4, 16, 16, 3), 200, np.uint8))
    with pytest.raises(DataError, match=r"is of 16 x 16 px and the samples of 32 x 32 px: .* \(--resize of a model's"):
        adm(str(trained), str(tmp_path / "x.npz"), n=8, out=tmp_path / "out", device="cpu")
    assert Small.calls == 0


def test_a_generator_draws_no_size_that_it_was_not_trained_at(trained: Path, tmp_path: Path):
    """Rotary positions have no parameters, so that another grid of tokens would load and draw."""
    pair = run.load(trained, "cpu")
    inference.require_generator(pair).save_pretrained(tmp_path / "saved")
    pair.tokenizer.save_pretrained(tmp_path / "tokenizer")
    for source, tokenizer in ((trained, None), (tmp_path / "saved", str(tmp_path / "tokenizer"))):
        with pytest.raises(ValueError, match=r"was trained at 32 px and draws no other size: .* --resize 64\.$"):
            adm(str(source), str(tmp_path), n=8, resolution=64, tokenizer=tokenizer, device="cpu")
        assert len(Drawn(run.load(source, "cpu", tokenizer=tokenizer, resolution=32), 4)) == 4
    assert run.load(trained, "cpu", resolution=64).tokenizer.encode(torch.zeros(1, 3, 64, 64)).shape == (1, 64)


def test_options_of_a_model_are_refused_for_images(images_folder: Path):
    with pytest.raises(ValueError, match="holds images, not a model: cfg_scale cannot be given"):
        adm(str(images_folder), "builtin", cfg_scale=2.0, resolution=32, device="cpu")
    with pytest.raises(ValueError, match="resized by --resolution, not by --resize"):
        adm(str(images_folder), "builtin", resize=16, device="cpu")


def test_options_out_of_range_are_refused_at_once(trained: Path):
    with pytest.raises(ValueError, match="cfg_scale must be 0 or more"):
        adm(str(trained), "builtin", cfg_scale=-1.0, device="cpu")
    with pytest.raises(ValueError, match="seed must be from 0"):
        adm(str(trained), "builtin", seed=-1, device="cpu")


def test_samples_that_are_all_alike_are_refused(tmp_path: Path, images_folder: Path):
    for i in range(6):
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="all 6 samples are the same image"):
        adm(str(tmp_path), str(images_folder), out=tmp_path / "out", device="cpu")


def test_missing_weights_are_said_first(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setenv("GEAR_CACHE", "/nowhere")
    with pytest.raises(MissingWeight, match="gear fetch inception-fid"):
        adm(str(trained), "/no/reference", device="cpu")
