"""The command line, as a user meets it: from images to samples, and every mistake in one line."""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gear import fetch, inference, run
from gear.cli import COMMANDS, main
from gear.config import LFQ, Config, Warmup
from gear.config_json import read, to_json
from gear.evaluate.reconstruction import psnr
from gear.recipes import RECIPES
from gear.store import saving
from gear.train import log, state

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from gear.cli import main; main()"]
TINY = shlex.split(
    "--data.resolution 32 --batch 3 --steps 2 --log-every 1 --device cpu --generator.layers 2 --generator.heads 2 "
    "--generator.width 32 --generator.tap 1 --generator.projector 16 --tokenizer.quantizer.codebook-size 16 "
    "--tokenizer.quantizer.dim 4 --tokenizer.backbone.channels 16 --tokenizer.backbone.groups 8 "
    "--tokenizer.backbone.latent 16 --tokenizer.critic.channels 8 --tokenizer.critic.layers 1"
)


SOME = ("demo", "gear-l", "table14-cfg-1.5", "folder-256")  # recipes


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a command that was refused."""
        assert self.code == 2
        assert self.err.startswith("gear: ")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        return self.err


class Gear:
    """`gear("sample", folder)` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self.capsys = capsys

    def __call__(self, *args: object) -> Ended:
        self.capsys.readouterr()
        code = 0
        try:
            main([str(arg) for arg in args])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        said = self.capsys.readouterr()
        return Ended(code, said.out, said.err)

    def done(self, *args: object) -> str:
        ended = self(*args)
        assert ended.code == 0, ended.err
        return ended.out


@pytest.fixture
def gear(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gear:
    """In an empty folder, where runs/ will be."""
    monkeypatch.chdir(tmp_path)
    return Gear(capsys)


@pytest.fixture(scope="module")
def warm(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warm-up, which has no generator."""
    folder = tmp_path_factory.mktemp("runs") / "warm"
    run.train(replace(tiny, stage=Warmup(), steps=1), folder)
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A run that may be changed."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in trained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def same(a: Path, b: Path) -> bool:
    x, y = state.load(a).tensors, state.load(b).tensors
    return x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)


def untimed(folder: Path) -> list[dict[str, float]]:
    lines = log.read(folder / log.NAME)
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s", "memory_gib")} for line in lines]


# ------------------------------------------------------------------------------------------- from images to samples


def test_a_users_folder_end_to_end(gear: Gear, images_folder: Path) -> None:
    """A warm-up, then GEAR from it, then samples and reconstructions, with the folders the commands choose."""
    said = gear.done("train", "demo-warmup", "--data.path", images_folder, *TINY)
    assert "done: runs/demo-warmup" in said
    assert "--tokenizer.init runs/demo-warmup" in said
    said = gear.done("train", "demo", "--data.path", images_folder, "--tokenizer.init", "runs/demo-warmup", *TINY)
    assert "next: gear sample runs/demo\n" in said
    config = read(Path("runs/demo/config.json"))
    assert (config.data.path, config.tokenizer.init) == (str(images_folder), "runs/demo-warmup")
    assert config.stage == RECIPES["demo"]().stage
    assert gear.done("sample", "runs/demo", "--n", 4).splitlines()[-1] == "runs/demo/samples.png"
    assert gear.done("reconstruct", "runs/demo", images_folder).splitlines()[-1] == "runs/demo/reconstructions.png"
    assert pixels(Path("runs/demo/samples.png")).shape == (2 * 32 * 4, 2 * 32 * 4, 3)


def test_a_runs_configuration_goes_on_or_trains_again(gear: Gear, copy: Path) -> None:
    before = (copy / state.NAME).read_bytes()
    assert f"done: {copy}" in gear.done("train", copy / "config.json")
    assert (copy / state.NAME).read_bytes() == before
    gear.done("train", copy / "config.json", "--out", "again")
    assert same(Path("again"), copy)
    assert untimed(Path("again")) == untimed(copy)
    gear.done("train", copy / "config.json", "--steps", 7)  # a finished run gets longer
    assert state.load(copy).step == 7
    assert "has made 7 steps already" in gear("train", copy / "config.json", "--steps", 3).error


def test_a_configuration_of_ones_own(gear: Gear, tiny: Config) -> None:
    own = replace(tiny, steps=1, tokenizer=replace(tiny.tokenizer, quantizer=LFQ(4)))
    Path("lfq.json").write_text(to_json(own))
    assert "done: runs/lfq" in gear.done("train", "lfq.json", "--seed", 5)
    assert read(Path("runs/lfq/config.json")) == run.in_full(replace(own, seed=5))
    assert "gear train" in gear.done("train", "lfq.json", "--help")


def test_another_recipe_in_a_runs_folder_is_refused(gear: Gear, copy: Path) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    error = gear("train", copy / "config.json", "--stage.tau", "0.7", "--generator.width", "64").error
    assert "(stage.tau: 0.1 -> 0.7; generator.width: 32 -> 64)" in error
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_full_disk(gear: Gear, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    before = (copy / state.NAME).read_bytes()
    monkeypatch.setattr(saving, "save_file", full)
    error = gear("train", copy / "config.json", "--steps", 7).error
    assert "No space left on device" in error
    assert "is intact" in error
    assert (copy / state.NAME).read_bytes() == before
    assert not [path for path in copy.iterdir() if path.name not in ("config.json", "data.json", log.NAME, state.NAME)]


# ------------------------------------------------------------------------------------------- stopped, for real


def subprocess_that_stops(config: Path, out: Path, number: str, at: int) -> subprocess.CompletedProcess[str]:
    """`gear train` in a process of its own, to which the signal comes while it makes step `at`."""
    code = f"""
import os, signal
from gear.cli import main
from gear.train.batches import Batches
batch = Batches.__call__
def stopped(self, step):
    if step == {at}:
        os.kill(os.getpid(), signal.{number})
    return batch(self, step)
Batches.__call__ = stopped
main(["train", {str(config)!r}, "--out", {str(out)!r}, "--save-every", "2"])
"""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("number", "saved", "logged"),
    [("SIGINT", (5,), [2, 4]), ("SIGKILL", (2, 4), [2, 4])],  # whether step 4 is on disk yet, is chance
)
def test_a_stopped_process_goes_on(
    gear: Gear, trained: Path, tmp_path: Path, number: str, saved: tuple[int, ...], logged: list[int]
) -> None:
    stopped = subprocess_that_stops(trained / "config.json", tmp_path / "run", number, at=4)
    if number == "SIGINT":
        assert stopped.returncode == 130
        said = stopped.stderr.strip()
        assert said.startswith("gear: stopped at step 5 of 6, saved in ")
        assert said.endswith("the same command goes on from there.")
        assert "\n" not in said
    else:
        assert stopped.returncode == -signal.SIGKILL
    assert state.load(tmp_path / "run").step in saved
    assert [line["step"] for line in untimed(tmp_path / "run")] == logged
    gear.done("train", trained / "config.json", "--out", tmp_path / "run", "--save-every", 2)
    assert same(tmp_path / "run", trained)
    assert untimed(tmp_path / "run") == untimed(trained)


@pytest.mark.parametrize(("said", "printed"), [((), "stopped."), (("half way there",), "half way there.")])
def test_ctrl_c(gear: Gear, trained: Path, monkeypatch: pytest.MonkeyPatch, said: tuple[str], printed: str) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt(*said)

    monkeypatch.setattr(inference, "sample", stopped)
    ended = gear("sample", trained)
    assert ended.code == 130
    assert ended.err.strip() == f"gear: {printed}"


# ------------------------------------------------------------------------------------------- sample


def npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        return arrays["arr_0"], arrays["arr_1"]


def test_the_same_seed_gives_the_same_images_however_many(gear: Gear, trained: Path) -> None:
    for n, seed, name in ((5, 3, "five"), (35, 3, "many"), (5, 4, "other")):
        gear.done("sample", trained, "--n", n, "--seed", seed, "--save", "npz", "--out", f"{name}.npz")
    five, labels = npz(Path("five.npz"))
    many, many_labels = npz(Path("many.npz"))
    assert (five.shape, five.dtype, labels.dtype) == ((5, 32, 32, 3), np.uint8, np.int64)
    assert np.array_equal(five, many[:5])
    assert np.array_equal(labels, many_labels[:5])
    assert np.bincount(many_labels).tolist() in ([17, 18], [18, 17])
    assert not np.array_equal(five, npz(Path("other.npz"))[0])


def test_the_ways_to_save(gear: Gear, copy: Path) -> None:
    """In the run's folder, unless told otherwise; a checkpoint file stands for its folder."""
    for place in (copy, copy / state.NAME):
        assert gear.done("sample", place, "--n", 3, "--save", "npz").splitlines()[-1] == f"{copy}/samples-3.npz"
    images, labels = npz(copy / "samples-3.npz")
    assert gear.done("sample", copy, "--n", 3, "--save", "png").splitlines()[-1] == f"{copy}/samples"
    names = sorted(path.name for path in (copy / "samples").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    assert all(np.array_equal(pixels(copy / "samples" / name), images[i]) for i, name in enumerate(names))
    gear.done("sample", copy, "--n", 3, "--out", "deep/er/sheet.png", "--classes", "square", "disc")
    gear.done("sample", copy, "--n", 3, "--out", "some.npz", "--classes", "square", "disc", "--save", "npz")
    images, labels = npz(Path("some.npz"))
    assert labels.tolist() == [1, 0, 1]
    sheet = pixels(Path("deep/er/sheet.png"))
    assert sheet.shape == (2 * 128, 2 * 128, 3)  # two rows of two, 32 px enlarged four times
    corners = [(0, 0), (0, 128), (128, 0)]
    for (y, x), i in zip(corners, (1, 0, 2), strict=True):  # class after class
        assert np.array_equal(sheet[y : y + 128 : 4, x : x + 128 : 4], images[i])
    assert not sheet[128:, 128:].any()


def test_a_folder_of_other_samples_is_left_alone(gear: Gear, copy: Path) -> None:
    """A note beside it says what is in it; the same command again is fine."""
    some = ("sample", copy, "--n", 4, "--save", "png")
    gear.done(*some, "--seed", 1)
    before = {path.name: path.read_bytes() for path in (copy / "samples").iterdir()}
    gear.done(*some, "--seed", 1)
    for given, differ in (
        (("--n", 3), "n"),
        (("--seed", 2), "seed"),
        (("--classes", "disc"), "classes"),
        (("--cfg-scale", 2, "--batch", 4), "cfg_scale, batch"),
        (("--precision", "bfloat16"), "precision"),
    ):
        said = gear(*some, "--seed", 1, *given).error
        assert said.endswith(
            f"{copy}/samples holds images of other settings ({differ}): give another folder with --out, or delete it.\n"
        )
    assert {path.name: path.read_bytes() for path in (copy / "samples").iterdir()} == before
    gear.done(*some, "--out", "other", "--seed", 2)
    (copy / "samples.json").unlink()
    said = gear(*some, "--seed", 1).error
    assert "samples is not empty, and samples.json beside it does not say what is in it: give another folder" in said
    for path in (copy / "samples").iterdir():
        path.unlink()
    gear.done(*some, "--seed", 2)  # what was deleted holds nothing


def test_a_gpu_draws_more_classes_at_once(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def draw(pair: run.Pair, labels: torch.Tensor, seed: int, *, batch: int, **options: object) -> torch.Tensor:
        batches.append(batch)
        return torch.zeros(len(labels), 3, 32, 32, dtype=torch.uint8)

    monkeypatch.setattr(inference, "draw", draw)
    pair = run.load(trained, "cpu")
    for on, asked in (("cpu", None), ("cuda", None), ("cuda", 7)):
        there = replace(pair, on=torch.device(on))
        inference.sample(there, 2, (), 0, "grid", tmp_path / "sheet.png", batch=asked)
    assert batches == [32, 128, 7]


@pytest.mark.parametrize(
    ("given", "labels"), [(["square"], [1, 1, 1]), (["Square", "0"], [1, 0, 1]), (["1", "DISC"], [1, 0, 1])]
)
def test_classes_by_name_and_number(gear: Gear, trained: Path, given: list[str], labels: list[int]) -> None:
    gear.done("sample", trained, "--n", 3, "--classes", *given, "--save", "npz", "--out", "some.npz")
    assert npz(Path("some.npz"))[1].tolist() == labels


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--classes", "circle"], "there is no class 'circle'; the run has 0 'disc', 1 'square'."),
        (["--classes", "disc", "2"], "there is no class '2'; the run has 0 'disc', 1 'square'."),
        (["--n", 0], "n must be at least 1; it is 0."),
        (["--cfg-scale", -1], "cfg_scale must be 0 or more (1 is no guidance); it is -1.0."),
        (["--cfg-interval", 5, 2], "cfg_interval must be a token range (a, b) with 0 <= a <= b; it is (5, 2)."),
        (["--temperature", -0.5], "temperature must be 0 or more"),
        (["--top-p", 0], "top_p must be above 0 and at most 1"),
        (["--top-k", -2], "top_k must be 0 or more"),
        (["--seed", -1], "seed must be from 0 to"),
        (["--seed", 2**64], "seed must be from 0 to"),
        (["--device", "toaster"], "device must be"),
        (["--out", "/proc/none/x.png"], "/proc/none"),
        (["--cfg-scale", "inf"], "cfg_scale must be finite; it is inf."),
        (["--cfg-scale", "nan"], "cfg_scale must be 0 or more (1 is no guidance); it is nan."),
        (["--out", "."], "a folder, and one file is to be written: give a file in it, as --out samples.png."),
        (["--out", "/", "--save", "npz"], "a folder, and one file is to be written: give a file in it, as --out /sam"),
        (["--out", "x.jpg"], "x.jpg would hold PNG: call it x.png."),
        (["--out", "x", "--save", "npz"], "x would hold NPZ: call it x.npz."),
        (["--out", "/dev/null", "--save", "png"], "/dev/null is a file, and a folder of images is to be written"),
    ],
)
def test_samples_that_cannot_be_drawn(gear: Gear, trained: Path, given: list[object], said: str) -> None:
    assert said in gear("sample", trained, "--n", 2, *given).error


def test_a_warm_up_cannot_draw_but_reconstructs(gear: Gear, warm: Path, images_folder: Path) -> None:
    assert "has no generator (a warm-up trains none)" in gear("sample", warm).error
    assert "mean PSNR" in gear.done("reconstruct", warm, images_folder / "disc" / "0.png", "--out", "sheet.png")


def test_a_run_that_is_none(gear: Gear, copy: Path) -> None:
    assert "there is no checkpoint at nowhere" in gear("sample", "nowhere").error
    (copy / state.NAME).write_bytes(b"\x80\x04broken")
    assert "is not a whole safetensors file" in gear("sample", copy).error
    assert "is not a whole safetensors file" in gear("reconstruct", copy, ".").error


# ------------------------------------------------------------------------------------------- reconstruct


def test_reconstruct_files_and_folders(gear: Gear, copy: Path, images_folder: Path) -> None:
    Path("broken.png").write_bytes(b"no image")
    single = images_folder / "disc" / "0.png"
    said = gear.done("reconstruct", copy, single, images_folder / "square", "broken.png", "none.png").splitlines()
    assert "left out: broken.png (broken)" in said
    assert "left out: none.png (not readable)" in said
    assert said[-1] == f"{copy}/reconstructions.png"
    names, opened = inference.open_images([single, images_folder / "square"], 32)
    rebuilt = inference.rebuild(run.load(copy), opened)
    decibels = psnr(rebuilt, opened)
    rows = [re.fullmatch(r" *([\d.]+) dB  (.*)", line) for line in said]
    found = {row[2]: float(row[1]) for row in rows if row}
    expected = dict(zip(names, decibels.tolist(), strict=True)) | {
        "mean PSNR of 5 images, 32 px": decibels.mean().item()
    }
    assert found.keys() == expected.keys()
    assert all(found[name] == pytest.approx(expected[name], abs=0.005) for name in found)
    sheet = pixels(copy / "reconstructions.png")
    assert sheet.shape == (2 * 256, 5 * 256, 3)  # inputs above reconstructions, 32 px enlarged eight times
    for row, images in enumerate((opened, rebuilt)):
        for column, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
            tile = sheet[row * 256 : (row + 1) * 256 : 8, column * 256 : (column + 1) * 256 : 8]
            assert np.array_equal(tile, image)


def test_no_sheet_takes_the_place_of_a_folder(gear: Gear, trained: Path, images_folder: Path) -> None:
    said = gear("reconstruct", trained, images_folder, "--out", ".").error
    assert "a folder, and one file is to be written: give a file in it, as --out reconstructions.png." in said


def test_pictures_of_an_older_checkpoint_go_into_its_run(gear: Gear, copy: Path, images_folder: Path) -> None:
    older = copy / state.OLDER / "step-00000006.safetensors"
    older.parent.mkdir()
    (copy / state.NAME).rename(older)
    for place in (older, copy):  # which has no newer one
        assert gear.done("sample", place, "--n", 1).splitlines()[-1] == f"{copy}/samples.png"
        assert gear.done("reconstruct", place, images_folder).splitlines()[-1] == f"{copy}/reconstructions.png"
    assert [path.name for path in older.parent.iterdir()] == [older.name]


def test_reconstruct_more_than_a_row(gear: Gear, trained: Path, images_folder: Path) -> None:
    nine = [*sorted(images_folder.rglob("*.png")), images_folder / "disc" / "0.png"]
    gear.done("reconstruct", trained, *nine, "--out", "sheet.png")
    sheet = pixels(Path("sheet.png"))
    assert sheet.shape == (4 * 256, 8 * 256, 3)
    assert np.array_equal(sheet[512:768, :256], sheet[:256, :256])  # the ninth is the first again
    assert (sheet[512:, 256:] == 255).all()  # white beside it


def test_images_beside_class_folders_are_named(gear: Gear, trained: Path, images_folder: Path) -> None:
    for name in ("a/in.png", "beside.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes((images_folder / "disc" / "0.png").read_bytes())
    said = gear.done("reconstruct", trained, ".", "--out", "sheet.png")
    assert "left out: beside.png (beside the class folders)" in said
    assert "mean PSNR of 1 images" in said


@pytest.mark.parametrize("given", [[], ["none.png"], ["folder"], ["none.png", "folder"]])
def test_reconstruct_nothing(gear: Gear, trained: Path, given: list[str]) -> None:
    Path("folder").mkdir()
    assert "no image that can be used among" in gear("reconstruct", trained, *given).error


# ------------------------------------------------------------------------------------------- the frame


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_the_list_of_commands(gear: Gear, args: list[str]) -> None:
    said = gear.done(*args)
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]", said, re.MULTILINE), name
    assert "gear demo" in said.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [[name] for name in COMMANDS]
    + [["train", name] for name in SOME]
    + [["evaluate", name] for name in ("adm", "reconstruction", "sweep", "gpic", "coco", "geneval", "dpg")],
)
def test_help(gear: Gear, command: list[str]) -> None:
    said = gear.done(*command, "--help")
    assert f"usage: gear {' '.join(command)}" in said
    if len(command) == 1 and command[0] != "train":
        assert " ".join((COMMANDS[command[0]].__doc__ or "").split()[:5]) in " ".join(said.split())
    assert max(len(line) for line in said.splitlines()) <= 140
    assert "<class" not in said
    assert "MISSING" not in said


def test_help_breaks_no_line_where_the_docstring_does(gear: Gear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = gear.done("demo", "--help")
    lines = [line.strip("\u2502 ") for line in said.splitlines()]
    assert "if" not in lines  # alone
    assert "if it is not there" in " ".join(lines)
    assert "With --text about a quarter of an hour after that" in said


def test_help_of_a_recipe_lists_every_field(gear: Gear) -> None:
    said = gear.done("train", "demo", "--help")
    for option in ("--out", "--steps", "--stage.tau", "--tokenizer.init", "--tokenizer.loss.perceptual-trunk"):
        assert option in said
    assert "your own pictures" in " ".join(said.split())


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_recipes_are_listed(gear: Gear, args: list[str]) -> None:
    said = gear.done("train", *args)
    assert not [name for name in RECIPES if not re.search(rf"^{re.escape(name)} +\S", said, re.MULTILINE)]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["trian"], "there is no command 'trian'; perhaps you meant 'train'; the commands are demo, recipes,"),
        (["--verbose"], "there is no command '--verbose'; the commands are"),
        (
            ["train", "demo-nave"],
            "there is no recipe 'demo-nave'; perhaps you meant 'demo-naive' or 'demo-text' or 'demo-repa'; `gear",
        ),
        (["train", "xyz"], "there is no recipe 'xyz'; `gear recipes` lists the"),
        (["train", "none.json"], "there is no file none.json: give the config.json of a run, or a recipe's name."),
        (["train", "--steps", "2"], "--steps comes before any recipe: gear train RECIPE --steps ..."),
        (["plan", "demo", "--gpus", "0"], "gpus must be at least 1; it is 0."),
        (["train", "demo", "--stage.tau", "-1"], "stage.tau must be above 0"),
        (["train", "demo", "--data.resolution", "30"], "data.resolution must be a multiple of 8"),
        (["train", "demo", "--data.path", "none"], "There is no folder /"),
        (["train", "demo", "--device", "toaster"], "device must be"),
        (["train", "demo-warmup", "--seed", "-1"], "seed must be from 0"),
    ],
)
def test_mistakes_are_one_line(gear: Gear, args: list[str], said: str) -> None:
    assert said in gear(*args).error


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train", "demo", "--stage.tauu", "3"], "--stage.tau FLOAT"),  # the nearest is shown
        (["train", "demo", "--steps", "many"], "--steps"),
        (["train", "demo", "--precision", "float8"], "bfloat16"),
        (["train", "demo", "--target", "dinov9"], "dinov2"),
        (["sample"], "PATH"),
        (["sample", "x", "--nn", "3"], "--nn"),
        (["doctor", "please"], "please"),
    ],
)
def test_options_that_do_not_parse(gear: Gear, args: list[str], said: str) -> None:
    ended = gear(*args)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_a_run_instead_of_its_configuration(gear: Gear, trained: Path) -> None:
    assert f"gear train {trained / 'config.json'}" in gear("train", trained).error


@pytest.mark.parametrize("target", [["--target", "dinov2-b"], ["--target=dinov2-b"], ["--target.name", "dinov2-b"]])
def test_the_short_form_of_the_target(
    gear: Gear, trained: Path, target: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DINOv2's weights are not here nor to be had, and the sentence says how to get them."""

    def no_network(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(fetch, "fetch", no_network)
    assert "gear fetch dinov2-b" in gear("train", trained / "config.json", *target, "--out", "new").error
    assert not Path("new").exists()


def test_debugging_shows_the_traceback(gear: Gear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEAR_DEBUG", "1")
    with pytest.raises(state.CheckpointError, match="there is no checkpoint at nowhere"):
        gear("sample", "nowhere")


@pytest.mark.parametrize("args", [["--help"], ["train"], ["train", "demo", "--help"], ["train", "x"], ["sample", "-h"]])
def test_help_and_typing_errors_do_not_wait_for_torch(args: list[str]) -> None:
    code = "import atexit, os, sys; atexit.register(lambda: os._exit(9 if 'torch' in sys.modules else 0))"
    command = [sys.executable, "-c", f"{code}\n{COMMAND[2]}", *args]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_the_version(gear: Gear) -> None:
    assert re.fullmatch(r"gear \d+\.\d+\.\d+\n", gear.done("--version"))


def test_a_reader_that_leaves() -> None:
    """gear train demo --help | head -1"""
    reader, out = os.pipe()
    os.close(reader)
    command = [*COMMAND, "train", "demo", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    os.close(out)
    assert (done.returncode, done.stderr) == (1, "")


def test_fetch_without_a_name_lists(gear: Gear) -> None:
    assert "dinov2" in gear.done("fetch")


def test_a_mistake_in_a_process_of_its_own() -> None:
    done = subprocess.run([*COMMAND, "train", "x"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gear: there is no recipe 'x'")
    assert done.stderr.count("\n") == 1
