"""What is drawn and measured while a run trains: the right pixels and numbers, on any number of ranks, and no trace
left in the training."""

import io
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
from rich.console import Console

from gear import data, inference, run, weights
from gear.config import Config, Watch
from gear.config_json import to_json
from gear.data.builtin import images as emoji
from gear.data.folder import scan
from gear.data.images import Split
from gear.data.writing import save_pngs
from gear.evaluate.features import PooledEfficientNet
from gear.evaluate.frechet import frechet, gaussian
from gear.evaluate.reconstruction import psnr
from gear.figures.sheets import sheet
from gear.generator.sampling import class_labels, generate
from gear.progress import bars
from gear.train.batches import to_uint8
from gear.train.lines import append
from gear.watching import NAME, SHEETS, Best, Watcher, best

ON = torch.device("cpu")
CLASSES = ("disc", "square")
WATCH = Watch(sample_every=1, samples=6, evaluate_every=1, generated=40, trackers=())

Make = Callable[..., Watcher]


@pytest.fixture(scope="module")
def pair(trained: Path) -> run.Pair:
    return run.load(trained)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 of the emoji as a folder of two classes, for more than one block."""
    root, pixels = tmp_path_factory.mktemp("pictures"), torch.from_numpy(emoji().pixels[:80].copy())
    for name, part in zip(CLASSES, pixels.split(40), strict=True):
        save_pngs(part, root / name)
    return root


@pytest.fixture
def make(tiny: Config, images_folder: Path, tmp_path: Path) -> Make:
    """A watcher of `tiny`; 4 of its 8 images are held out."""

    def made(images: Any = "half", **changes: Any) -> Watcher:
        if images == "half":
            images = data.load(str(images_folder), 32, progress=False).split(0.5)
        config = replace(tiny, watch=replace(WATCH, **changes), data=replace(tiny.data, workers=0))
        return Watcher(config, images, CLASSES, ON, tmp_path)

    return made


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / NAME).read_text().splitlines()]


# --------------------------------------------------------------------------------------------------------- sheets


def test_sheets_hold_inputs_above_reconstructions_and_samples_by_class(
    make: Make, pair: run.Pair, tmp_path: Path
) -> None:
    watcher = make()
    sheets = watcher.draw(pair.tokenizer, pair.generator, 200)
    assert {name: pixels.shape for name, pixels in sheets.items()} == {
        "samples": (128, 6 * 128, 3),
        "reconstructions": (256, 3 * 128, 3),
    }
    for name, pixels in sheets.items():
        assert np.array_equal(np.asarray(Image.open(tmp_path / SHEETS / f"{name}-00000200.png")), pixels)
    held_out = watcher.seen
    assert isinstance(held_out, data.Images) and watcher.inputs is not None  # noqa: PT018
    small = torch.from_numpy(sheets["reconstructions"][::4, ::4].copy()).permute(2, 0, 1)
    above, below = (torch.stack(part.split(32, dim=2)) for part in small.split(32, dim=1))
    shown = [next(i for i, p in enumerate(held_out.pixels) if np.array_equal(p, x)) for x in above.numpy()]
    assert len(set(shown)) == 3
    assert torch.equal(below, inference.rebuild(pair, above))
    labels = class_labels(6, 2, None, 0)
    assert labels.bincount().tolist() == [3, 3]
    q = generate(inference.require_generator(pair), labels, seed=0, **asdict(watcher.config.sampling))
    drawn = to_uint8(pair.tokenizer.decode(q))  # all in one pass, as here; another number of rows may round otherwise
    assert np.array_equal(sheets["samples"], sheet(drawn[labels.argsort(stable=True)]))


def test_a_sheet_of_two_sets() -> None:
    a = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 128, 128)
    grid = sheet(a, a + 100)[::128, ::128, 0]
    white = [255] * 6
    assert grid.tolist() == [[*range(8)], [*range(100, 108)], [8, 9, *white], [108, 109, *white]]


def test_a_warm_up_has_reconstructions_only(make: Make, pair: run.Pair, tmp_path: Path) -> None:
    watcher = make()
    assert set(watcher.draw(pair.tokenizer, None, 1)) == {"reconstructions"}
    found = watcher.measure(pair.tokenizer, None, 1)
    assert set(found) == {"rfid", "psnr"}
    (line,) = lines(tmp_path)
    assert (line["gfid"], line["n"], line["rfid"]) == (None, 4, found["rfid"])
    assert watcher.best() == Best("rfid", found["rfid"], 1)


def test_stored_codes_without_images(
    make: Make, pair: run.Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = make(None)
    assert [r.getMessage() for r in caplog.records] == [
        "The run reads stored codes and no images: samples are drawn; rFID and gFID are not measured."
    ]
    assert set(watcher.draw(pair.tokenizer, pair.generator, 1)) == {"samples"}
    assert watcher.measure(pair.tokenizer, pair.generator, 1) == {}
    assert not (tmp_path / NAME).exists()


def test_training_images_stand_in_where_nothing_is_held_out(
    make: Make, images_folder: Path, pair: run.Pair, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    watcher = make(data.load(str(images_folder), 32, progress=False).split(0.0))
    assert ["Nothing is held out" in r.getMessage() for r in caplog.records] == [True]
    assert set(watcher.draw(pair.tokenizer, None, 1)) == {"reconstructions"}
    watcher.measure(pair.tokenizer, None, 1)
    assert lines(tmp_path)[0]["n_reconstructed"] == 8


def test_files_that_are_broken_are_left_out(
    make: Make, pair: run.Pair, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing = scan(pictures)
    (tmp_path / "bad" / "disc").mkdir(parents=True)
    for i in range(5):
        source = (listing.folder / listing.names[i]).read_bytes()
        (tmp_path / "bad" / "disc" / f"{i}.png").write_bytes(source[: len(source) // 2] if i in (0, 3) else source)
    broken = scan(tmp_path / "bad")
    watcher = make(Split(train=scan(pictures), held_out=broken), samples=20)
    assert watcher.draw(pair.tokenizer, None, 1)["reconstructions"].shape == (2 * 128, 3 * 128, 3)
    assert watcher.inputs is not None
    assert watcher.inputs.flatten(1).float().std(1).min() > 0  # none of them blank
    found = watcher.measure(pair.tokenizer, pair.generator, 1)
    (line,) = lines(tmp_path)
    assert (line["n"], line["n_reconstructed"]) == (40, 3)
    for i in (0, 3):
        (tmp_path / "bad" / "disc" / f"{i}.png").unlink()
    assert make(Split(train=scan(pictures), held_out=scan(tmp_path / "bad"))).measure(
        pair.tokenizer, pair.generator, 2
    ) == pytest.approx(found, rel=1e-4)
    messages = {r.getMessage() for r in caplog.records if r.name == "gear" and r.module == "streaming"}
    assert messages == {f"Left out: disc/{i}.png (broken)." for i in (0, 3)}


# -------------------------------------------------------------------------------------------------------- numbers


def test_the_numbers_are_those_of_the_images(make: Make, pair: run.Pair, tmp_path: Path) -> None:
    watcher = make()
    found = watcher.measure(pair.tokenizer, pair.generator, 7)
    network = PooledEfficientNet(weights.path("efficientnet_lite1"))
    train, held_out = watcher.train, watcher.seen
    assert isinstance(train, data.Images) and isinstance(held_out, data.Images)  # noqa: PT018
    x = torch.from_numpy(held_out.pixels.copy())
    x_hat = inference.rebuild(pair, x)
    order = np.random.default_rng(0).permutation(len(train))
    labels = torch.from_numpy(np.tile(train.labels[order], 10))  # 40 images, classes as in the 4
    drawn = inference.draw(pair, labels, 0, **asdict(watcher.config.sampling))
    reference = gaussian(network(torch.from_numpy(train.pixels.copy())))
    assert found == {
        "rfid": pytest.approx(frechet(gaussian(network(x)), gaussian(network(x_hat))), rel=1e-4),
        "gfid": pytest.approx(frechet(reference, gaussian(network(drawn))), rel=1e-4),
        "psnr": pytest.approx(psnr(x_hat, x).mean().item(), rel=1e-5),
    }
    (line,) = lines(tmp_path)
    assert line.pop("seconds") > 0
    assert line == {"step": 7, "n": 40, "n_reconstructed": 4, "network": "efficientnet_lite1"} | found


def test_training_is_not_disturbed_and_the_second_time_gives_the_same(make: Make, pair: run.Pair) -> None:
    assert pair.generator is not None
    networks = {"tokenizer": pair.tokenizer, "generator": pair.generator}

    def state() -> dict[str, Any]:
        found: dict[str, Any] = {"torch": torch.random.get_rng_state().tolist(), "numpy": str(np.random.get_state())}
        for name, network in networks.items():
            found |= {f"{name}.{key}": t.tolist() for key, t in network.state_dict().items()}
            found |= {f"{name}.{key} trains": module.training for key, module in network.named_modules()}
            found |= {f"{name}.{key} grad": p.grad for key, p in network.named_parameters()}
        return found

    before = state()
    watcher = make()
    sheets = watcher.draw(pair.tokenizer, pair.generator, 1)
    found = watcher.measure(pair.tokenizer, pair.generator, 1)
    again = watcher.draw(pair.tokenizer, pair.generator, 2)
    assert watcher.measure(pair.tokenizer, pair.generator, 2) == found
    assert make().measure(pair.tokenizer, pair.generator, 3) == found  # a resumed run makes its own watcher
    assert all(np.array_equal(sheets[name], again[name]) for name in sheets)
    after = state()
    assert [name for name in before if before[name] != after[name]] == []


def test_one_held_out_image_has_no_distance(make: Make, images_folder: Path, pair: run.Pair, tmp_path: Path) -> None:
    images = data.load(str(images_folder), 32, progress=False).split(0.01)
    assert len(images.held_out) == 1
    found = make(images).measure(pair.tokenizer, pair.generator, 1)
    assert set(found) == {"gfid", "psnr"}
    assert lines(tmp_path)[0]["rfid"] is None


RANK = """
import json, random, sys
from pathlib import Path
import numpy as np
import torch
from gear import config_json, ranks, run
from gear.data.folder import scan
from gear.train.distributed import joined
from gear.watching import Watcher
torch.set_num_threads(1)
out, pictures, trained = map(Path, sys.argv[1:])
pair = run.load(trained)
config = config_json.read(out / "config.json")
states = lambda: (random.getstate(), str(np.random.get_state()), torch.random.get_rng_state().tolist())
with joined(pair.on):
    before = states()
    watcher = Watcher(config, scan(pictures).split(0.45), pair.checkpoint.classes, pair.on, out)
    watcher.begin(0)
    watcher.draw(pair.tokenizer, pair.generator, 1)
    found = watcher.measure(pair.tokenizer, pair.generator, 1)
    (out / f"{ranks.rank()}.json").write_text(json.dumps(found))
    assert watcher.measured(1)
    assert states() == before  # `random` too, from which the tests' annotation checks draw, but not in this process
"""


def test_two_ranks_measure_what_one_does(
    make: Make, pair: run.Pair, trained: Path, pictures: Path, tmp_path: Path
) -> None:
    """Three blocks are drawn and two reconstructed, so that the second rank once has none left."""
    files, two = scan(pictures).split(0.45), tmp_path / "two"
    watcher = make(files, generated=70)
    two.mkdir()
    (two / "config.json").write_text(to_json(watcher.config))
    (tmp_path / "rank.py").write_text(RANK)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen([*launcher, str(tmp_path / "rank.py"), str(two), str(pictures), str(trained)])
    watcher.draw(pair.tokenizer, pair.generator, 1)
    one = watcher.measure(pair.tokenizer, pair.generator, 1)
    assert started.wait(240) == 0
    first, second = (json.loads((two / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first == pytest.approx(one, rel=1e-4)
    assert set(first) == {"rfid", "gfid", "psnr"}
    (line,) = lines(two)
    assert (line["n"], line["n_reconstructed"]) == (70, len(files.held_out))
    assert 32 < len(files.held_out) <= 64
    for name in ("samples-00000001.png", "reconstructions-00000001.png"):
        assert (two / SHEETS / name).read_bytes() == (tmp_path / SHEETS / name).read_bytes()


# --------------------------------------------------------------------------------------- what is kept, what is asked


def test_a_resumed_run_drops_later_evaluations_and_a_torn_line(make: Make, pair: run.Pair, tmp_path: Path) -> None:
    watcher = make()
    watcher.begin(0)
    assert not (tmp_path / NAME).exists()
    found = watcher.measure(pair.tokenizer, None, 4)
    for step in (6, 8):
        append(tmp_path / NAME, {"step": step, "rfid": 1.0, "gfid": None})
    with (tmp_path / NAME).open("a") as file:
        file.write('{"step": 10, "rf')
    assert best(tmp_path) == Best("rfid", 1.0, 6)  # the torn line does not break reading
    watcher.begin(5)
    watcher.measure(pair.tokenizer, None, 6)
    assert [(line["step"], line["rfid"]) for line in lines(tmp_path)] == [(4, found["rfid"]), (6, found["rfid"])]
    assert watcher.best() == Best("rfid", found["rfid"], 4)


def test_a_run_that_was_stopped_while_it_measured_does_so_again(make: Make, pair: run.Pair, tmp_path: Path) -> None:
    watcher = make(sample_every=2, evaluate_every=4)
    assert [watcher.measured(step) for step in range(1, 5)] == [True, False, True, False]
    watcher.draw(pair.tokenizer, pair.generator, 2)
    watcher.draw(pair.tokenizer, pair.generator, 4)
    watcher.draw(pair.tokenizer, None, 6)  # stopped between its two sheets
    append(tmp_path / NAME, {"step": 8})
    assert [step for step in range(1, 9) if not watcher.measured(step)] == [4, 6]
    assert make(None, sample_every=0, evaluate_every=4).measured(4)  # nothing can be measured


def test_the_best_is_the_lowest_gfid(tmp_path: Path) -> None:
    assert best(tmp_path) is None
    for step, rfid, gfid in ((1, 1.0, None), (2, 5.0, 9.0), (3, 6.0, 7.0), (4, 2.0, 8.0)):
        append(tmp_path / NAME, {"step": step, "rfid": rfid, "gfid": gfid})
    assert best(tmp_path) == Best("gfid", 7.0, 3)


def test_what_is_missing_is_missed_at_once_and_only_if_needed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise weights.MissingWeight(f"{name} is not here")

    monkeypatch.setattr(weights, "path", missing)
    make(evaluate_every=0)
    with pytest.raises(weights.MissingWeight, match="efficientnet_lite1 is not here"):
        make()


def test_progress_is_a_row_of_the_display_that_is_there(make: Make, pair: run.Pair) -> None:
    out = io.StringIO()
    watcher = make()
    with bars(Console(file=out, force_terminal=True, width=80)) as shown:
        shown.add_task("training", total=6, note="")
        update, titles = shown.update, set[str]()

        def noted(task: Any, **fields: Any) -> None:
            titles.add(shown.tasks[-1].description)
            update(task, **fields)

        shown.update = noted  # type: ignore[method-assign]
        watcher.draw(pair.tokenizer, pair.generator, 1, shown)
        watcher.measure(pair.tokenizer, pair.generator, 1, shown)
        assert titles == {"samples", "rFID", "gFID", "held-out images", "training images"}
        assert [task.description for task in shown.tasks] == ["training"]


@pytest.fixture(autouse=True)
def warnings_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "gear")
