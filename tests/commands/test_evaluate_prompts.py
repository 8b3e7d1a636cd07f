"""`gear evaluate geneval` and `gear evaluate dpg` on folders that `layouts` wrote, with judges that look at colours."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from torch import Tensor, nn

from gear.commands import evaluate_dpg, evaluate_geneval
from gear.evaluate import clip_score, dpg_judge, geneval_judge, layouts, results
from gear.evaluate.geneval import Found
from gear.evaluate.layouts import LayoutError
from gear.evaluate.prompts import GenevalPrompt

LEVELS = {"dog": 10, "cat": 60, "cup": 120, "none": 250}  # what is to be seen, by the brightness of an image


def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """What a prompt says, but every other image of a cat is a dog."""
    names = [next(name for name in LEVELS if name in prompt) for prompt in prompts]
    names = ["dog" if name == "cat" and i % 2 else name for i, name in enumerate(names)]
    return torch.tensor([LEVELS[name] for name in names]).to(torch.uint8)[:, None, None, None].repeat(1, 3, 8, 8)


def seen(pixels: Tensor) -> str:
    return next(name for name, level in LEVELS.items() if abs(level - pixels.float().mean().item()) < 1)


class Eyes(nn.Module):
    looked = 0

    def __init__(self, model: str):
        super().__init__()

    def forward(self, pixels: Tensor) -> list[list[Found]]:
        type(self).looked += len(pixels)
        return [[Found(seen(x), 0.95, (0.0, 0.0, 8.0, 8.0))] for x in pixels]

    def about(self) -> dict[str, Any]:
        return {"sha256": {"model.safetensors": "0" * 64}}


class Painter:
    def __init__(self, clip: Any):
        self.clip = clip

    def colours(self, pixels: Tensor, name: str, group: Sequence[Found]) -> list[str]:
        return ["red"] * len(group)


class Answering:
    asked = 0

    def answers(self, pixels: Tensor, questions: Sequence[str]) -> list[str]:
        type(self).asked += len(questions)
        return ["Yes." if seen(pixels) in question else "no" for question in questions]

    def about(self) -> dict[str, Any]:
        return {"sha256": {"model.safetensors": "2" * 64}}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geneval_judge, "Mask2Former", Eyes)
    monkeypatch.setattr(geneval_judge, "Painter", Painter)
    monkeypatch.setattr(clip_score, "Clip", Eyes)
    monkeypatch.setattr(dpg_judge, "opened", lambda model, batch, on: Answering())
    Eyes.looked = Answering.asked = 0


def wanted(tag: str, prompt: str, **include: Any) -> GenevalPrompt:
    return GenevalPrompt(prompt, {"tag": tag, "prompt": prompt, "include": [{"count": 1} | include]})


def command(function: Any, *args: object) -> None:
    tyro.cli(function, prog="gear evaluate", args=[str(arg) for arg in (*args, "--device", "cpu")])


def test_geneval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [
        wanted("single_object", "a photo of a dog", **{"class": "dog"}),
        wanted("single_object", "a photo of a cat", **{"class": "cat"}),
        wanted("colors", "a photo of a red cup", **{"class": "cup", "color": "red"}),
        wanted("colors", "a photo of a blue cup", **{"class": "cup", "color": "blue"}),
    ]
    folder = layouts.write_geneval(prompts, draw, tmp_path / "g", about={}, side=16)
    args = (evaluate_geneval.geneval, folder, "--out", tmp_path / "o")
    command(*args)
    found = results.read(tmp_path / "o")
    assert found["protocol"] == "geneval"
    values = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert values == {"overall": 0.625, "single_object": 0.75, "colors": 0.5}
    assert found["source"]["prompts"] == 4
    assert any("the judge is ours" in line for line in found["warnings"])
    assert Eyes.looked == 16
    lines = [json.loads(line) for line in (tmp_path / "o" / "judged.jsonl").read_text().splitlines()]
    reasons = [line["found"]["reasons"] for line in lines[1:]]
    assert ["cup is red, blue wanted"] in reasons
    assert "overall" in capsys.readouterr().out
    command(*args)
    assert Eyes.looked == 16  # the judgements were kept
    assert results.read(tmp_path / "o")["metrics"] == found["metrics"]


QUESTIONS = """item_id,proposition_id,dependency,tuple,question_natural_language
a,1,0,entity - whole (cat),Is there a cat?
a,2,1,attribute - color (cat),Is the dog red?
b,1,0,entity - whole (cup),Is there a cup?
c,1,0,global - (photo),Is it a photo?
"""


def test_dpg(tmp_path: Path) -> None:
    """Two of the four images of prompt a are dogs: they are told to be, but its parent says no."""
    folder = layouts.write_dpg({"a": "a cat", "b": "a cup"}, draw, tmp_path / "d", about={}, side=16)
    (tmp_path / "q.csv").write_text(QUESTIONS)
    args = (evaluate_dpg.dpg, folder, "--questions", tmp_path / "q.csv", "--out", tmp_path / "o")
    command(*args)
    found = results.read(tmp_path / "o")
    values = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert values == {"overall": pytest.approx(100 * (0.25 + 1) / 2), "entity": 75.0, "attribute": 50.0}
    assert Answering.asked == 4 * 2 + 4
    command(*args)
    assert Answering.asked == 12
    assert (found["source"]["n"], found["source"]["prompts"], found["reference"]["prompts"]) == (8, 2, 3)


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (evaluate_geneval.geneval, [("--detector", "one/other"), ("--clip", "one/other")]),
        (evaluate_dpg.dpg, [("--judge", "one/other"), ("--tiles", 1)]),
    ],
)
def test_folders_of_one_name_and_other_judges_have_results_of_their_own(
    function: Any, settings: list[tuple[object, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.csv").write_text(QUESTIONS)
    asked = ("--questions", tmp_path / "q.csv") if function is evaluate_dpg.dpg else ()
    places = [tmp_path / "runs" / run / "images" for run in "ab"]
    for place in places:
        if asked:
            layouts.write_dpg({"b": "a cup"}, draw, place, about={}, side=16)
        else:
            prompt = wanted("single_object", "a photo of a dog", **{"class": "dog"})
            layouts.write_geneval([prompt], draw, place, about={}, side=16)
        command(function, place, *asked)
    for more in settings:
        command(function, places[0], *asked, *more)
    command(function, "runs/a/images", *asked)  # the first again
    found = [file.parent for file in (tmp_path / "evaluations").rglob("results.json")]
    assert len(found) == 2 + len(settings)
    assert all((folder / "judged.jsonl").is_file() for folder in found)
    plain = [folder for folder in found if folder.name == function.__name__]
    assert len(plain) == 2
    assert all(re.fullmatch(r"images-[0-9a-f]{8}", folder.parent.name) for folder in plain)


def test_other_folders(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(QUESTIONS)
    (tmp_path / "e").mkdir()
    with pytest.raises(LayoutError, match="is not in GenEval's layout"):
        command(evaluate_geneval.geneval, tmp_path / "e")
    with pytest.raises(LayoutError, match="is no folder"):
        command(evaluate_geneval.geneval, tmp_path / "none")
    (tmp_path / "e" / "00000").mkdir()
    with pytest.raises(LayoutError, match=r"lacks metadata\.jsonl"):
        command(evaluate_geneval.geneval, tmp_path / "e")
    with pytest.raises(LayoutError, match="holds no images"):
        command(evaluate_dpg.dpg, tmp_path / "e", "--questions", tmp_path / "q.csv")
    (tmp_path / "e" / "z.png").write_bytes(b"")
    with pytest.raises(LayoutError, match=r"1 of 1 images in .* are of no prompt with questions, such as z\.png"):
        command(evaluate_dpg.dpg, tmp_path / "e", "--questions", tmp_path / "q.csv")
    (tmp_path / "e" / "z.png").rename(tmp_path / "e" / "a.png")
    with pytest.raises(LayoutError, match="cannot be read as an image"):
        command(evaluate_dpg.dpg, tmp_path / "e", "--questions", tmp_path / "q.csv", "--out", tmp_path / "o")


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="geneval judges in one process"):
        command(evaluate_geneval.geneval, tmp_path)
    with pytest.raises(ValueError, match="dpg judges in one process"):
        command(evaluate_dpg.dpg, tmp_path, "--questions", tmp_path / "q.csv")
