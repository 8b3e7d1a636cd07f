"""Captions in every layout, as a prepared set, as a stream, in order; and what is wrong with them."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gear.data import DataError, load, tars
from gear.data.captions import LONGEST, CaptionFile, Texts, cleaned, read
from gear.data.crop import Cropping, square
from gear.data.decode import Skip
from gear.data.folder import scan
from gear.data.listing import Listing
from gear.data.members import Member
from gear.data.order import draw
from gear.data.streaming import Stream, in_order

R, BATCH, SEED = 16, 5, 3
LAYOUTS = ["texts", "table", "lines", "coco", "shards"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prepared_images_have_their_captions(captioned, picture, layout, tmp_path):
    path = captioned.layouts[layout](tmp_path)
    decoded, cached = (load(str(path), R, captioned=True) for _ in range(2))
    for images in (decoded, cached):
        assert len(images) == captioned.N
        assert images.captions is not None
        assert len(images.classes) == 1
        for name, several, pixels in zip(images.names, images.captions, images.pixels, strict=True):
            assert captioned.right(name, several, layout)
            with Image.open(io.BytesIO(picture(captioned.number(name)))) as one:
                assert np.array_equal(pixels, square(one, R))
    split = cached.split(0.3)
    assert 0 < len(split.held_out) < captioned.N
    for part in (split.train, split.held_out):
        assert part.captions is not None
        assert all(
            captioned.right(name, several, layout) for name, several in zip(part.names, part.captions, strict=True)
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stream_has_the_caption_that_is_drawn(captioned, layout, workers, tmp_path):
    listing = scan(captioned.layouts[layout](tmp_path), captioned=True).split(0.2).train
    stream = Stream(listing, Cropping(R, "random"), BATCH, SEED, flip=False, workers=workers)
    seen = set()
    for step in (0, 1, 2, 3, 9):
        visit = stream(step)
        assert visit.captions is not None
        drawn = draw(len(listing), BATCH, SEED, step)
        for i, u, caption in zip(drawn.index.tolist(), drawn.caption.tolist(), visit.captions, strict=True):
            assert listing.captions is not None
            several = read(listing.captions[i])
            assert captioned.right(listing.names[i], several, layout)
            assert caption == several[int(u * len(several))]
            seen.add(caption)
    assert len(seen) > 5
    stream.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pass_over_all_has_all_captions(captioned, layout, tmp_path):
    listing = scan(captioned.layouts[layout](tmp_path), captioned=True)
    blocks = list(in_order(listing, Cropping(R), 5, workers=0))
    found = [(listing.names[i], c) for b in blocks for i, c in zip(b.index.tolist(), b.captions or (), strict=True)]
    assert len(found) == captioned.N
    assert all(captioned.right(name, several, layout) for name, several in found)


@pytest.mark.parametrize("layout", ["texts", "shards"])
def test_without_captions_the_same_folder_has_classes(captioned, layout, tmp_path):
    """One draw is the other's, too: captions are drawn after all else."""
    path = captioned.layouts[layout](tmp_path)
    plain, captioned = scan(path), scan(path, captioned=True)
    assert plain.captions is None
    assert load(str(path), R).captions is None
    assert plain.names == captioned.names
    visits = [Stream(one, Cropping(R, "random"), BATCH, SEED, flip=True, workers=0)(7) for one in (plain, captioned)]
    assert visits[0].captions is None
    assert torch.equal(visits[0].pixels, visits[1].pixels)


def test_a_changed_caption_is_seen(captioned, tmp_path):
    folder = captioned.texts(tmp_path)
    before = load(str(folder), R, captioned=True)
    (folder / "03.txt").write_text("another one")
    os.utime(folder / "03.txt", (0, 0))
    after = load(str(folder), R, captioned=True)
    assert before.captions is not None
    assert after.captions is not None
    changed = [name for name, a, b in zip(after.names, before.captions, after.captions, strict=True) if a != b]
    assert changed == ["03.png"]
    assert ("another one",) in after.captions


def test_images_without_a_caption_are_left_out_and_counted(captioned, picture, tmp_path):
    folder = captioned.texts(tmp_path)
    (folder / "00.txt").unlink()
    (folder / "01.txt").write_text(" \n\t\n")
    (folder / "02.txt").write_bytes(b"caf\xe9")
    (folder / "03.txt").write_bytes(b"x" * (LONGEST + 1))
    (folder / "04.png").write_bytes(picture(4)[:60])
    (folder / "sub").mkdir()
    (folder / "sub" / "12.PNG").write_bytes(picture(12))
    (folder / "sub" / "12.TXT").write_text("one in a folder of its own")
    expected = {
        "without a caption": "00.png",
        "with an empty caption": "01.png",
        "with a caption that is not UTF-8": "02.png",
        f"with a caption of more than {LONGEST} bytes": "03.png",
        "broken": "04.png",
    }
    images = load(str(folder), R, captioned=True)
    assert images.skipped == dict.fromkeys(expected, 1)
    assert images.examples == {reason: (name,) for reason, name in expected.items()}
    assert len(images) == captioned.N + 1 - 5
    assert "sub/12.PNG" in images.names

    listing = scan(folder, captioned=True)
    assert listing.skipped == {"without a caption": 1}
    stream = Stream(listing, Cropping(R), BATCH, SEED, flip=False, workers=0)
    for step in range(12):
        visit = stream(step)
        assert visit.captions is not None
        assert all(visit.captions)
    found = {reason: listing.names[i] for i, reason in stream.broken.items()}
    assert found == {reason: name for reason, name in expected.items() if name != "00.png"}
    (block,) = in_order(listing, Cropping(R), 50, workers=0)
    assert block.captions is not None
    assert [bool(several) for several in block.captions] == [label >= 0 for label in block.labels.tolist()]


def test_nothing_with_a_caption(captioned, write, picture, tmp_path):
    captioned.pictures(tmp_path / "set")
    with pytest.raises(DataError, match=r"12 images and a caption for none: put a \.txt beside each"):
        scan(tmp_path / "set", captioned=True)
    write(tmp_path / "tars" / "a.tar", [("0.png", picture(0)), ("0.json", b'{"label": 3}')])
    with pytest.raises(DataError, match=r"1 images and a caption for none: a tar needs a \.txt"):
        scan(tmp_path / "tars", captioned=True)
    with pytest.raises(DataError, match="cifar10 has classes and no captions"):
        load("cifar10", R, captioned=True)


@pytest.mark.parametrize(
    ("given", "lists", "said"),
    [
        ("coco", ["coco/captions.json"], "{0}/coco/captions.json."),
        ("coco", ["coco/annotations/captions_train2017.json", "coco/b.json"], "{0}/coco/annotations/captions_train"),
        ("coco/images", ["coco/annotations/captions_images.json"], "{0}/coco/annotations/captions_images.json."),
        ("coco", ["coco/a_captions.csv", "coco/metadata.jsonl"], "{0}/coco/a_captions.csv or {0}/coco/metadata.jsonl."),
        ("coco", [f"coco/captions{i}.json" for i in range(3)], "captions1.json, or another of 3."),
        ("coco", ["coco/instances.json", "coco/captions.md"], ": put a .txt beside each"),
    ],
)
def test_a_list_beside_images_is_named(given: str, lists: list[str], said: str, captioned, tmp_path: Path) -> None:
    captioned.pictures(tmp_path / "coco" / "images")
    for name in lists:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="and a caption for none") as error:
        scan(tmp_path / given, captioned=True)
    assert said.format(tmp_path) in str(error.value)


def test_a_truncated_shard_gives_what_is_whole(captioned, tmp_path):
    path = captioned.shards(tmp_path) / "a.tar"
    whole = scan(path.parent, captioned=True)
    size, reasons, lengths = path.stat().st_size, set[str](), list[int]()
    for cut in range(1000, size, 1500):
        os.truncate(path, size - cut)
        listing = scan(path.parent, captioned=True)
        lengths.append(len(listing))
        reasons |= set(listing.skipped)
        for i, name in enumerate(listing.names):
            assert listing.captions is not None
            assert captioned.right(name, read(listing.captions[i]), "shards")
    assert lengths[-1] < max(lengths) <= len(whole)
    assert reasons == {"cut off where its tar ends", "without a caption"}


def test_a_tar_that_became_shorter_loses_its_captions(captioned, tmp_path):
    folder = captioned.shards(tmp_path)
    stream = Stream(scan(folder, captioned=True), Cropping(R), BATCH, SEED, flip=False, workers=0)
    os.truncate(folder / "a.tar", 512)
    for step in range(6):
        visit = stream(step)
        assert all(captioned.number(stream.plan.listing.names[i]) >= 6 for i in visit.draw.index.tolist())
    assert set(stream.broken.values()) == {"with a caption that is not readable"}


def test_what_tars_say_beside_an_image(write, picture, tmp_path):
    """A text wins over an object; an object that is damaged or says nothing is none."""
    members = [(f"{i}.png", picture(i)) for i in range(6)]
    members += [("0.json", b'{"caption": "object"}'), ("0.txt", b"text\nin two lines")]
    members += [("1.json", b'{"caption": "cut'), ("2.json", b'["a list"]'), ("3.json", b'{"caption": 5}')]
    members += [("4.json", b'{"caption": "", "text": "second"}'), ("5.json", b'{"caption": "half \\ud83d of a pair"}')]
    listing = scan(write(tmp_path / "set" / "a.tar", members).parent, captioned=True)
    assert listing.skipped == {"without a caption": 2}
    assert said(listing) == [
        ("text in two lines",),
        "with a caption that is no text",
        ("second",),
        "with a caption that is not UTF-8",
    ]


def said(listing: Listing) -> list[tuple[str, ...] | str]:
    out: list[tuple[str, ...] | str] = []
    for i in range(len(listing)):
        assert listing.captions is not None
        try:
            out.append(read(listing.captions[i]))
        except Skip as reason:
            out.append(str(reason))
    return out


def test_labels_do_not_matter_where_there_are_captions(write, picture, tmp_path):
    members = [(f"{i}.png", picture(i)) for i in range(3)] + [(f"{i}.txt", b"a") for i in range(3)]
    write(tmp_path / "set" / "a.tar", [*members, ("0.cls", b"7")])
    assert len(scan(tmp_path / "set", captioned=True)) == 3
    assert len(scan(tmp_path / "set")) == 1


def test_captions_in_tars_are_not_kept_in_memory(captioned, tmp_path):
    listing = scan(captioned.shards(tmp_path), captioned=True)
    assert listing.captions is not None
    source = listing.captions[0]
    assert isinstance(source, CaptionFile)
    assert isinstance(source.file, Member)
    assert isinstance(Texts.of([("a",)])[0], tuple)


def test_bytes_of_an_image_in_memory(write, picture, monkeypatch, tmp_path):
    """Names of 24 bytes, offsets, sizes, captions: far less than a Python string alone takes."""
    n = 20_000
    path = write(tmp_path / "set" / "a.tar", [("0.png", picture(0)), ("0.json", b'{"caption": "a"}')])
    one = tars.read(path.parent, ["a.tar"], "folders", captioned=True)
    assert one.captions is not None
    many = np.zeros(n, dtype=np.int64)
    names, members, captions = one.names.rows(many), one.members.rows(many), one.captions.rows(many)
    arrays = [names.data, names.ends, captions.kinds, one.labels[many]]
    for places in (members, captions.members):
        arrays += [places.tar, places.offsets, places.sizes]
    assert sum(array.nbytes for array in arrays) / n < 100


@pytest.mark.parametrize("given", [None, "", " ", [], [""], 5, ["a", 5], {"a": 1}, "\ud83d"])
def test_no_caption(given):
    with pytest.raises(Skip):
        cleaned(given)


def test_blank_space_is_one_space():
    assert cleaned(["  a\t b\n\nc ", "", "d"]) == ("a b c", "d")


def test_tars_that_were_indexed_stay_so(captioned, tmp_path, monkeypatch):
    """Where Ctrl-C came in the middle."""
    folder, begun, index = captioned.shards(tmp_path), list[str](), tars.index

    def stopped(path, at):
        begun.append(path.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return index(path, at)

    monkeypatch.setattr(tars, "index", stopped)
    with pytest.raises(KeyboardInterrupt):
        scan(folder, captioned=True)
    assert len(scan(folder, captioned=True)) == captioned.N
    assert begun == ["a.tar", "b.tar", "b.tar"]
