"""`gear probe` on a run of half a second, a warm-up, and what it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from gear import run as runs
from gear.commands import probe as command
from gear.commands import probing
from gear.config import Warmup
from gear.data import DataError
from gear.evaluate import images, results
from gear.figures.paper import usage
from gear.figures.paper.found import opened
from gear.train import state
from gear.weights import MissingWeight


def probe(*args: object) -> None:
    tyro.cli(command.probe, prog="gear probe", args=[str(arg) for arg in args])


@pytest.fixture
def same(images_folder, tmp_path) -> tuple[object, ...]:
    """Arguments that suit eight images."""
    return "--data", images_folder, "--k", 3, "--n", 8, "--patches", 40, "--device", "cpu", "--out", tmp_path


def test_a_run(trained, same, tmp_path, capsys):
    probe(trained, *same)
    file = tmp_path / "probe.json"
    found = results.read(file)
    assert found["protocol"] == "probe"
    assert found["similarity"]["target"] == found["reference"]["name"] == "efficientnet_lite0"
    assert found["reference"]["standardised"]
    assert [each["layer"] for each in found["similarity"]["generator"]] == [0, 1, 2]
    assert [each["layer"] for each in found["spatial"]["generator"]] == [0, 1, 2]
    assert found["codebook"]["K"] == 16
    assert found["codebook"]["natural"]["entropy"] <= math.log(16)
    assert (
        found["settings"] | {"n": 8, "k": 3, "patches": 40, "tau": 0.1, "seed": 0, "align": "next"} == found["settings"]
    )
    assert set(found["weights"]) == {"efficientnet_lite0", "model"}
    params = found["model"]["params"]
    assert found["model"] == {"name": "tiny", "recipe": None, "stage": "gear", "steps": 6, "params": params}
    assert found["source"]["n"] == 8
    assert any("cka by image is biased" in warning for warning in found["warnings"])
    said = capsys.readouterr().out
    for words in ("similarity to efficientnet_lite0", "pre-quantization", "layer 2", "tau = 0.1", str(file)):
        assert words in said


def test_numbers_are_the_same_again_and_do_not_depend_on_the_pass(trained, same, tmp_path, monkeypatch):
    probe(trained, *same)
    first = results.read(tmp_path / "probe.json")
    monkeypatch.setattr(probing, "AT_ONCE", 3)
    probe(trained, *same)
    again = results.read(tmp_path / "probe.json")
    for block in ("similarity", "spatial", "codebook"):
        for a, b in zip(numbers(first[block]), numbers(again[block]), strict=True):
            assert b == pytest.approx(a, abs=1e-4)


def numbers(value: object) -> list[float]:
    match value:
        case dict():
            return [x for v in value.values() for x in numbers(v)]
        case list():
            return [x for v in value for x in numbers(v)]
        case int() | float():
            return [float(value)]
    return []


def test_a_warm_up_has_no_generator(tiny, same, tmp_path):
    runs.train(replace(tiny, stage=Warmup(), steps=1), tmp_path / "warmup")
    probe(tmp_path / "warmup", *same, "--target", "efficientnet_lite0")
    found = results.read(tmp_path / "probe.json")
    assert found["similarity"]["generator"] == found["spatial"]["generator"] == []
    assert found["settings"]["align"] is None
    assert found["model"]["stage"] == "warmup"


def test_saved_models(trained, same, tmp_path):
    pair = runs.load(trained, "cpu")
    pair.tokenizer.save_pretrained(tmp_path / "saved")
    probe(tmp_path / "saved", *same, "--resolution", 32, "--target", "efficientnet_lite0")
    found = results.read(tmp_path / "probe.json")
    assert found["model"]["steps"] is None
    probe(trained, *same)
    ours = results.read(tmp_path / "probe.json")
    assert found["codebook"] == ours["codebook"]
    assert found["similarity"]["tokenizer"] == ours["similarity"]["tokenizer"]
    assert found["weights"]["model"] != ours["weights"]["model"]
    assert pair.generator is not None
    pair.generator.save_pretrained(tmp_path / "alone")
    probe(tmp_path / "alone", *same, "--resolution", 32, "--tokenizer", trained, "--target", "efficientnet_lite0")
    joined = results.read(tmp_path / "probe.json")
    assert joined["similarity"] == ours["similarity"]
    assert joined["weights"]["tokenizer"] == ours["weights"]["model"]


def test_fewer_images_than_asked_for(trained, same, tmp_path):
    probe(trained, *same, "--n", 100, "--patches", 100000)
    found = results.read(tmp_path / "probe.json")
    assert (found["settings"]["n"], found["settings"]["patches"]) == (8, 8 * 16)
    assert "there are 8 images, not 100." in found["warnings"]


def test_fewer_images_than_there_are_have_all_classes(trained, same, images_folder, tmp_path):
    """Of `disc` and `square` the first three of four each."""
    pair, asked = runs.load(trained, "cpu"), probing.Asked(6, 3, 40, 0.1, 0, "bicubic")
    source = probing.opened(str(images_folder), pair, asked)
    names = [f"{name}/{i}.png" for name in ("disc", "square") for i in range(3)]
    assert isinstance(source, images.Decoded)
    assert source.files.names == tuple(names)
    probe(trained, *same, "--n", 6)
    found = results.read(tmp_path / "probe.json")
    assert (found["settings"]["n"], found["source"]["n"], found["source"]["part_of"]) == (6, 6, 8)


def test_the_default_place_is_the_run(trained, images_folder, monkeypatch):
    written: list[Path] = []
    monkeypatch.setattr(results, "write", lambda folder, *rest: written.append(folder) or folder)
    probe(trained, "--data", images_folder, "--k", 3, "--device", "cpu")
    assert written == [trained]


def test_probes_of_checkpoints_lie_apart_where_figures_find_them(trained, images_folder, tmp_path, capsys):
    kept, run = state.load(trained), tmp_path / "mine"
    files = [run / state.NAME, *(run / state.OLDER / f"step-{step:08d}.safetensors" for step in (2, 4))]
    for file, step in zip(files, (6, 2, 4), strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        state.write(file, kept.tensors, step, kept.config, kept.classes)
    for place in (run, *files[1:]):
        probe(place, "--data", images_folder, "--k", 3, "--n", 8, "--patches", 40, "--device", "cpu")
    places = ["evaluations/probe-step-2/probe.json", "evaluations/probe-step-4/probe.json", "probe.json"]
    assert sorted(str(path.relative_to(run)) for path in run.rglob("probe.json")) == places
    assert [results.read(run / place)["model"]["name"] for place in places] == ["mine"] * 3
    assert [step for step, _ in usage.probed(opened([run])[0], "entropy")] == [2, 4, 6]
    assert str(run / places[1]) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--k", 8, "--n", 20), "has 8 images, and 9 are needed: give more, or a smaller --k"),
        (("--k", 10), "n must be at least 11 for k = 10 neighbours; it is 8"),
        (("--patches", 3), "patches must be at least 4 for k = 3 neighbours; it is 3"),
        (("--k", 1), "k must be at least 2, the fewest neighbours that CKNNA compares; it is 1"),
        (("--tau", 0), r"tau must be above 0 \(usage is of softmax\(A / tau\)\); it is 0.0"),
        (("--tau", "nan"), "tau must be above 0"),
        (("--seed", -1), "seed must be from 0"),
        (("--data", "nowhere"), "there is nothing at .*nowhere"),
        (("--target", "clip-l"), r"clip-l gives 16 x 16 tokens and no others"),
    ],
)
def test_what_is_refused(args, message, trained, same, tmp_path):
    with pytest.raises(ValueError, match=message) as refused:
        probe(trained, *same, *args)
    assert isinstance(refused.value, DataError) == ("--data" in args or 20 in args)
    assert not (tmp_path / "probe.json").exists()


def test_a_target_that_is_not_here(trained, same):
    with pytest.raises(MissingWeight, match="The weights dinov2-b are not on this machine"):
        probe(trained, *same, "--target", "dinov2-b")


def test_help_does_not_wait_for_torch():
    import subprocess
    import sys

    code = "import sys, gear.commands.probe; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_file_has_no_nan(trained, same, tmp_path):
    probe(trained, *same)
    assert "NaN" not in (tmp_path / "probe.json").read_text()
    json.loads((tmp_path / "probe.json").read_text(), parse_constant=pytest.fail)
