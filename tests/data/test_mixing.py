"""Several sets as one: prepared, streamed, split by itself, resumed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gear.config import Data, Part
from gear.data import DataError, listed, loaded, mixing
from gear.data.captions import read
from gear.data.crop import Cropping
from gear.data.folder import scan
from gear.data.streaming import Stream, in_order

R, SEED = 16, 3


@pytest.fixture
def data(captioned, tmp_path: Path) -> Data:
    """A folder and tars, both called "set", and a list."""
    paths = [str(captioned.layouts[layout](tmp_path / layout)) for layout in ("texts", "shards", "table")]
    parts = (Part(paths[1], 2.0), Part(paths[2], 0.5))
    return Data(paths[0], mixture=parts, resolution=R, holdout=0.3)


def test_names_and_captions_stay_together(data):
    prepared, files = loaded(data, captioned=True), listed(data, captioned=True)
    for side in ("train", "held_out"):
        images, listing = getattr(prepared, side), getattr(files, side)
        assert images.classes == listing.classes == ("set", "set-2", "list.csv")
        assert sorted(images.names) == sorted(listing.names)
        assert len(set(images.names)) == len(images)
        (block,) = in_order(listing, Cropping(R), 99, workers=0)
        streamed = dict(zip(listing.names, zip(block.pixels.numpy(), block.captions or (), strict=True), strict=True))
        for name, label, pixels, captions in zip(
            images.names, images.labels, images.pixels, images.captions, strict=True
        ):
            assert name.startswith(f"{images.classes[label]}/")
            assert np.array_equal(streamed[name][0][0], pixels)
            assert streamed[name][1] == captions
            i = list(listing.names).index(name)
            assert read(listing.captions[i]) == captions
    assert prepared.train.mixture == files.train.mixture
    assert prepared.train.mixture is not None
    assert sum(prepared.train.mixture.sizes) == len(prepared.train)
    assert prepared.train.mixture.weights == (1.0, 2.0, 0.5)


def test_what_is_held_out_does_not_depend_on_the_other_sets(data):
    alone = loaded(replace(data, mixture=()), captioned=True).held_out.names
    mixed = loaded(data, captioned=True)
    assert [name for name in mixed.held_out.names if name.startswith("set/")] == [f"set/{name}" for name in alone]
    assert not set(mixed.train.names) & set(mixed.held_out.names)


def test_a_stream_draws_by_weight_and_resumes(data):
    def stream() -> Stream:
        return Stream(listed(data, captioned=True).train, Cropping(R), 7, SEED, flip=False, workers=0)

    first, counts = stream(), np.zeros(3)
    visits = [first(step) for step in range(6)]
    for visit in visits:
        counts += np.bincount(visit.labels.numpy(), minlength=3)
        assert np.bincount(visit.labels.numpy(), minlength=3).tolist() == [2, 4, 1]  # a period is 7 places
    resumed = stream()
    assert torch.equal(resumed(4).pixels, visits[4].pixels)
    assert resumed(5).captions == visits[5].captions


def test_many_pixels_are_joined_in_the_cache(data, monkeypatch, own_cache):
    here = loaded(data, captioned=True).train
    monkeypatch.setattr(mixing, "IN_MEMORY", 0)
    for _ in range(2):
        there = loaded(data, captioned=True).train
        assert isinstance(there.pixels, np.memmap)
        assert np.array_equal(there.pixels, here.pixels)
    assert list((own_cache / "data").glob("mixture-*.npy"))


def test_one_set_is_as_it_was(data, tmp_path):
    one = replace(data, mixture=())
    assert loaded(one, captioned=True).train.mixture is None
    assert listed(one, captioned=False).train.names == scan(Path(one.path)).split(0.3).train.names


def test_what_is_left_out_is_said_of_each_set(data):
    (Path(data.path) / "03.txt").write_text("")
    Path(data.path, "04.txt").unlink()
    assert loaded(data, captioned=True).train.examples == {
        "with an empty caption": ("set/03.png",),
        "without a caption": ("set/04.png",),
    }
    assert listed(data, captioned=True).train.problems == (("without a caption", "set/04.png"),)


def test_sets_that_cannot_be_mixed(data, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(mixing, "scan", lambda path, *_: scan(path, captioned=True).rows([]))
        with pytest.raises(DataError, match=r"set, set-2, list\.csv has none beside those held out"):
            listed(data, captioned=True)
    with pytest.raises(DataError, match=r"emoji is prepared, not decoded at each visit: set data\.crop"):
        listed(replace(data, mixture=(Part("emoji"),)), captioned=True)


def test_built_in_pictures_beside_others(data):
    mixed = loaded(replace(data, mixture=(Part("builtin", 3.0),)), captioned=True).train
    assert mixed.captions is not None
    at = mixed.names.index("builtin/1F600") if "builtin/1F600" in mixed.names else mixed.names.index("builtin/1F603")
    assert mixed.captions[at][0].startswith("grinning face")
    assert mixed.classes == ("set", "builtin")
