"""What is seen of a run with captions: sheets of held-out ones, and gFID of those of training images."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gear import build, data, inference, run, weights
from gear.config import Config, Watch
from gear.config_json import to_json
from gear.data.folder import scan
from gear.data.images import Images, Split
from gear.data.said import first_said, said
from gear.evaluate.features import PooledEfficientNet
from gear.evaluate.frechet import frechet, gaussian
from gear.figures.sheets import captioned
from gear.watching import CAPTIONS, NAME, SHEETS, Watcher

ON = torch.device("cpu")
WATCH = Watch(sample_every=1, samples=6, evaluate_every=1, generated=40, trackers=())

Make = Callable[..., Watcher]


@pytest.fixture(scope="module")
def pair(trained_text: Path) -> run.Pair:
    return run.load(trained_text)


@pytest.fixture
def make(tiny_text: Config, captioned_folder: Path, tmp_path: Path) -> Make:
    """A watcher of `tiny_text`; about half of its 8 images are held out."""

    def made(images: Any = "half", **changes: Any) -> Watcher:
        if images == "half":
            images = data.load(str(captioned_folder), 32, progress=False, captioned=True).split(0.5)
        config = replace(tiny_text, watch=replace(WATCH, **changes), data=replace(tiny_text.data, workers=0))
        return Watcher(config, images, (), ON, tmp_path, build.reader(config, ON, None))

    return made


def chosen(part: Images) -> list[int]:
    """In the order of the seed, which counts by name: prepared images lie in another order than their files."""
    by_name = sorted(range(len(part)), key=lambda i: part.names[i])
    return [by_name[i] for i in np.random.default_rng(0).permutation(len(part))]


def test_a_sheet_has_held_out_captions_under_their_samples(make: Make, pair: run.Pair, tmp_path: Path) -> None:
    watcher = make()
    sheets = watcher.draw(pair.tokenizer, pair.generator, 200)
    held_out = watcher.seen
    assert isinstance(held_out, Images)
    texts = first_said(held_out, chosen(held_out), 6, 0)
    assert watcher.captions == texts
    assert set(texts) == set(said(held_out, range(len(held_out)), 0))
    drawn = inference.draw_prompts(pair, texts, 0, **asdict(watcher.config.sampling))
    assert np.array_equal(sheets["samples"], captioned(drawn, texts))
    assert np.array_equal(np.asarray(Image.open(tmp_path / SHEETS / "samples-00000200.png")), sheets["samples"])
    assert (tmp_path / SHEETS / CAPTIONS).read_text().splitlines() == list(texts)
    assert set(sheets) == {"samples", "reconstructions"}
    assert watcher.measured(200) is False  # no evaluation yet
    again = watcher.draw(pair.tokenizer, pair.generator, 400)
    assert np.array_equal(again["samples"], sheets["samples"])


def test_more_samples_than_a_block_are_those_of_one_call(make: Make, pair: run.Pair) -> None:
    watcher = make(samples=40)
    sheets = watcher.draw(pair.tokenizer, pair.generator, 1)
    drawn = inference.draw_prompts(pair, watcher.captions, 0, **asdict(watcher.config.sampling))
    assert len(drawn) == 40
    apart = sheets["samples"].astype(int) - captioned(drawn, watcher.captions)
    assert np.abs(apart).max() <= 1  # decoded in blocks of another size


def test_gfid_is_of_the_captions_of_the_images_it_is_compared_with(make: Make, pair: run.Pair, tmp_path: Path) -> None:
    watcher = make()
    found = watcher.measure(pair.tokenizer, pair.generator, 7)
    network, train = PooledEfficientNet(weights.path("efficientnet_lite1")), watcher.train
    assert isinstance(train, Images)
    texts = [text or "" for text in said(train, np.resize(chosen(train), 40), 0)]
    drawn = inference.draw_prompts(pair, texts, 0, **asdict(watcher.config.sampling))
    reference = gaussian(network(torch.from_numpy(train.pixels.copy())))
    assert found["gfid"] == pytest.approx(frechet(reference, gaussian(network(drawn))), rel=1e-4)
    (line,) = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
    assert line["n"] == 40


def test_of_files_captions_are_read_late_and_bad_ones_left_out(
    make: Make, pair: run.Pair, captioned_folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "files"
    root.mkdir()
    for file in captioned_folder.iterdir():
        (root / file.name).write_bytes(file.read_bytes())
    files = scan(root, captioned=True)
    watcher = make(Split(train=files, held_out=files.rows([0, 1, 2])))
    whole = watcher.measure(pair.tokenizer, pair.generator, 1)
    prepared = data.load(str(root), 32, progress=False, captioned=True)
    same = make(Split(train=prepared, held_out=prepared.split(0.5).held_out))
    assert same.measure(pair.tokenizer, pair.generator, 2)["gfid"] == pytest.approx(whole["gfid"], rel=1e-6)
    lost = (root / files.names[0]).with_suffix(".txt")
    lost.write_bytes(b"\xff\xfe\xfa")
    broken = make(Split(train=files, held_out=files.rows([0, 1, 2])))
    rest = said(files, broken._chosen(files.rows([0, 1, 2])), 0)
    assert [text is None for text in rest].count(True) == 1
    assert set(broken.captions) == {text for text in rest if text is not None}
    broken.measure(pair.tokenizer, pair.generator, 3)
    lines = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
    assert [line["n"] for line in lines] == [40, 40, 35]  # 40 images of 8 captions, of which one is 5 times lost


def test_stored_codes_without_images_have_no_captions(
    make: Make, pair: run.Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gear")
    watcher = make(None)
    assert ["no images and no captions: nothing is drawn" in r.getMessage() for r in caplog.records] == [True]
    assert watcher.draw(pair.tokenizer, pair.generator, 1) == {}
    assert watcher.measure(pair.tokenizer, pair.generator, 1) == {}
    assert watcher.measured(1)  # nothing is due
    assert not (tmp_path / SHEETS).exists()


def test_where_nothing_is_held_out_captions_are_of_training_images(
    make: Make, captioned_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gear")
    images = data.load(str(captioned_folder), 32, progress=False, captioned=True).split(0.0)
    watcher = make(images)
    assert ["the captions of samples, are of training images" in r.getMessage() for r in caplog.records] == [True]
    assert set(watcher.captions) <= {text for several in images.train.captions or () for text in several}


RANK = """
import json, sys
from pathlib import Path
import torch
from gear import build, config_json, ranks, run
from gear.data.folder import scan
from gear.train.distributed import joined
from gear.watching import Watcher
torch.set_num_threads(1)
out, pictures, trained = map(Path, sys.argv[1:])
pair = run.load(trained)
config = config_json.read(out / "config.json")
with joined(pair.on):
    files = scan(pictures, captioned=True).split(0.5)
    watcher = Watcher(config, files, (), pair.on, out, build.reader(config, pair.on, None))
    watcher.begin(0)
    watcher.draw(pair.tokenizer, pair.generator, 1)
    found = watcher.measure(pair.tokenizer, pair.generator, 1)
    (out / f"{ranks.rank()}.json").write_text(json.dumps(found))
    assert watcher.measured(1)
"""


def test_two_ranks_measure_what_one_does(
    make: Make, pair: run.Pair, trained_text: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    watcher = make(scan(captioned_folder, captioned=True).split(0.5), generated=70)
    two.mkdir()
    (two / "config.json").write_text(to_json(watcher.config))
    (tmp_path / "rank.py").write_text(RANK)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen(
        [*launcher, str(tmp_path / "rank.py"), str(two), str(captioned_folder), str(trained_text)]
    )
    watcher.draw(pair.tokenizer, pair.generator, 1)
    one = watcher.measure(pair.tokenizer, pair.generator, 1)
    assert started.wait(240) == 0
    first, second = (json.loads((two / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first == pytest.approx(one, rel=1e-4)
    for name in ("samples-00000001.png", "reconstructions-00000001.png", CAPTIONS):
        assert (two / SHEETS / name).read_bytes() == (tmp_path / SHEETS / name).read_bytes()
