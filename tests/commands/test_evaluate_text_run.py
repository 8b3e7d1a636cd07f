"""`gear evaluate geneval`, `dpg`, `coco` and `sweep` of a text-to-image run: it draws the official layouts, which are
then judged as folders are. The judges look at colours."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from torch import Tensor, nn

from gear import fetch
from gear.commands import (
    evaluate_adm,
    evaluate_coco,
    evaluate_dpg,
    evaluate_geneval,
    evaluate_gpic,
    evaluate_sweep,
    prompted,
)
from gear.commands.table import table
from gear.evaluate import clip_score, coco, dino, dpg_judge, geneval_judge, gpic, inception, layouts, results
from gear.evaluate.geneval import Found
from gear.evaluate.layouts import LayoutError
from gear.evaluate.pil_resize import pil_resize
from gear.evaluate.prompts import PromptError
from gear.figures.paper import sweep as sweep_figure
from gear.figures.paper.found import run as found_run
from gear.inference import draw_prompts
from gear.run import load

assert coco  # imported before CLIP has a stand-in, so that its annotations are of the real one
OBJECTS = ("cat", "dog", "cup")
REWRITTEN = "a photo of the red cat left of three cups\nthe dog\nthree blue cups\n"
QUESTIONS = """item_id,proposition_id,dependency,tuple,question_natural_language
a,1,0,entity - whole (cat),Is there a cat?
b,1,0,entity - whole (cup),Is there a cup?
"""


def looks(x: Tensor) -> str:
    return OBJECTS[int(x.float().mean((1, 2)).argmax())]


class Eyes(nn.Module):
    def __init__(self, model: str):
        super().__init__()

    def forward(self, pixels: Tensor) -> list[list[Found]]:
        return [[Found(looks(x), 0.95, (0.0, 0.0, 8.0, 8.0))] for x in pixels]

    def about(self) -> dict[str, Any]:
        return {"sha256": {"model.safetensors": "0" * 64}}


class Painter:
    def __init__(self, clip: Any):
        self.clip = clip

    def colours(self, pixels: Tensor, name: str, group: Sequence[Found]) -> list[str]:
        return ["red"] * len(group)


class Answering:
    def answers(self, pixels: Tensor, questions: Sequence[str]) -> list[str]:
        return ["yes" if looks(pixels) in question else "no" for question in questions]

    def about(self) -> dict[str, Any]:
        return {"sha256": {"model.safetensors": "2" * 64}}


class Words(clip_score.Clip):
    """A text is the colour that it names."""

    def __init__(self, model: str):
        nn.Module.__init__(self)
        self.name, self.channels, self.weight = "words", {"image": 3}, nn.Parameter(torch.zeros(()))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = pixels.float().mean((2, 3))
        return {"image": x / x.norm(dim=1, keepdim=True)}

    def texts(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(name in text) for name in ("red", "green", "blue")] for text in texts])

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": {"model.safetensors": "1" * 64}}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geneval_judge, "Mask2Former", Eyes)
    monkeypatch.setattr(geneval_judge, "Painter", Painter)
    monkeypatch.setattr(clip_score, "Clip", Eyes)
    monkeypatch.setattr(dpg_judge, "opened", lambda model, batch, on: Answering())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of metadata.jsonl, rewritten.txt, dpg/ and questions.csv."""
    metadata = [
        {"tag": "single_object", "include": [{"class": name, "count": 1}], "prompt": f"a photo of a {name}"}
        for name in OBJECTS
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, metadata)))
    (tmp_path / "rewritten.txt").write_text(REWRITTEN)
    (tmp_path / "dpg").mkdir()
    (tmp_path / "dpg" / "a.txt").write_text("a red cat left of the dog")
    (tmp_path / "dpg" / "b.txt").write_text("three cups")
    (tmp_path / "questions.csv").write_text(QUESTIONS)
    return tmp_path


def command(function: Any, *args: object) -> None:
    tyro.cli(function, prog="gear evaluate", args=[str(arg) for arg in (*args, "--device", "cpu")])


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_geneval(talking: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, asked = files / "o", ("--prompts", files / "metadata.jsonl", "--cfg-scale", 4, "--seed", 7)
    command(evaluate_geneval.geneval, talking, *asked, "--out", out)
    names = ["grid.png", "metadata.jsonl", *(f"samples/{j:05d}.png" for j in range(4))]
    whole = bytes_in(out / "images")
    assert list(whole) == [f"{i:05d}/{name}" for i in range(3) for name in names]
    assert json.loads(whole["00001/metadata.jsonl"])["prompt"] == "a photo of a dog"
    pair = load(talking, "cpu")
    texts = [f"a photo of a {name}" for name in OBJECTS for _ in range(4)]
    drawn = pil_resize(draw_prompts(pair, texts, 7, cfg_scale=4.0), (512, 512))
    for number in (0, 6, 11):
        file = out / "images" / f"{number // 4:05d}" / "samples" / f"{number % 4:05d}.png"
        assert torch.equal(layouts.read(file), drawn[number])
    found = results.read(out)
    right = [looks(x) == name for x, name in zip(drawn, np.repeat(OBJECTS, 4), strict=True)]
    assert found["metrics"]["overall"]["value"] == pytest.approx(np.mean(right))
    assert (found["settings"]["prompt_set"], found["settings"]["cfg_scale"]) == ("short", 4.0)
    assert (found["model"]["steps"], found["source"]["prompts"], found["source"]["n"]) == (40, 3, 12)
    for name in ("weights_sha256", "text_encoder_sha256"):
        assert len(found["source"][name]) == 64
    # What is missing is drawn again, the same; what is there stays.
    (out / "images" / "00001" / "samples" / "00002.png").unlink()
    (out / "images" / "00002" / "grid.png").unlink()
    asked_for: list[int] = []
    paint = prompted.paint

    def watched(*args: Any, image_ids: Sequence[int], **options: Any) -> Tensor:
        asked_for.extend(image_ids)
        return paint(*args, image_ids=image_ids, **options)

    monkeypatch.setattr(prompted, "paint", watched)
    command(evaluate_geneval.geneval, talking, *asked, "--out", out)
    assert asked_for == [6]
    assert bytes_in(out / "images") == whole
    with pytest.raises(LayoutError, match=r"other settings \(seed\)"):
        command(evaluate_geneval.geneval, talking, *asked[:-1], 8, "--out", out)
    # The folder alone is judged alike.
    command(evaluate_geneval.geneval, out / "images", "--prompt-set", "short", "--out", files / "again")
    assert results.read(files / "again")["metrics"] == found["metrics"]


def test_what_goes_into_the_run(talking: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --out; refined prompts apart from GenEval's own; nothing is judged with --draw-only."""
    asked = ("--prompts", files / "metadata.jsonl", "--rewritten", files / "rewritten.txt", "--draw-only")
    command(evaluate_geneval.geneval, talking, *asked)
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder == talking / "evaluations" / "geneval-long-step-40-cfg-1.5" / "images"
    assert json.loads((folder / "00000" / "metadata.jsonl").read_text())["prompt"] == "a photo of a cat"
    texts = [line for line in REWRITTEN.splitlines() for _ in range(4)]
    drawn = pil_resize(draw_prompts(load(talking, "cpu"), texts, 0, cfg_scale=1.5), (512, 512))
    assert torch.equal(layouts.read(folder / "00002" / "samples" / "00001.png"), drawn[9])
    assert not (folder.parent / "results.json").exists()
    command(evaluate_dpg.dpg, talking, "--prompts", files / "dpg", "--draw-only", "--negative", "blue")
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.png"]
    assert "negative-" in folder.parent.name


def test_dpg(talking: Path, files: Path) -> None:
    asked = ("--prompts", files / "dpg", "--questions", files / "questions.csv", "--out", files / "o")
    command(evaluate_dpg.dpg, talking, *asked)
    grid = layouts.read(files / "o" / "images" / "b.png")
    texts = ["a red cat left of the dog"] * 4 + ["three cups"] * 4
    drawn = pil_resize(draw_prompts(load(talking, "cpu"), texts, 0, cfg_scale=1.5), (512, 512))
    assert torch.equal(torch.stack(list(layouts.tiles(grid))), drawn[4:])
    found = results.read(files / "o")
    right = [looks(x) == name for x, name in zip(drawn, ["cat"] * 4 + ["cup"] * 4, strict=True)]
    assert found["metrics"]["overall"]["value"] == pytest.approx(100 * np.mean(right))
    (files / "dpg" / "c.txt").write_text("a dog")
    with pytest.raises(PromptError, match=r"1 prompts have no questions in .*, such as c"):
        command(evaluate_dpg.dpg, talking, *asked)


def test_coco_has_the_clip_score(talking: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_score, "Clip", Words)
    records = [{"file_name": f"{i:012d}.jpg", "caption": f"a {name} cup"} for i, name in enumerate(("red", "blue") * 3)]
    (files / "captions.jsonl").write_text("\n".join(map(json.dumps, records)))
    command(evaluate_coco.coco, talking, "--prompts", files / "captions.jsonl", "--n", 5, "--out", files / "o")
    names = [f"{i:012d}.png" for i in range(5)]
    assert sorted(p.name for p in (files / "o" / "images").iterdir()) == names
    drawn = draw_prompts(load(talking, "cpu"), [record["caption"] for record in records[:5]], 0, cfg_scale=1.5)
    for name, image in zip(names, drawn, strict=True):
        assert np.array_equal(np.asarray(Image.open(files / "o" / "images" / name)), image.permute(1, 2, 0).numpy())
    means = drawn.double().mean((2, 3))
    cosines = [means[i][0 if i % 2 == 0 else 2] / means[i].norm() for i in range(5)]
    found = results.read(files / "o")
    assert found["metrics"]["clip_score"]["value"] == pytest.approx(100 * float(np.mean(cosines)), rel=1e-5)
    assert (found["settings"]["cfg_scale"], found["source"]["n"], found["model"]["steps"]) == (1.5, 5, 40)


@pytest.mark.parametrize("function", [evaluate_coco.coco, evaluate_gpic.gpic])
def test_images_of_captions_are_only_drawn(
    function: Any, talking: Path, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the options of sampling, and without the networks that would measure them."""
    monkeypatch.setattr(clip_score, "Clip", None)
    monkeypatch.setattr(fetch, "on_demand", None)
    (files / "p.txt").write_text("a cat\na dog\n")
    options = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "cfg_scale": 2.0}
    given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    command(function, talking, "--prompts", files / "p.txt", "--draw-only", *given, "--seed", 3)
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder.name == "images"
    assert folder.parent.parent == talking / "evaluations"
    for i, image in enumerate(draw_prompts(load(talking, "cpu"), ["a cat", "a dog"], 3, **options)):
        assert torch.equal(layouts.read(folder / f"{i:06d}.png"), image)
    assert not (folder.parent / "results.json").exists()
    with pytest.raises(ValueError, match="--draw-only is for a run"):
        command(function, files, "--prompts", files / "p.txt", "--draw-only")
    with pytest.raises(ValueError, match=r"give --(captions for the CLIP score|reference, GPIC's)"):
        command(function, talking)


class Means(nn.Module):
    """Of colours, in the place of Inception, DINOv2 and CLIP."""

    name, file = "means", Path("means.pt")

    def __init__(self, *_: Any):
        super().__init__()
        self.channels, self.weight = dict.fromkeys(("pool", "spatial", "cls"), 3), nn.Parameter(torch.zeros(()))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return dict.fromkeys(self.channels, pixels.float().mean((2, 3)))

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": "0" * 64}


@pytest.fixture
def means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "opened", Means)
    monkeypatch.setattr(dino, "DinoDetector", Means)
    monkeypatch.setattr(fetch, "on_demand", lambda name: Path(name))


@pytest.fixture
def asking(files: Path) -> Path:
    """`files` with p.txt, twelve prompts, and two folders of images called val."""
    (files / "p.txt").write_text("a red cat\na blue dog\ngreen cups\n" * 4)
    for name in "ab":
        (files / name / "val").mkdir(parents=True)
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)):
            Image.fromarray(pixels).save(files / name / "val" / f"{i:02d}.png")
    return files


MEASURED: dict[Any, tuple[str, list[str]]] = {  # what is always said, and in which other ways it is measured
    evaluate_coco.coco: (
        "--prompts p.txt --interval False",
        ["--clip one/other", "--reference a/val", "--reference a/val --interpolation bilinear"],
    ),
    evaluate_gpic.gpic: (
        "--prompts p.txt --reference a/val --interval False",
        ["--reference b/val", "--interpolation bilinear", "--positions timm"],
    ),
    evaluate_geneval.geneval: ("--prompts metadata.jsonl", ["--detector one/other", "--clip one/other"]),
    evaluate_dpg.dpg: ("--prompts dpg --questions questions.csv", ["--judge one/other"]),
}


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("function", MEASURED)
def test_a_run_is_drawn_once_and_each_way_to_measure_it_has_its_results(
    function: Any,
    talking: Path,
    asking: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where tables find them. What was drawn with --draw-only is measured without drawing it again."""
    monkeypatch.chdir(asking)
    shutil.copytree(talking, asking / "run", ignore=shutil.ignore_patterns("evaluations"))  # of other tests
    if function is evaluate_coco.coco:
        monkeypatch.setattr(clip_score, "Clip", Words)
    asked, ways = MEASURED[function]
    command(function, "run", *asked.split(), "--draw-only")
    monkeypatch.setattr(prompted, "paint", None)
    folders = []
    for way in ("", *ways, ""):
        command(function, "run", *asked.split(), *way.split())
        folders.append(Path(capsys.readouterr().out.split("written: ")[1].strip()).parent)
    assert folders[-1] == folders[0]
    assert len({*folders}) == 1 + len(ways)
    assert all(results.read(folder)["protocol"] == function.__name__ for folder in folders)
    (images,) = (asking / "run" / "evaluations").glob("*/images")
    if "--reference" not in asked:
        assert folders[0].resolve() == images.parent
    assert all(images.parent in (folder / "results.json").resolve().parents for folder in folders)
    assert len(found_run(asking / "run", "run").of(function.__name__)) == 1 + len(ways)


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("function", [evaluate_coco.coco, evaluate_gpic.gpic])
def test_images_that_were_only_drawn_are_known_as_their_runs(
    function: Any, talking: Path, asking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured as a folder, as they are when the run is measured."""
    monkeypatch.setattr(clip_score, "Clip", Words)
    out, measured = asking / "o", ("--reference", asking / "a" / "val", "--out")
    asked = ("--prompts", asking / "p.txt", "--cfg-scale", 4)
    command(function, talking, *asked, "--draw-only", "--out", out)
    command(function, talking, *asked, *measured, out)
    command(function, out / "images", *measured, asking / "again")
    whole, alone = results.read(out), results.read(asking / "again")
    assert alone["model"] == whole["model"]
    assert (alone["model"]["name"], alone["model"]["steps"]) == ("talking", 40)
    assert alone["settings"]["cfg_scale"] == whole["settings"]["cfg_scale"] == 4
    for found in (whole, alone):
        assert "model" not in found["source"]


def test_a_sweep_is_the_single_evaluations(
    talking: Path, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder a benchmark; tables and the figure of the guidance scale find the points of each."""
    asked = ("--geneval", files / "metadata.jsonl", "--rewritten", files / "rewritten.txt", "--dpg", files / "dpg")
    asked += ("--questions", files / "questions.csv", "--scales", 4, 1, "--out", files / "swept")
    command(evaluate_sweep.sweep, talking, *asked)
    for name, protocol, prompt_set in (
        ("geneval-short", "geneval", "short"),
        ("geneval-long", "geneval", "long"),
        ("dpg", "dpg", None),
    ):
        found = results.read(files / "swept" / name)
        assert (found["protocol"], found["settings"]["protocol"]) == ("sweep", protocol)
        assert found["settings"].get("prompt_set") == prompt_set
        assert [point["cfg_scale"] for point in found["points"]] == [1.0, 4.0]
        assert (files / "swept" / name / "figure_cfg.png").stat().st_size > 1000
        single = results.read(files / "swept" / name / "cfg-4")
        assert found["points"][1]["metrics"] == single["metrics"]
    command(
        evaluate_dpg.dpg, talking, "--prompts", files / "dpg", *asked[6:8], "--cfg-scale", 4, "--out", files / "one"
    )
    assert results.read(files / "one")["metrics"] == single["metrics"]
    assert bytes_in(files / "one" / "images") == bytes_in(files / "swept" / "dpg" / "cfg-4" / "images")
    monkeypatch.setattr(prompted, "paint", None)  # nothing is drawn again
    before = [results.read(files / "swept" / name)["points"] for name in ("geneval-long", "dpg")]
    command(evaluate_sweep.sweep, talking, *asked)
    assert [results.read(files / "swept" / name)["points"] for name in ("geneval-long", "dpg")] == before
    drawing = sweep_figure.draw([found_run(files / "swept", "mine")])
    assert "GenEval (short): n = 12" in drawing.caption
    assert "best DPG-Bench, overall" in drawing.caption
    assert sum(bool(ax.lines) for ax in drawing.figure.axes) == 3
    capsys.readouterr()
    tyro.cli(table, args=["19", str(files / "swept")])
    said = capsys.readouterr().out
    for point in (
        p for name in ("geneval-short", "geneval-long") for p in results.read(files / "swept" / name)["points"]
    ):
        assert f"{point['metrics']['overall']['value']:.4f}" in said


def test_a_sweep_by_another_judge_leaves_the_first_and_draws_nothing_again(
    talking: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(talking, run := tmp_path / "run")
    asked = ("--dpg", files / "dpg", "--questions", files / "questions.csv", "--scales", 4, 1)
    command(evaluate_sweep.sweep, run, *asked)
    (first,) = run.glob("evaluations/*/results.json")
    before = first.read_bytes()
    monkeypatch.setattr(prompted, "paint", None)
    command(evaluate_sweep.sweep, run, *asked, "--judge", "another")
    assert first.read_bytes() == before
    assert sorted(path.parent.name for path in first.parent.glob("*/cfg-*/judged.jsonl")) == ["cfg-1", "cfg-4"]
    (second,) = (path for path in first.parent.glob("*/results.json") if not path.parent.name.startswith("cfg-"))
    assert json.loads(second.read_text())["points"] == json.loads(before)["points"]  # whose stand-in answers the same


def test_sweeps_that_are_refused(talking: Path, trained: Path, files: Path) -> None:
    with pytest.raises(ValueError, match=r"give --reference for a run that draws classes, .* none of them"):
        command(evaluate_sweep.sweep, talking)
    with pytest.raises(ValueError, match=r"--questions, dpg_bench\.csv, go together"):
        command(evaluate_sweep.sweep, talking, "--dpg", files / "dpg")
    with pytest.raises(ValueError, match="--rewritten goes with --geneval"):
        command(evaluate_sweep.sweep, talking, "--rewritten", files / "rewritten.txt")
    with pytest.raises(ValueError, match="draws classes, not texts"):
        command(evaluate_sweep.sweep, trained, "--geneval", files / "metadata.jsonl")
    with pytest.raises(ValueError, match="is no model, whose guidance could be changed"):
        command(evaluate_sweep.sweep, files, "--geneval", files / "metadata.jsonl")


def test_what_to_measure_a_text_run_with_is_said(talking: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "opened", lambda: Eyes("inception"))
    for function, advice in (
        (evaluate_adm.adm, "ADM is of class runs, so measure this one with `gear evaluate coco` or `gpic`"),
        (evaluate_sweep.sweep, "give --geneval FILE, or --dpg FOLDER and --questions FILE, in place of --reference"),
    ):
        with pytest.raises(ValueError, match=f"draws what a text says, and no classes: {advice}"):
            command(function, talking, "--reference", files)
    monkeypatch.setattr(fetch, "on_demand", lambda name: Path(name))
    monkeypatch.setattr(dino, "DinoDetector", lambda *_: Eyes("dino"))
    monkeypatch.setattr(gpic, "opened", lambda *_: None)
    with pytest.raises(ValueError, match="no classes: give --prompts FILE, of which it draws an image each"):
        command(evaluate_gpic.gpic, talking, "--reference", files)
    with pytest.raises(ValueError, match=r"--negative 'caf\\udce9' is not UTF-8"):
        command(evaluate_geneval.geneval, talking, "--prompts", files / "m.jsonl", "--negative", "caf\udce9")


def test_what_is_refused(talking: Path, trained: Path, files: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is a model: say what it should draw with --prompts, evaluation_metadata\.jsonl"
    ):
        command(evaluate_geneval.geneval, talking)
    with pytest.raises(ValueError, match="draws classes, not texts"):
        command(evaluate_geneval.geneval, trained, "--prompts", files / "metadata.jsonl")
    with pytest.raises(ValueError, match="is no model, so that --prompts, --negative cannot be given"):
        command(evaluate_geneval.geneval, files, "--prompts", files / "metadata.jsonl", "--negative", "a")
    with pytest.raises(ValueError, match="--draw-only is for a run"):
        command(evaluate_geneval.geneval, files, "--draw-only")
    with pytest.raises(ValueError, match="what to ask about the images with --questions"):
        command(evaluate_dpg.dpg, talking, "--prompts", files / "dpg")
