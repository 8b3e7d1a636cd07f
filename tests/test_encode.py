"""Stored codes: the losses of the live path, without its tokenizer; and refused where they are of something else."""

import errno
import io
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from gear import build, provenance, run
from gear.cli import main
from gear.config import Config, ConfigError, Frozen, Target
from gear.config_json import read, to_json
from gear.data import DataError, members, shards
from gear.data.shards import INDEX
from gear.encode import encode
from gear.step import Batch, Encoded
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import log
from gear.train.batches import to_uint8

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty noisy pictures of unequal sizes in two classes, and one that is broken."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(20):
        folder = root / ("a" if i % 2 else "b")
        folder.mkdir(exist_ok=True)
        size = (int(random.integers(40, 70)), int(random.integers(40, 70)), 3)
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{i:02d}.png")
    (root / "a" / "broken.png").write_bytes(b"not a picture")
    return root


def frozen(config: Config, tokenizer: Path, **data) -> Config:
    """`config` on a tokenizer that is frozen."""
    fixed = replace(config.tokenizer, init=str(tokenizer))
    return replace(config, stage=Frozen(), tokenizer=fixed, data=replace(config.data, flip=True, **data))


def labels(batch: Batch | Encoded) -> torch.Tensor:
    assert isinstance(batch.c, torch.Tensor)
    return batch.c


def losses(config: Config, steps: int = 5) -> list[dict[str, float]]:
    """Of the first steps, as the loop makes them."""
    fed = run.supply(config, None, CPU)
    training = build.training(config, len(fed.classes), fed.dims, CPU)
    made = []
    for step in range(steps):
        torch.manual_seed(step)
        batch = fed.batches(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            made.append({name: float(value) for name, value in training.step(batch).terms.items()})
    return made


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("features", [False, True])
def test_prepared_images_give_the_same_losses_live_and_stored(tiny, trained, tmp_path, features, precision):
    live = replace(frozen(tiny, trained), precision=precision)
    encode(live, tmp_path / "codes", features)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")))
    assert losses(stored) == losses(live)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("features", [False, True])
def test_random_crops_give_the_same_losses_live_and_stored(tiny, trained, photos, tmp_path, features, precision):
    """Three fixed crops of each image, and a broken image among them."""
    data = {"path": str(photos), "crop": "random", "views": 3, "holdout": 0.0, "workers": 0}
    live = replace(frozen(tiny, trained, **data), precision=precision)
    encode(live, tmp_path / "codes", features)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")))
    assert losses(stored, 9) == losses(live, 9)


def test_the_precision_of_stored_features_is_the_runs(tiny, trained, tmp_path):
    live = frozen(tiny, trained)
    encode(live, tmp_path / "codes", True)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")), precision="bfloat16")
    with pytest.raises(ConfigError, match=r"features computed in float32.* --precision float32"):
        run.supply(stored, None, CPU)
    run.supply(replace(stored, stage=Frozen(lam=0.0)), None, CPU)  # which needs the tokens alone
    encode(live, tmp_path / "tokens", False)
    run.supply(replace(stored, data=replace(stored.data, codes=str(tmp_path / "tokens"))), None, CPU)

    index = tmp_path / "codes" / INDEX
    there = json.loads(index.read_text())
    assert there["about"].pop("precision") == "float32"
    index.write_text(json.dumps(there))
    run.supply(replace(stored, precision="float32"), None, CPU)


@pytest.mark.parametrize("streamed", [False, True])
def test_targets_run_in_the_precision_of_the_run(tiny, trained, photos, streamed):
    """float32 is what the encoder gives alone, rounded to float16; bfloat16 shows; and nothing else is in autocast."""
    data = {"path": str(photos), "crop": "random", "views": 3, "workers": 0} if streamed else {}
    live = frozen(tiny, trained, **data)
    fine, coarse = (run.supply(replace(live, precision=p), None, CPU).batches(0) for p in ("float32", "bfloat16"))
    assert isinstance(fine, Batch)
    assert not torch.is_autocast_enabled("cpu")
    f, g = fine.f["efficientnet_lite0"], coarse.f["efficientnet_lite0"]
    assert (f.dtype, g.dtype) == (torch.float32, torch.float32)
    (target,) = run.prepare(live, CPU).targets
    torch.testing.assert_close(f, target.features(to_uint8(fine.x), (4, 4)), rtol=1e-3, atol=1e-3)
    assert not torch.equal(f, g)
    assert torch.cosine_similarity(f, g, dim=-1).mean() > 0.95


def test_stored_batches_do_not_depend_on_the_order_of_steps(tiny, trained, tmp_path):
    """A run that goes on at a step sees there what the run before would have seen."""
    live = frozen(tiny, trained)
    encode(live, tmp_path / "codes", True)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")))
    through, later = run.supply(stored, None, CPU).batches, run.supply(stored, None, CPU).batches
    expected = [through(step) for step in range(6)]
    for step in (3, 4, 5, 1, 1):
        a, b = later(step), expected[step]
        assert isinstance(a, Encoded)
        assert isinstance(b, Encoded)
        assert torch.equal(a.q, b.q)
        assert torch.equal(labels(a), labels(b))
        assert torch.equal(a.f["efficientnet_lite0"], b.f["efficientnet_lite0"])


def test_stored_features_need_no_image(tiny, trained, photos, tmp_path, monkeypatch):
    live = frozen(tiny, trained)
    encode(live, tmp_path / "codes", True)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")), steps=3)
    monkeypatch.setattr(run, "prepare", None)
    run.train(stored, tmp_path / "run")
    (line,) = (line for line in log.read(tmp_path / "run" / log.NAME) if line["step"] == 3)
    assert line["ntp"] > 0
    assert json.loads((tmp_path / "run" / provenance.NAME).read_text())["train"] > 0


@pytest.mark.parametrize("features", [False, True], ids=["live features", "stored features"])
def test_it_goes_on_elsewhere_and_without_the_tokenizer_it_began_with(tiny, trained, tmp_path, monkeypatch, features):
    """Its weights are in the checkpoint; which codes they go with is in the run's record."""
    warm = shutil.copytree(trained, tmp_path / "here" / "warm")
    monkeypatch.chdir(tmp_path / "here")
    live = frozen(tiny, Path("warm"))
    encode(live, Path("codes"), features)
    stored = replace(live, data=replace(live.data, codes="codes"), steps=1)
    run.train(stored, Path("run"))
    shutil.rmtree(warm)
    monkeypatch.chdir(tmp_path)
    longer = replace(read(tmp_path / "here" / "run" / run.CONFIG), steps=2)
    run.train(longer, tmp_path / "here" / "run")
    index = tmp_path / "here" / "codes" / INDEX
    index.write_text(index.read_text().replace('"tokenizer": "', '"tokenizer": "0'))
    with pytest.raises(ConfigError, match="stored codes differ"):
        run.train(replace(longer, steps=3), tmp_path / "here" / "run")


def test_what_is_stored_is_what_the_tokenizer_says(tiny, trained, tmp_path):
    live = frozen(tiny, trained)
    encode(live, tmp_path / "codes", False)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")))
    a, b = run.supply(stored, None, CPU).batches(2), run.supply(live, None, CPU).batches(2)
    assert isinstance(a, Encoded)
    assert isinstance(b, Batch)
    assert torch.equal(a.q, run.load(trained, "cpu").tokenizer.encode(b.x))
    assert torch.equal(labels(a), labels(b))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resolution": 48}, "was encoded with resolution 32, and this run has 48"),
        ({"holdout": 0.3}, "was encoded with holdout 0.1, and this run has 0.3"),
        ({"path": "builtin"}, "was encoded with path"),
    ],
)
def test_codes_of_other_images_are_refused(tiny, trained, tmp_path, change, said):
    live = frozen(tiny, trained)
    encode(live, tmp_path / "codes", False)
    other = replace(live, data=replace(live.data, codes=str(tmp_path / "codes"), **change))
    with pytest.raises(ConfigError, match=said):
        run.train(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_codes_of_images_that_were_edited_are_refused(tiny, trained, images_folder, tmp_path):
    """Their names and classes are the same."""
    shutil.copytree(images_folder, tmp_path / "images")
    live = frozen(tiny, trained, path=str(tmp_path / "images"), holdout=0.0)
    encode(live, tmp_path / "codes", False)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")))
    run.supply(stored, None, CPU)
    Image.new("RGB", (50, 60), "red").save(tmp_path / "images" / "disc" / "2.png")
    with pytest.raises(ConfigError, match=r"was encoded with pixels 'crc32:.*', and this run has 'crc32:"):
        run.supply(stored, None, CPU)
    with pytest.raises(DataError, match=r"holds other codes \(about\.pixels is "):
        encode(live, tmp_path / "codes", False)

    index = tmp_path / "codes" / INDEX
    there = json.loads(index.read_text())
    del there["about"]["pixels"]  # as folders were that did not say
    index.write_text(json.dumps(there))
    run.supply(stored, None, CPU)


def test_codes_of_another_tokenizer_or_target_are_refused(tiny, trained, tmp_path):
    live = frozen(tiny, trained)
    encode(live, tmp_path / "codes", True)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")))
    run.train(replace(tiny, steps=1), tmp_path / "other")
    moved = replace(stored, tokenizer=replace(stored.tokenizer, init=str(tmp_path / "other")))
    with pytest.raises(ConfigError, match="was encoded with tokenizer"):
        run.supply(moved, None, CPU)
    with pytest.raises(ConfigError, match=r"holds features of .*'layer': None.*'layer': 3"):
        run.supply(replace(stored, targets=(Target("efficientnet_lite0", layer=3),)), None, CPU)


def test_stopped_it_says_how_to_go_on_and_does(tiny, trained, photos, tmp_path, monkeypatch, capsys):
    """Ctrl-C after some images: whole shards stay, and the same command makes what an undisturbed one makes."""
    monkeypatch.setattr(shards, "SQUARES", 8)  # 4 of 21 images
    monkeypatch.setattr("gear.encode.AT_ONCE", 5)
    (tmp_path / "live.json").write_text(to_json(frozen(tiny, trained, path=str(photos), holdout=0.0)))
    command = ["encode", str(tmp_path / "live.json"), "--out", str(tmp_path / "codes")]
    plain, blocks = Tokenizer.encode, itertools.count(1)

    def stopped(self, x):
        if next(blocks) == 4:
            raise KeyboardInterrupt
        return plain(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "encode", stopped)
        with pytest.raises(SystemExit) as end:
            main(command)
    assert end.value.code == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"gear: stopped with 4 of 20 images in .*codes; the same command goes on from there\.", said)
    main(command)
    main([*command[:-1], str(tmp_path / "undisturbed")])
    one, other = (sorted((tmp_path / name).iterdir()) for name in ("codes", "undisturbed"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_a_disk_that_goes_away_leaves_no_holes(tiny, trained, photos, tmp_path, monkeypatch, caplog):
    """Whole shards from before stay, and the same command makes what an undisturbed one makes."""
    monkeypatch.setattr(shards, "SQUARES", 8)  # 4 of 21 images
    monkeypatch.setattr("gear.encode.AT_ONCE", 5)
    monkeypatch.setattr("gear.data.streaming.HOPELESS", 6)
    opened, there = members.open_file, {"last": 10_000}

    def open_file(file: members.File):
        there["last"] -= 1
        if there["last"] < 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        return opened(file)

    monkeypatch.setattr("gear.data.decode.open_file", open_file)
    config = frozen(tiny, trained, path=str(photos), crop="random", views=1, holdout=0.0, workers=0)
    encode(config, tmp_path / "undisturbed", False)
    there["last"] = 8
    with pytest.raises(DataError, match=r"from a/17\.png on, could not be read \(not readable\): is .* still there"):
        encode(config, tmp_path / "codes", False)
    there["last"] = 10_000
    assert sorted(file.name for file in (tmp_path / "codes").iterdir()) == ["00000.safetensors", INDEX]
    encode(config, tmp_path / "codes", False)
    one, other = (sorted((tmp_path / name).iterdir()) for name in ("codes", "undisturbed"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


@pytest.mark.parametrize("prepare", [True, False])
def test_it_ends_with_what_was_left_out(tiny, trained, photos, tmp_path, prepare):
    for _ in range(2):  # the second time all is there
        screen = io.StringIO()
        config = frozen(tiny, trained, path=str(photos), holdout=0.0, prepare=prepare, workers=0)
        encode(config, tmp_path / "codes", False, console=Console(file=screen, width=200))
        said = screen.getvalue()
        assert ("Left out: 1 broken (a/broken.png)." in said) == prepare
        assert ("1 of 21 images could not be used: training draws others instead." in said) != prepare


def test_fresh_crops_cannot_be_stored(tiny, trained, photos, tmp_path):
    config = frozen(tiny, trained, path=str(photos), crop="random", holdout=0.0)
    with pytest.raises(ConfigError, match=r"data\.views must be set"):
        encode(config, tmp_path / "codes", False)


def test_without_flips_none_are_stored(tiny, trained, tmp_path):
    live = frozen(tiny, trained)
    encode(replace(live, data=replace(live.data, flip=False)), tmp_path / "codes", False)
    stored = replace(live, data=replace(live.data, codes=str(tmp_path / "codes")))
    with pytest.raises(ConfigError, match="holds no flipped images"):
        run.supply(stored, None, CPU)
    assert losses(replace(stored, data=replace(stored.data, flip=False)), 2)
