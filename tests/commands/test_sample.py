"""`gear sample` of texts: each way to give and to save them, what is refused, and that an image is its number's."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from gear import inference
from gear.commands.prompted import artist
from gear.commands.sample import sample
from gear.evaluate.captions import captions
from gear.evaluate.layouts import LayoutError
from gear.evaluate.prompts import PromptError
from gear.generator import generate
from gear.painting import Painting, decode_tokens
from gear.run import Pair, load

LONG = "a photo of " + "three red cups left of " * 5 + "the dog"  # 30 words and two signs around them
GENEVAL = {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"}


def command(*args: object) -> None:
    tyro.cli(sample, prog="gear sample", args=[str(arg) for arg in (*args, "--device", "cpu")])


def npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        return arrays["arr_0"], arrays["arr_1"]


@pytest.fixture
def pair(talking: Path) -> Pair:
    return load(talking, "cpu")


def test_an_image_is_of_its_number_and_text(pair: Pair) -> None:
    """And not of those that come with it, or how many texts there are; each text is encoded once for all its images."""
    texts = ["a red cup", "three cats", "a red cup", LONG] * 10
    whole = inference.draw_prompts(pair, texts, 5)
    assert whole.shape == (40, 3, 32, 32)
    some = [3, 17, 34]
    alone = inference.draw_prompts(pair, [texts[i] for i in some], 5, image_ids=some)
    assert torch.equal(alone, whole[some])
    assert not torch.equal(whole[0], whole[2])
    assert not torch.equal(inference.draw_prompts(pair, texts[:4], 6), whole[:4])
    other = inference.draw_prompts(pair, ["blue dog", *texts[1:4]], 5)
    assert torch.equal(other[1:], whole[1:4])
    assert not torch.equal(other[0], whole[0])


def test_more_images_than_are_drawn_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a red cup", "the dog"] * 35
    whole = inference.draw_prompts(pair, texts, 1)
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(inference, "AT_ONCE", 32)
    assert torch.equal(inference.paint(pair, texts, 1, progress=lambda *at: steps.append(at)), whole)
    assert steps == [(i + 1, 3 * 16) for i in range(3 * 16)]


def test_what_a_pass_has_finished_is_decoded_as_all_would_be(pair: Pair) -> None:
    generator, texts = inference.require_texts(pair)
    painting, prompts = Painting(pair, 5), texts(["a red cup", "the dog"])
    q = generate(
        generator, torch.arange(5) % 2, seed=0, prompts=prompts, batch=2, image_ids=[4, 1, 2, 0, 3], finished=painting
    )
    assert painting.finished == 5
    assert torch.equal(painting.images(), decode_tokens(pair, q))
    with pytest.raises(ValueError, match="6 images were asked for, and 0 are finished"):
        Painting(pair, 6).images()


def cubic(n: int, m: int) -> np.ndarray:
    """m x n: an output is the sum of the four inputs around its place, by Keys' kernel with a = -0.75; beyond the edge
    lie copies of the one at it."""
    weights = np.zeros((m, n))
    for row in range(m):
        place = (row + 0.5) * n / m - 0.5
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - tap)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[row, min(max(tap, 0), n - 1)] += near if d <= 1 else far
    return weights


@pytest.mark.parametrize("side", [24, 13, 40])
def test_resized_is_bicubic_without_antialias_before_rounding(talking: Path, pair: Pair, side: int) -> None:
    q = torch.randint(0, 16, (3, 16), generator=torch.Generator().manual_seed(0))
    drawn = decode_tokens(load(talking, "cpu", resize=side), q)
    k = cubic(32, side)
    x = k @ pair.tokenizer.decode(q).double().numpy() @ k.T
    assert drawn.shape == (3, 3, side, side)
    assert np.abs(drawn.double().numpy() - np.clip((x + 1) * 127.5, 0, 255)).max() < 0.5 + 1e-3  # to the nearest
    assert torch.equal(decode_tokens(load(talking, "cpu", resize=32), q), decode_tokens(pair, q))


def test_resized_samples_are_said_to_be(talking: Path, trained: Path, tmp_path: Path) -> None:
    for run, what in ((talking, ("--prompt", "a red cup")), (trained, ("--classes", "disc"))):
        command(run, *what, "--n", 2, "--save", "npz", "--resize", 20, "--out", tmp_path / "a.npz")
        assert npz(tmp_path / "a.npz")[0].shape == (2, 20, 20, 3)
        assert json.loads((tmp_path / "a.npz.json").read_text())["resize"] == 20
    assert "resize-20" in artist(load(talking, "cpu", resize=20)).folder("x").name
    with pytest.raises(ValueError, match="resize must be at least 1 px; it is 0"):
        command(talking, "--prompt", "a red cup", "--resize", 0)


def test_pngs_of_classes_are_saved_pass_by_pass(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interruption leaves is kept, and the rest is what it would have been."""
    options = ("--n", 11, "--batch", 4, "--save", "png", "--out")
    command(trained, *options, tmp_path / "whole")
    wanted = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    assert sorted(wanted) == [f"{i:06d}.png" for i in range(11)]
    decode = inference.decode_tokens

    def cut(of: Pair, q: torch.Tensor) -> torch.Tensor:
        if len(list((tmp_path / "cut").glob("*.png"))) == 8:
            raise KeyboardInterrupt
        return decode(of, q)

    monkeypatch.setattr(inference, "decode_tokens", cut)
    with pytest.raises(KeyboardInterrupt):
        command(trained, *options, tmp_path / "cut")
    monkeypatch.setattr(inference, "decode_tokens", decode)
    before = list((tmp_path / "cut").iterdir())
    assert len(before) == 8
    (tmp_path / "cut" / "000002.png").unlink()
    times = {file: file.stat().st_mtime_ns for file in before if file.is_file()}
    command(trained, *options, tmp_path / "cut")
    assert {file.name: file.read_bytes() for file in (tmp_path / "cut").iterdir()} == wanted
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())


def test_a_text_encoder_is_read_once(talking: Path) -> None:
    """For the words, in another precision, and at every scale of a sweep."""
    one = artist(load(talking, "cpu"), precision="bfloat16")
    several = [one, one.at(2.0), one.at(3.0).at(4.0)]
    assert all(each.drawing.text is one.pair.text and each.drawing is one.drawing for each in several)
    assert [each.options["cfg_scale"] for each in several] == [1.5, 2.0, 4.0]


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_another_precision_and_batch(talking: Path, pair: Pair, tmp_path: Path, precision: str) -> None:
    options = ("--prompt", "a red cup", "--n", 3, "--save", "npz")
    command(talking, *options, "--precision", precision, "--batch", 1, "--out", tmp_path / "a.npz")
    light = inference.in_precision(pair, "bfloat16" if precision == "bfloat16" else "int8")
    wanted = inference.draw_prompts(light, ["a red cup"] * 3, 0, batch=1, **asdict(pair.checkpoint.config.sampling))
    assert np.array_equal(npz(tmp_path / "a.npz")[0], wanted.permute(0, 2, 3, 1).numpy())
    told = artist(pair, 0, batch=1, precision="int8")
    assert told.about() | {"batch": 1, "precision": "int8"} == told.about()
    assert artist(pair, 0).about().keys().isdisjoint({"batch", "precision"})
    with pytest.raises(ValueError, match="batch must be at least 1; it is 0"):
        command(talking, *options, "--batch", 0)


def test_guidance_leads_away_from_the_negative_text(pair: Pair) -> None:
    def drawn(**options: Any) -> torch.Tensor:
        return inference.draw_prompts(pair, ["a red cup"] * 8, 0, **options)

    assert torch.equal(drawn(negative="blue dog"), drawn())  # without guidance it is not looked at
    assert not torch.equal(drawn(negative="blue dog", cfg_scale=6.0), drawn(cfg_scale=6.0))
    assert torch.equal(drawn(negative="a red cup", cfg_scale=6.0), drawn())  # u + s (c - u) with u = c
    assert torch.equal(drawn(negative="", cfg_scale=6.0), drawn(cfg_scale=6.0))
    apart = inference.draw_prompts(pair, ["the dog"] * 8, 0, cfg_scale=0.0)
    assert torch.equal(drawn(cfg_scale=0.0), apart)  # unconditional


def test_what_is_cut_is_said_once(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gear"):
        inference.draw_prompts(pair, [LONG] * 3 + ["a cat"], 0)
    said = f"warning: 1 of 2 prompts is too long: it is cut to 8 of its 32 tokens: {LONG[:60] + '...'!r}."
    assert [record.getMessage() for record in caplog.records] == [said]
    caplog.clear()
    inference.check_prompts(pair, [LONG, LONG + " cat"], negative=LONG)
    assert "2 of 2 prompts are too long: the longest is cut to 8 of its 33 tokens" in caplog.text


def test_words_that_the_encoder_does_not_know_are_said(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """All of them are the same text to it. Those behind the cut do not count."""
    late = "zebra " * 7 + "cat"
    with caplog.at_level(logging.WARNING, "gear"):
        inference.draw_prompts(pair, ["a cat", "❤️", "❤️", "a ❤️"], 0)
        inference.draw_prompts(pair, ["a cat", "❤️", "zebra"], 0, negative="🍎", cfg_scale=2.0)
        inference.check_prompts(pair, [late])
    said = [record.getMessage() for record in caplog.records]
    one = "warning: 1 of 3 prompts has no word that the text encoder knows: '❤️'; say it in words."
    several = "warning: 3 of 4 prompts have no word that the text encoder knows: the first is '❤️'; say it in words."
    assert said[:2] == [one, several]
    assert said[2].startswith("warning: 1 of 1 prompts has no word")
    assert "is too long" in said[3]


def test_a_negative_text_that_does_nothing_is_said(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    idle = "warning: the negative prompt does nothing without guidance: give a --cfg-scale other than 1."
    unguided: tuple[dict[str, Any], ...] = ({"cfg_scale": 1.0}, {}, {"cfg_scale": 2.0, "cfg_interval": (3, 3)})
    with caplog.at_level(logging.WARNING, "gear"):
        for options in unguided:
            inference.draw_prompts(pair, ["a cat"], 0, negative="blue", **options)
            assert [record.getMessage() for record in caplog.records] == [idle]
            caplog.clear()
        inference.draw_prompts(pair, ["a cat"], 0, negative="blue", cfg_scale=2.0)
        inference.draw_prompts(pair, ["a cat"], 0, negative=" ")
    assert not caplog.records


@pytest.mark.parametrize("nothing", ["", "  \n", "\u200b"])
def test_a_text_without_words(pair: Pair, nothing: str) -> None:
    with pytest.raises(ValueError, match=r"prompt 2 of 2 has no words .*--cfg-scale 0 draws as if there were none"):
        inference.draw_prompts(pair, ["a cat", nothing], 0)
    with pytest.raises(ValueError, match="at least one prompt"):
        inference.draw_prompts(pair, [], 0)


def test_the_ways_to_save(talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Are of the same images, which their numbers tell."""
    texts = ("--prompt", "a red cup", "--prompt", "😀 قطة שלג 一只", "--n", 3, "--seed", 2)
    command(talking, *texts, "--save", "npz", "--out", tmp_path / "some.npz")
    images, rows = npz(tmp_path / "some.npz")
    assert (images.shape, images.dtype, rows.tolist()) == ((6, 32, 32, 3), np.uint8, [0, 0, 0, 1, 1, 1])
    command(talking, *texts, "--save", "png", "--out", tmp_path / "some")
    names = [f"{i:05d}-{j:02d}.png" for i in range(2) for j in range(3)]
    assert sorted(p.name for p in (tmp_path / "some").iterdir()) == [*names, "captions.jsonl"]
    for name, image in zip(names, images, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "some" / name)), image)
    for file in (tmp_path / "some" / "captions.jsonl", tmp_path / "some.jsonl"):
        assert [caption.text for caption in captions(file)] == ["a red cup"] * 3 + ["😀 قطة שלג 一只"] * 3
    assert [caption.key for caption in captions(tmp_path / "some" / "captions.jsonl")] == [n[:-4] for n in names]
    command(talking, *texts, "--out", tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    rows_of_sheet = sheet[:, 6 : 6 + 128 : 4]
    for image in images[[0, 3]]:  # the first of each text, enlarged four times
        assert any(np.array_equal(rows_of_sheet[y : y + 128 : 4], image) for y in range(len(sheet) - 127))
    assert (sheet == 0).all(-1).any()  # ink
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "sheet.png")
    assert [caption.text for caption in captions(tmp_path / "sheet-prompts.txt")] == ["a red cup", "😀 قطة שלג 一只"]
    command(talking, "--prompt", "the dog", "--n", 3, "--seed", 2, "--save", "npz", "--out", tmp_path / "one.npz")
    assert not np.array_equal(npz(tmp_path / "one.npz")[0], images[:3])


def test_prompts_that_share_a_key_are_all_drawn(talking: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image_id,caption\n1,a red cup\n1,a cat\n2,the dog\n")
    options = ("--n", 1, "--save", "npz", "--out", tmp_path / "some.npz")
    command(talking, "--prompts", tmp_path / "p.csv", *options)
    assert npz(tmp_path / "some.npz")[1].tolist() == [0, 1, 2]
    assert [caption.text for caption in captions(tmp_path / "some.jsonl")] == ["a red cup", "a cat", "the dog"]


def test_a_folder_is_gone_on_with(talking: Path, tmp_path: Path) -> None:
    texts = ("--prompt", "a red cup", "--n", 5, "--save", "png", "--out", tmp_path / "some")
    command(talking, *texts)
    before = {path: path.read_bytes() for path in (tmp_path / "some").iterdir()}
    (tmp_path / "some" / "00000-03.png").unlink()
    kept = (tmp_path / "some" / "00000-01.png").stat().st_mtime_ns
    command(talking, *texts)
    assert {path: path.read_bytes() for path in (tmp_path / "some").iterdir()} == before
    assert (tmp_path / "some" / "00000-01.png").stat().st_mtime_ns == kept
    with pytest.raises(LayoutError, match=r"other settings \(cfg_scale\)"):
        command(talking, *texts, "--cfg-scale", 3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a cat\n\na dog\n"),
        ("a.csv", "id,text\n1,a cat\n2,a dog\n"),
        ("a.jsonl", '{"caption": "a cat"}\n{"prompt": "a dog"}\n'),
        (
            "evaluation_metadata.jsonl",
            f"{json.dumps({**GENEVAL, 'prompt': 'a cat'})}\n{json.dumps({**GENEVAL, 'prompt': 'a dog'})}\n",
        ),
    ],
)
def test_files_of_prompts(name: str, content: str, talking: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    command(talking, "--prompts", tmp_path / name, "--n", 1, "--save", "npz", "--out", tmp_path / "file.npz")
    (tmp_path / "dpg").mkdir()
    (tmp_path / "dpg" / "b.txt").write_text("a dog")
    (tmp_path / "dpg" / "a.txt").write_text("a cat\n")
    command(talking, "--prompts", tmp_path / "dpg", "--n", 1, "--save", "npz", "--out", tmp_path / "folder.npz")
    given = ("--prompt", "a cat", "--prompt", "a dog")
    command(talking, *given, "--n", 1, "--save", "npz", "--out", tmp_path / "given.npz")
    whole = npz(tmp_path / "given.npz")[0]
    assert np.array_equal(npz(tmp_path / "file.npz")[0], whole)
    assert np.array_equal(npz(tmp_path / "folder.npz")[0], whole)


def test_what_is_refused(talking: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a cat\na caf\xe9\n")
    with pytest.raises(PromptError, match=r"a\.txt, line 2 is not UTF-8"):
        command(talking, "--prompts", tmp_path / "a.txt")
    for given in ((), ("--prompt",), ("--classes", "disc")):
        with pytest.raises(
            ValueError, match=rf'{talking} draws what a text says, .*`gear sample {talking} --prompt "a red'
        ):
            command(talking, *given)
    with pytest.raises(ValueError, match=rf"{talking} draws what a text says, and no classes: leave out --classes\.$"):
        command(talking, "--prompt", "a cat", "--classes", "disc")
    for given in (("--prompt", "a cat"), ("--negative", "a cat")):
        with pytest.raises(ValueError, match=rf"draws classes, not texts: `gear sample {trained} --classes disc`"):
            command(trained, *given)
    with pytest.raises(ValueError, match="n must be at least 1"):
        command(talking, "--prompt", "a cat", "--n", 0)
    with pytest.raises(ValueError, match="cfg_scale must be 0 or more"):
        command(talking, "--prompt", "a cat", "--cfg-scale", -1)
    (tmp_path / "many.txt").write_text("a cat\n" * 65)
    with pytest.raises(ValueError, match="a sheet has room for 64 prompts, not for 65"):
        command(talking, "--prompts", tmp_path / "many.txt")
    with pytest.raises(ValueError, match="seed must be from 0"):
        command(talking, "--prompt", "a cat", "--seed", -1)


@pytest.mark.parametrize("argument", ["--prompt", "--negative"])
def test_an_argument_that_is_not_utf8_is_refused_before_the_run_is_read(argument: str, tmp_path: Path) -> None:
    given = {"--prompt": "a cat"} | {argument: b"a caf\xe9".decode(errors="surrogateescape")}
    with pytest.raises(ValueError, match=rf"^{argument} 'a caf\\udce9' is not UTF-8: give it from a terminal"):
        command(tmp_path / "nothing", *(part for pair in given.items() for part in pair))


def test_several_texts_behind_one_argument(talking: Path, tmp_path: Path) -> None:
    several = (("--prompt", "a cat", "a dog", "--prompt", "a cup"), ("--prompt", "a cat", "a dog", "a cup"))
    several += (("--prompt", "a cat", "--prompt", "a dog", "--prompt", "a cup"),)
    for i, texts in enumerate(several):
        command(talking, *texts, "--n", 1, "--save", "npz", "--out", tmp_path / f"{i}.npz")
        assert [caption.text for caption in captions(tmp_path / f"{i}.jsonl")] == ["a cat", "a dog", "a cup"]


def test_without_a_place_it_goes_into_the_run(trained: Path, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(talking, "--prompt", "a cat", "--n", 1)
    assert capsys.readouterr().out.splitlines()[-1] == str(talking / "samples.png")
    for save, end in (("png", ""), ("npz", ".npz")):
        command(talking, "--prompt", "a cat", "--n", 1, "--save", save)
        first = Path(capsys.readouterr().out.splitlines()[-1])
        command(talking, "--prompt", "a dog", "--n", 1, "--save", save)
        second = Path(capsys.readouterr().out.splitlines()[-1])
        assert first != second
        assert first.parent == second.parent == talking
        assert first.suffix == end


def test_recorded_steps_are_for_cuda_and_draw_the_same(
    talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU by a recorder that runs the steps again."""
    four = (talking, "--prompt", "a red cup", "the dog", "--n", 2, "--batch", 1, "--save", "npz", "--out")
    with pytest.raises(ValueError, match="CUDA graphs need a generator on a CUDA device; this one is on cpu"):
        command(*four, tmp_path / "refused.npz", "--cuda-graphs")
    command(*four, tmp_path / "plain.npz")
    recorded: list[int] = []
    monkeypatch.setattr("gear.generator.recorded.require_cuda", lambda device: None)
    monkeypatch.setattr("gear.generator.sampling.graphs", lambda device: lambda work: (recorded.append(1), work)[1])
    command(*four, tmp_path / "recorded.npz", "--cuda-graphs")
    assert len(recorded) == 16
    assert np.array_equal(npz(tmp_path / "plain.npz")[0], npz(tmp_path / "recorded.npz")[0])
