"""gear recipes, plan, encode and export, as a user types them."""

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gear.cli import main
from gear.config import Config, Frozen
from gear.config_json import to_json

Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """What a command prints, or the one line that it ends with, in an empty folder and 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: object) -> str:
        capsys.readouterr()
        try:
            main([str(arg) for arg in args])
        except SystemExit as end:
            *_, said = capsys.readouterr().err.splitlines()
            return f"{end.code} {said}"
        return capsys.readouterr().out

    return run


@pytest.fixture
def frozen(tiny: Config, trained: Path, tmp_path: Path) -> Path:
    """The file of a configuration: LlamaGen-REPA on the tokenizer of `trained`."""
    config = replace(tiny, stage=Frozen(), tokenizer=replace(tiny.tokenizer, init=str(trained)), steps=2)
    (tmp_path / "frozen.json").write_text(to_json(config))
    return tmp_path / "frozen.json"


def test_the_recipes_of_one_table(say: Say) -> None:
    said = say("recipes", "--table", 9)
    assert re.search(r"^gear-xl +GEAR-XL +400k +7\.69$", said, re.MULTILINE)
    assert "table05" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert "no recipe belongs to Table 16 (settings of all studies, which are the" in say("recipes", "--table", 16)


def next_command(said: str) -> list[str]:
    """The arguments of the command that is said to come next."""
    gear, *args = shlex.split(said.splitlines()[-1].removeprefix("next: "))
    assert gear == "gear"
    return args


def test_encode_then_train_on_the_codes(say: Say, frozen: Path) -> None:
    said = say("encode", frozen, "--out", "codes", "--features")
    assert f"next: gear train {frozen} --data.codes codes" in said
    assert "done: runs/frozen" in say(*next_command(said))
    assert Path("codes/index.json").exists()
    assert "codes holds other codes" in say("encode", frozen, "--data.resolution", 64, "--out", "codes")
    assert "done: run" in say("train", frozen, "--data.codes", "codes", "--out", "run")
    assert "holds no codes" in say("train", frozen, "--data.codes", "nowhere", "--out", "other")


def test_the_command_that_comes_next_has_the_same_options(
    say: Say, frozen: Path, trained: Path, tiny: Config, tmp_path: Path
) -> None:
    shutil.copytree(trained, "the tokenizer")
    shutil.copytree(tiny.data.path, "some images")
    options = ["--data.crop", "random", "--data.views=3", "--tokenizer.init", "the tokenizer", "--data.workers", 0]
    said = say("encode", frozen, "--data.path", "some images", "--out=the codes", *options, "--features")
    args = next_command(said)
    assert args[:2] == ["train", str(frozen)]
    assert args[-2:] == ["--data.codes", "the codes"]
    assert "done: runs/frozen" in say(*args)
    assert "done: runs/frozen" in say(*args)  # a run on the same codes goes on

    said = say("encode", "runs/frozen/config.json", "--data.codes=None", "--out", "others", "--data.flip", "False")
    args = next_command(said)
    assert args[-2:] == ["--out", "runs/frozen-codes"]  # since the run there is another one
    assert "done: runs/frozen-codes" in say(*args)


def test_after_encoding_for_a_recipe_that_moves_its_tokenizer(say: Say, tiny: Config, trained: Path) -> None:
    config = replace(tiny, tokenizer=replace(tiny.tokenizer, init=str(trained)))
    Path("joint.json").write_text(to_json(config))
    said = " ".join(say("encode", "joint.json").split())
    assert "next: a recipe with a frozen tokenizer, as demo-repa, the same images and --tokenizer.init" in said
    assert said.endswith("--data.codes codes/joint")


def test_export_then_use(say: Say, trained: Path) -> None:
    assert say("export", trained, "mine").strip() == "mine"
    assert say("export", trained, "ours", "--part", "generator").strip() == "ours"
    assert "say with --tokenizer" in say("sample", "ours", "--n", 2)
    assert say("sample", "ours", "--tokenizer", "mine", "--resolution", 32, "--n", 2).endswith("samples.png\n")
    assert Path("samples.png").exists()
    assert "no public code has a tokenizer of these sizes" in say("export", trained, "a.pt", "--layout", "llamagen")


def test_a_plan_without_the_data_or_the_weights(say: Say, tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, data=replace(tiny.data, path="nowhere"))
    (tmp_path / "config.json").write_text(to_json(config))
    said = say("plan", "config.json", "--gpus", 3, "--tflops-tf32", 0.001, "--mfu", 0.5)
    for line in (
        r"parameters, generator +[\d,]{5,}",
        r"3 images \(1 on each of 3 GPUs\)",
        r" 48",
        r"FLOPs a step, generator +[1-9]",
        r"[\d.]+ (seconds|minutes), [\d.]+ GPU (seconds|minutes)",
    ):
        assert re.search(line, said), said
    assert "must be a multiple of 2 GPUs" in say("plan", "config.json", "--gpus", 2)
    assert "--mfu in (0, 1]" in say("plan", "config.json", "--gpus", 1, "--mfu", 2.0)
