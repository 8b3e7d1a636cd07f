"""Captions in every layout, as a prepared set, as a stream, in order; and what is wrong with them."""

import io
import json
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
from tests.data.test_tars import picture, write

R, BATCH, SEED, N = 16, 5, 3, 12


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GEAR_CACHE", str(folder))
    return folder


def captions_of(i: int) -> tuple[str, ...]:
    """One, two or three of image i."""
    return tuple(f"picture {i}, said {way} — naïve 😀" for way in range(1 + i % 3))


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(N):
        (folder / f"{i:02d}.png").write_bytes(picture(i))


def texts(root: Path) -> Path:
    pictures(root / "set")
    for i in range(N):
        (root / "set" / f"{i:02d}.txt").write_text("\n\n".join(captions_of(i)) + "\n", "utf-8")
    return root / "set"


def table(root: Path) -> Path:
    pictures(root / "set" / "images")
    rows = [(f"images/{i:02d}.png", text) for i in range(N) for text in captions_of(i)]
    text = "id,image,caption\n" + "".join(f'7,{path},"{text}"\n' for path, text in rows)
    (root / "set" / "list.csv").write_text(text, "utf-8-sig")
    return root / "set" / "list.csv"


def lines(root: Path) -> Path:
    pictures(root / "set")
    rows = [
        {"file_name": f"{i:02d}.png", "text": list(captions_of(i)) if i % 2 else captions_of(i)[0]} for i in range(N)
    ]
    (root / "set" / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return root / "set" / "list.jsonl"


def coco(root: Path) -> Path:
    pictures(root / "set" / "train2017")
    images = [{"id": 100 + i, "file_name": f"{i:02d}.png"} for i in range(N)]
    annotations = [{"image_id": 100 + i, "caption": text} for i in range(N) for text in captions_of(i)]
    path = root / "set" / "annotations" / "captions_train2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def shards(root: Path) -> Path:
    """As GPIC has them and, in the second tar, as BLIP3o."""
    for name, some in (("a", range(6)), ("b", range(6, N))):
        members = []
        for i in some:
            said = captions_of(i)
            beside = {"caption": said[0], "caption_type": "short"} if i % 3 == 0 else {"captions": said}
            text = (f"{i:02d}.json", json.dumps(beside).encode()) if name == "a" else (f"{i:02d}.txt", said[0].encode())
            members += [(f"{i:02d}.png", picture(i)), text] if i % 2 else [text, (f"{i:02d}.png", picture(i))]
        write(root / "set" / f"{name}.tar", members)
    return root / "set"


LAYOUTS = [texts, table, lines, coco, shards]


def number(name: str) -> int:
    return int(Path(name).stem)


def right(name: str, several: tuple[str, ...], layout: object) -> bool:
    i = number(name)
    one = (layout is lines and i % 2 == 0) or (layout is shards and i >= 6)
    return several == (captions_of(i)[:1] if one else captions_of(i))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prepared_images_have_their_captions(layout, tmp_path):
    path = layout(tmp_path)
    for _ in range(2):  # decoded, and from the cache
        images = load(str(path), R, captioned=True)
        assert len(images) == N
        assert images.captions is not None
        assert len(images.classes) == 1
        for name, several, pixels in zip(images.names, images.captions, images.pixels, strict=True):
            assert right(name, several, layout)
            with Image.open(io.BytesIO(picture(number(name)))) as one:
                assert np.array_equal(pixels, square(one, R))
    split = images.split(0.3)
    assert 0 < len(split.held_out) < N
    for part in (split.train, split.held_out):
        assert part.captions is not None
        assert all(right(name, several, layout) for name, several in zip(part.names, part.captions, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stream_has_the_caption_that_is_drawn(layout, workers, tmp_path):
    listing = scan(layout(tmp_path), captioned=True).split(0.2).train
    stream = Stream(listing, Cropping(R, "random"), BATCH, SEED, flip=False, workers=workers)
    seen = set()
    for step in (0, 1, 2, 3, 9):
        visit = stream(step)
        assert visit.captions is not None
        drawn = draw(len(listing), BATCH, SEED, step)
        for i, u, caption in zip(drawn.index.tolist(), drawn.caption.tolist(), visit.captions, strict=True):
            assert listing.captions is not None
            several = read(listing.captions[i])
            assert right(listing.names[i], several, layout)
            assert caption == several[int(u * len(several))]
            seen.add(caption)
    assert len(seen) > 5
    stream.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pass_over_all_has_all_captions(layout, tmp_path):
    listing = scan(layout(tmp_path), captioned=True)
    blocks = list(in_order(listing, Cropping(R), 5, workers=0))
    found = [(listing.names[i], c) for b in blocks for i, c in zip(b.index.tolist(), b.captions or (), strict=True)]
    assert len(found) == N
    assert all(right(name, several, layout) for name, several in found)


@pytest.mark.parametrize("layout", [texts, shards])
def test_without_captions_the_same_folder_has_classes(layout, tmp_path):
    """One draw is the other's, too: captions are drawn after all else."""
    path = layout(tmp_path)
    plain, captioned = scan(path), scan(path, captioned=True)
    assert plain.captions is None
    assert load(str(path), R).captions is None
    assert plain.names == captioned.names
    visits = [Stream(one, Cropping(R, "random"), BATCH, SEED, flip=True, workers=0)(7) for one in (plain, captioned)]
    assert visits[0].captions is None
    assert torch.equal(visits[0].pixels, visits[1].pixels)


def test_a_changed_caption_is_seen(tmp_path):
    folder = texts(tmp_path)
    before = load(str(folder), R, captioned=True)
    (folder / "03.txt").write_text("another one")
    os.utime(folder / "03.txt", (0, 0))
    after = load(str(folder), R, captioned=True)
    assert before.captions is not None
    assert after.captions is not None
    changed = [name for name, a, b in zip(after.names, before.captions, after.captions, strict=True) if a != b]
    assert changed == ["03.png"]
    assert ("another one",) in after.captions


def test_images_without_a_caption_are_left_out_and_counted(tmp_path):
    folder = texts(tmp_path)
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
    assert len(images) == N + 1 - 5
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


def test_nothing_with_a_caption(tmp_path):
    pictures(tmp_path / "set")
    with pytest.raises(DataError, match=r"12 images and a caption for none: put a \.txt beside each"):
        scan(tmp_path / "set", captioned=True)
    write(tmp_path / "tars" / "a.tar", [("0.png", picture(0)), ("0.json", b'{"label": 3}')])
    with pytest.raises(DataError, match=r"1 images and a caption for none: a tar needs a \.txt"):
        scan(tmp_path / "tars", captioned=True)
    with pytest.raises(DataError, match="cifar10 has classes and no captions"):
        load("cifar10", R, captioned=True)


def test_a_truncated_shard_gives_what_is_whole(tmp_path):
    path = shards(tmp_path) / "a.tar"
    whole = scan(path.parent, captioned=True)
    size, reasons = path.stat().st_size, set()
    for cut in range(1000, size, 1500):
        os.truncate(path, size - cut)
        listing = scan(path.parent, captioned=True)
        assert len(listing) <= len(whole)
        reasons |= set(listing.skipped)
        for i, name in enumerate(listing.names):
            assert listing.captions is not None
            assert right(name, read(listing.captions[i]), shards)
    assert len(listing) < len(whole)
    assert reasons == {"cut off where its tar ends", "without a caption"}


def test_a_tar_that_became_shorter_loses_its_captions(tmp_path):
    folder = shards(tmp_path)
    stream = Stream(scan(folder, captioned=True), Cropping(R), BATCH, SEED, flip=False, workers=0)
    os.truncate(folder / "a.tar", 512)
    for step in range(6):
        visit = stream(step)
        assert all(number(stream.plan.listing.names[i]) >= 6 for i in visit.draw.index.tolist())
    assert set(stream.broken.values()) == {"with a caption that is not readable"}


def test_what_tars_say_beside_an_image(tmp_path):
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


def test_labels_do_not_matter_where_there_are_captions(tmp_path):
    members = [(f"{i}.png", picture(i)) for i in range(3)] + [(f"{i}.txt", b"a") for i in range(3)]
    write(tmp_path / "set" / "a.tar", [*members, ("0.cls", b"7")])
    assert len(scan(tmp_path / "set", captioned=True)) == 3
    assert len(scan(tmp_path / "set")) == 1


def test_captions_in_tars_are_not_kept_in_memory(tmp_path):
    listing = scan(shards(tmp_path), captioned=True)
    assert listing.captions is not None
    source = listing.captions[0]
    assert isinstance(source, CaptionFile)
    assert isinstance(source.file, Member)
    assert isinstance(Texts.of([("a",)])[0], tuple)


def test_bytes_of_an_image_in_memory(monkeypatch, tmp_path):
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


def test_tars_that_were_indexed_stay_so(tmp_path, monkeypatch):
    """Where Ctrl-C came in the middle."""
    folder, begun, index = shards(tmp_path), list[str](), tars.index

    def stopped(path, at):
        begun.append(path.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return index(path, at)

    monkeypatch.setattr(tars, "index", stopped)
    with pytest.raises(KeyboardInterrupt):
        scan(folder, captioned=True)
    assert len(scan(folder, captioned=True)) == N
    assert begun == ["a.tar", "b.tar", "b.tar"]
