import gzip
import io
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from gear.data import DataError, load
from gear.data.crop import Cropping
from gear.data.folder import Listing, scan
from gear.data.members import File, Member, open_file
from gear.data.streaming import Stream
from gear.inference import open_images

R, BATCH, SEED = 16, 5, 3
CROPPINGS = [Cropping(R), Cropping(R, "random", "bilinear"), Cropping(R, "random", views=3, seed=SEED)]
COUNTED = Path("/proc/self/io")  # what this process has read so far


def said(listing: Listing) -> dict[str, str]:
    return {name: listing.classes[label] for name, label in zip(listing.names, listing.labels, strict=True)}


def bytes_in(file: File) -> bytes:
    with open_file(file) as opened:
        return opened.read()


def bytes_of(listing: Listing) -> dict[str, bytes]:
    return {name: bytes_in(listing.file(i)) for i, name in enumerate(listing.names)}


@pytest.fixture
def pair(write, picture, tmp_path: Path) -> tuple[Path, Path]:
    """The same images as tars and as a folder: 24, of which two are broken, in folders called as the tars and their
    classes are. Each tar has its members in an order of its own, a label before or after its image, here or deeper."""
    tars, folder = tmp_path / "tars" / "pets", tmp_path / "folder" / "pets"
    for shard, first in (("a.tar", 0), ("b.tar", 12)):
        members = []
        for i in range(first, first + 12):
            form = ("png", "jpeg", "webp")[i % 3]
            key = f"x/{i}" if i % 4 == 0 else f"x-{i}"
            data = picture(i, form)[: 60 if i in (2, 17) else None]
            image, label = (f"{key}.{form.upper() if i % 2 else form}", data), (f"{key}.cls", shard.encode())
            members += [image, label] if i % 5 else [label, image]
            (folder / shard / image[0]).parent.mkdir(parents=True, exist_ok=True)
            (folder / shard / image[0]).write_bytes(data)
        write(tars / shard, members)
    return tars, folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cropping", CROPPINGS, ids=["center", "fresh", "fixed"])
def test_batches_are_those_of_the_same_images_in_a_folder(pair, cropping, workers):
    """At every step, from any step on, broken images too."""

    def stream(root: Path, workers: int) -> Stream:
        return Stream(scan(root).split(0.2).train, cropping, BATCH, SEED, flip=True, workers=workers)

    tars, folder = stream(pair[0], workers), stream(pair[1], 0)
    wanted = [folder(step) for step in range(8)]
    for step in (*range(8), 5):
        visit = tars(step)
        assert torch.equal(visit.pixels, wanted[step].pixels)
        assert torch.equal(visit.labels, wanted[step].labels)
    assert tars.broken
    assert tars.broken == folder.broken
    resumed = stream(pair[0], workers)
    assert torch.equal(resumed(6).pixels, wanted[6].pixels)
    resumed.close()
    tars.close()


def test_the_listing_is_that_of_the_folder(pair):
    tars, folder = map(scan, pair)
    assert len(tars) == 24
    for field in ("names", "classes", "groups", "problems", "others"):
        assert getattr(tars, field) == getattr(folder, field)
    assert tars.labels.tolist() == folder.labels.tolist()
    assert bytes_of(tars) == bytes_of(folder)
    assert tars.split(0.3).held_out.names == folder.split(0.3).held_out.names
    assert bytes_of(tars.split(0.3).held_out) == bytes_of(folder.split(0.3).held_out)


def test_prepared_images_are_those_of_the_folder(pair, own_cache):
    tars, folder = (load(str(root), R) for root in pair)
    assert len(tars) == 22
    assert np.array_equal(tars.pixels, folder.pixels)
    for field in ("names", "classes", "groups", "skipped", "examples"):
        assert getattr(tars, field) == getattr(folder, field)
    assert tars.labels.tolist() == folder.labels.tolist()


# ------------------------------------------------------------------------------------------- labels


def labelled(write, path: Path, labels: dict[str, tuple[str, bytes]]) -> Listing:
    """Of a tar with an image for each key, and beside it a label of that suffix, if it has any."""
    members = []
    for key, (suffix, label) in labels.items():
        members += [(f"{key}.jpg", key.encode()), *([(f"{key}.{suffix}", label)] if suffix else [])]
    return scan(write(path / "a.tar", members).parent)


def test_numbers_are_sorted_as_numbers(write, tmp_path):
    listing = labelled(
        write, tmp_path, {"a": ("cls", b"10"), "b": ("cls", b"9\n"), "c": ("cls", b"010"), "d": ("cls", b"0")}
    )
    assert listing.classes == ("0", "9", "10")
    assert said(listing) == {"a.tar/a.jpg": "10", "a.tar/b.jpg": "9", "a.tar/c.jpg": "10", "a.tar/d.jpg": "0"}


def test_names_are_sorted_and_so_are_numbers_among_them(write, tmp_path):
    listing = labelled(write, tmp_path, {"a": ("cls", b"dog"), "b": ("cls", "Kätzchen".encode()), "c": ("cls", b"9")})
    assert listing.classes == ("9", "Kätzchen", "dog")


def test_labels_in_json(write, tmp_path):
    labels: dict[str, object] = {
        "a": {"label": 3, "class": "not this one"},
        "b": {"class": "7", "caption": "a cat"},
        "c": {"label": [1, 2], "class": 12},
    }
    listing = labelled(write, tmp_path, {key: ("json", json.dumps(label).encode()) for key, label in labels.items()})
    assert said(listing) == {"a.tar/a.jpg": "3", "a.tar/b.jpg": "7", "a.tar/c.jpg": "12"}
    assert listing.others == {}


@pytest.mark.parametrize("first", ["cls", "json"])
def test_a_cls_goes_before_a_json(write, tmp_path, first):
    beside = {"cls": b"5", "json": b'{"label": 6}'}
    members = [(f"a.{suffix}", beside[suffix]) for suffix in sorted(beside, reverse=first == "json")]
    assert scan(write(tmp_path / "a.tar", [("a.jpg", b""), *members]).parent).classes == ("5",)


NO_LABELS = {
    "absent": ("", b""),
    "empty": ("cls", b" \n"),
    "unlabelled": ("cls", b"-1"),
    "two lines": ("cls", b"a\nb"),
    "binary": ("cls", b"\xff\xfe"),
    "long": ("cls", b"9" * (1 << 20) + b"9"),
    "no json": ("json", b'{"label": '),
    "deep": ("json", b"[" * 100_000),
    "list": ("json", b"[1]"),
    "truth": ("json", b'{"label": true, "class": null}'),
    "share": ("json", b'{"label": 0.5}'),
}


def test_images_without_a_label_are_left_out_and_counted(write, tmp_path):
    listing = labelled(write, tmp_path, {**NO_LABELS, "here": ("cls", b"cat")})
    assert said(listing) == {"a.tar/here.jpg": "cat"}
    assert bytes_of(listing) == {"a.tar/here.jpg": b"here"}
    assert listing.skipped == {"without a label": len(NO_LABELS)}
    assert ("without a label", "a.tar/unlabelled.jpg") in listing.problems


def test_without_classes_labels_do_not_matter(write, tmp_path):
    labelled(write, tmp_path, {**NO_LABELS, "here": ("cls", b"cat")})
    listing = scan(tmp_path, None)
    assert len(listing) == len(NO_LABELS) + 1
    assert (listing.classes, listing.problems) == ((tmp_path.name,), ())


def test_without_any_label_there_is_one_class(write, tmp_path):
    listing = labelled(write, tmp_path / "pets", NO_LABELS)
    assert len(listing) == len(NO_LABELS)
    assert set(said(listing).values()) == {"pets"}
    assert listing.report() == ""
    with pytest.raises(DataError, match=r'data.classes is "imagenet", but no image has a label beside it'):
        scan(tmp_path / "pets", "imagenet")


def test_labels_of_a_list(write, tmp_path):
    """Numbers are places in it, names are names of it."""
    (tmp_path / "list.txt").write_text("zebra\ncat\nant\n")
    root = write(
        tmp_path / "data" / "a.tar",
        [("1.jpg", b""), ("1.cls", b"2"), ("2.jpg", b""), ("2.cls", b"cat"), ("3.jpg", b""), ("3.cls", b"0")],
    ).parent
    listing = scan(root, str(tmp_path / "list.txt"))
    assert listing.classes == ("zebra", "cat", "ant")
    assert listing.labels.tolist() == [2, 1, 0]
    (tmp_path / "list.txt").write_text("zebra\nwolf\n")
    with pytest.raises(DataError, match=r"whose 2 classes do not include 2 of the 3 labels: 2, cat\. Remove them"):
        scan(root, str(tmp_path / "list.txt"))


def test_imagenet_by_number_and_by_name(write, tmp_path):
    listing = labelled(write, tmp_path / "a", {"a": ("cls", b"999"), "b": ("json", b'{"label": "n01443537"}')})
    assert listing.classes == ("999", "n01443537")
    listing = scan(tmp_path / "a", "imagenet")
    assert len(listing.classes) == 1000
    assert listing.labels.tolist() == [999, 1]
    labelled(write, tmp_path / "b", {"a": ("cls", b"1000")})
    with pytest.raises(DataError, match="do not include 1 of the 1 labels: 1000"):
        scan(tmp_path / "b", "imagenet")


# ------------------------------------------------------------------------------------------- what is in a tar


def test_what_is_no_image_of_a_sample(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind, data in [
            ("./1.png", tarfile.REGTYPE, b"one"),
            ("deep/er/1.JPG", tarfile.REGTYPE, b"two"),
            ("../../up.png", tarfile.REGTYPE, b"three"),
            ("1.jpg", tarfile.REGTYPE, b"again"),
            ("1.png", tarfile.REGTYPE, b"and again"),
            ("1.seg.png", tarfile.REGTYPE, b"mask"),
            ("2.png", tarfile.SYMTYPE, b""),
            ("3.png", tarfile.LNKTYPE, b""),
            ("4.png", tarfile.FIFOTYPE, b""),
            ("5.png", tarfile.DIRTYPE, b""),
            ("6.heic", tarfile.REGTYPE, b"phone"),
            ("1.txt", tarfile.REGTYPE, b"caption"),
            ("README", tarfile.REGTYPE, b"text"),
            ("._1.png", tarfile.REGTYPE, b"Finder"),
            (".git/7.png", tarfile.REGTYPE, b"hidden"),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(data), "1.png"
            tar.addfile(member, io.BytesIO(data))
    listing = scan(tmp_path)
    assert bytes_of(listing) == {"a.tar/../../up.png": b"three", "a.tar/1.png": b"one", "a.tar/deep/er/1.JPG": b"two"}
    assert listing.problems == (
        ("with the key of an earlier one", "a.tar/1.jpg"),
        ("with the key of an earlier one", "a.tar/1.png"),
        ("with two suffixes", "a.tar/1.seg.png"),
        *(("no plain file in its tar", f"a.tar/{i}.png") for i in (2, 3, 4)),
        (".heic, a format that is not read", "a.tar/6.heic"),
    )
    assert listing.others == {".txt": 1, "no suffix": 1}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats_and_names(write, tmp_path, form):
    """Long ones, in other scripts, and of bytes that are no text; the index keeps them as they are."""
    names = ["ä/猫.png", "a" * 70 + "/" + "b" * 70 + ".png", os.fsdecode(b"\xff.png"), "a\nb.png"]
    write(tmp_path / "a.tar", [(name, name.encode("utf-8", "surrogateescape")) for name in names], form)
    first, again = scan(tmp_path), scan(tmp_path)
    assert bytes_of(first) == {f"a.tar/{name}": name.encode("utf-8", "surrogateescape") for name in names}
    assert bytes_of(again) == bytes_of(first)
    assert len(first.split(0.5).train) > 0


def test_a_tar_that_became_shorter_has_a_broken_image(write, picture, tmp_path):
    write(tmp_path / "a.tar", [("1.png", picture(1)), ("2.png", picture(2))])
    listing = scan(tmp_path)
    member = listing.file(1)
    assert isinstance(member, Member)
    os.truncate(tmp_path / "a.tar", member.offset + member.size - 1)
    with pytest.raises(EOFError, match=rf"ends before byte {member.offset + member.size}"):
        open_file(member)
    stream = Stream(listing, CROPPINGS[0], BATCH, SEED, flip=False, workers=0)
    assert stream(0).draw.index.tolist() == [0] * BATCH
    assert stream.broken == {1: "broken"}


def test_images_to_reconstruct(pair, capsys):
    names, pixels = open_images([pair[0]], R)
    same_names, same_pixels = open_images([pair[1]], R)
    assert [name.replace("tars/", "folder/") for name in names] == same_names
    assert torch.equal(pixels, same_pixels)
    assert len(names) == 22
    assert capsys.readouterr().out.count("(broken)") == 4


# ------------------------------------------------------------------------------------------- damage


def test_a_tar_that_ends_anywhere(write, tmp_path, caplog):
    """At every 64th byte, and around every border: its whole members are used, what is lost is counted, and it is said
    once."""
    members = [(f"{i}.png", bytes([i + 1]) * size) for i, size in enumerate((700, 512, 0, 1500))]
    whole = write(tmp_path / "whole" / "s.tar", members).read_bytes()
    with tarfile.open(tmp_path / "whole" / "s.tar") as tar:
        ends = {m.name: m.offset_data + m.size for m in tar}
        starts = {m.name: m.offset for m in tar}
        data = {m.name: m.offset_data for m in tar}
    padded = max(-(-end // 512) * 512 for end in ends.values())
    borders = [
        b + d for b in (*ends.values(), *starts.values(), *data.values(), padded, padded + 512) for d in (-1, 0, 1)
    ]
    for size in sorted({*range(512, len(whole), 64), *(b for b in borders if b >= 512), len(whole)}):
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / "s.tar").write_bytes(whole[:size])
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="gear"):
            listing = scan(tmp_path / "cut")
        kept = [name for name, end in ends.items() if max(end, data[name]) <= size]
        assert bytes_of(listing) == {f"s.tar/{name}": dict(members)[name] for name in kept}, size
        lost = ["s.tar/" + name for name in ends if data[name] <= size < ends[name]]  # its header is whole
        lost += ["s.tar" for name in ends if starts[name] < size < data[name]]
        assert listing.problems == tuple(("cut off where its tar ends", name) for name in lost), size
        assert len(caplog.messages) == (size < padded + 512), size
        for message in caplog.messages:
            assert message.startswith(f"Cut short or damaged in {tmp_path / 'cut'}: 1 of its tars (s.tar ends ")
        assert [m for m in caplog.messages if lost and "header" not in m and lost[0][6:] not in m] == []


def test_an_image_whose_label_is_cut_off_is_left_out(write, tmp_path):
    members = [("1.cls", b"a"), ("1.png", b"x"), ("2.png", b"y"), ("2.cls", b"b" * 600)]
    tar = write(tmp_path / "s.tar", members)
    with tarfile.open(tar) as opened:
        last = opened.getmembers()[-1]
    os.truncate(tar, last.offset_data + 300)
    listing = scan(tmp_path)
    assert said(listing) == {"s.tar/1.png": "a"}
    assert listing.skipped == {"cut off where its tar ends": 1, "without a label": 1}


def test_whole_tars_beside_cut_ones_and_one_warning(write, tmp_path, caplog):
    for i in range(6):
        path = write(tmp_path / f"{i}.tar", [("a.png", b"x" * 600), ("b.png", b"y" * 600)])
        if i:
            os.truncate(path, 2200)
    for _ in range(2):  # from the index, too
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="gear"):
            listing = scan(tmp_path)
        assert listing.names == ("0.tar/a.png", "0.tar/b.png", *(f"{i}.tar/a.png" for i in range(1, 6)))
        assert caplog.messages == [
            f"Cut short or damaged in {tmp_path}: 5 of its tars (1.tar ends within b.png; 2.tar ends within b.png; "
            "3.tar ends within b.png; ...). What is whole in them is used; copy them for the rest."
        ]
        assert "5 cut off where its tar ends (1.tar/b.png, 2.tar/b.png, 3.tar/b.png, ...)" in listing.report()


def header_with(size: bytes) -> bytes:
    """Of a member z.png, whose 12 bytes of size are these."""
    raw = bytearray(tarfile.TarInfo("z.png").tobuf(tarfile.USTAR_FORMAT))
    raw[124:136] = size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


@pytest.mark.parametrize(
    ("header", "where"),
    [
        (b"no header".ljust(512, b"."), "within the header at byte 1024"),
        (header_with(b"\xff" * 10 + b"\xf8\x00"), "within the header at byte 1024"),  # -2,048 bytes long
        (header_with(b"\x80" + b"\x7f" * 11), "within z.png"),  # longer than any file
        (header_with(b"77777777777\0"), "within z.png"),
    ],
    ids=["no header", "a size below zero", "a size beyond 64 bits", "8 GB"],
)
def test_a_damaged_header_ends_a_tar(write, tmp_path, caplog, header, where):
    whole = write(tmp_path / "s.tar", [("1.png", b"x"), ("2.png", b"y"), ("3.png", b"z")]).read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:1024] + header + whole[1536:])
    listing = scan(tmp_path)
    assert listing.names == ("s.tar/1.png",)
    assert listing.skipped == {"cut off where its tar ends": 1}
    assert f"s.tar ends {where})" in caplog.text


def test_a_copy_with_a_hole_is_no_end(write, tmp_path, caplog):
    """Room was made for the whole tar, and only its beginning was written."""
    tar = write(tmp_path / "s.tar", [("1.png", b"x"), ("2.png", b"y" * (3 << 20))])
    size = tar.stat().st_size
    os.truncate(tar, 1024)
    os.truncate(tar, size)
    listing = scan(tmp_path)
    assert listing.names == ("s.tar/1.png",)
    assert listing.problems == (("cut off where its tar ends", "s.tar"),)
    assert "s.tar ends in zeros from byte 1024 on" in caplog.text


@pytest.mark.parametrize(
    "data", [b"", b"PK\3\4", b"x" * 5000, b"\x89PNG\r\n\x1a\n" + b"x" * 600], ids=["empty", "zip", "text", "png"]
)
def test_no_tar(write, tmp_path, data):
    write(tmp_path / "a.tar", [("1.png", b"x")])
    (tmp_path / "b.tar").write_bytes(data)
    with pytest.raises(
        DataError, match=r"b\.tar must be a tar of images and is no tar \(.*\): remove it, or copy"
    ) as caught:
        scan(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.tar.zst", "a.tar"])
def test_compressed_tars(write, tmp_path, name):
    data = write(tmp_path / "b.tar", [("1.png", b"x")]).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data))
    with pytest.raises(DataError, match=rf"/{name} is compressed, .* unpack it, or make it a plain tar") as caught:
        scan(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tar_that_cannot_be_read(tmp_path):
    (tmp_path / "a.tar").touch()
    (tmp_path / "a.tar").chmod(0)
    if os.access(tmp_path / "a.tar", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match=r"a\.tar must be a tar that can be read \(Permission denied\): check"):
        scan(tmp_path)


# ------------------------------------------------------------------------------------------- folders of tars


def test_images_go_before_tars(write, tmp_path, caplog):
    write(tmp_path / "a.tar", [("1.png", b"x")])
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "2.png").write_bytes(b"y")
    (tmp_path / "b.tar.gz").write_bytes(b"compressed, as the data set came")
    assert scan(tmp_path).names == ("cat/2.png",)
    assert "holds images and tars (a.tar, ...): the tars are not read" in caplog.text


def test_tars_in_folders_and_other_files_beside_them(write, tmp_path):
    write(tmp_path / "set" / "1" / "a.tar", [("1.png", b"x")])
    write(tmp_path / "set" / "0.tar", [("1.png", b"y"), ("1.txt", b"")])
    write(tmp_path / "set" / ".hidden.tar", [("1.png", b"z")])
    (tmp_path / "set" / "sizes.json").write_text("{}")
    os.mkfifo(tmp_path / "set" / "pipe.tar")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "all").symlink_to(tmp_path / "set")
    listing = scan(tmp_path / "set")
    assert bytes_of(listing) == {"0.tar/1.png": b"y", "1/a.tar/1.png": b"x"}
    assert listing.others == {".json": 1, ".txt": 1, ".tar": 1}  # the pipe
    assert bytes_of(scan(tmp_path / "links")) == {"all/0.tar/1.png": b"y", "all/1/a.tar/1.png": b"x"}


@pytest.mark.parametrize(("a", "b"), [("in1k-train-00.tar", "in1k-validation-0.tar"), ("train/0.tar", "val/0.tar")])
def test_parts_of_a_data_set_are_not_one(write, tmp_path, a, b):
    for name in (a, b, "other.tar"):
        write(tmp_path / name, [("1.png", b"x")])
    with pytest.raises(DataError, match=rf"holds {a} and {b}: parts of a data set, not one\. Give a folder with"):
        scan(tmp_path)
    (tmp_path / b).unlink()
    assert len(scan(tmp_path)) == 2


def test_too_few(write, picture, tmp_path):
    write(tmp_path / "a.tar", [("1.png", picture(1)), ("2.png", b"no"), ("1.txt", b""), ("2.seg.png", b"")])
    with pytest.raises(DataError) as caught:
        load(str(tmp_path), R)
    assert str(caught.value) == (
        f"{tmp_path} has 1 usable image and 8 are needed; 3 image files were found, of which 1 with two suffixes "
        "(a.tar/2.seg.png), 1 broken (a.tar/2.png) left out, and 1 other files (.txt). Give data.path a folder of "
        "JPEG, PNG or WebP images, or of class folders or tars with such images."
    )


# ------------------------------------------------------------------------------------------- the index


def replaced(write, path: Path, members: Sequence[tuple[str, bytes]], later: int = 0) -> None:
    """Another tar in its place, changed so many nanoseconds later than it."""
    before = path.stat()
    write(path, members)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + later))


def test_an_index_is_used_until_its_tar_changes(write, tmp_path, own_cache):
    """Shown by tars that are exchanged so that nobody can see it from outside."""
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.tar", [("old.png", b"x")])
    assert scan(tmp_path).names == ("a.tar/old.png", "b.tar/old.png", "c.tar/old.png")
    (file,) = own_cache.rglob("*.*")
    replaced(write, tmp_path / "a.tar", [("new.png", b"y")])
    replaced(write, tmp_path / "b.tar", [("new.png", b"y")], later=1)
    write(tmp_path / "c.tar", [("new.png", b"y" * 11_000)])
    assert scan(tmp_path).names == ("a.tar/old.png", "b.tar/new.png", "c.tar/new.png")
    (tmp_path / "b.tar").rename(tmp_path / "d.tar")
    assert scan(tmp_path).names == ("a.tar/old.png", "c.tar/new.png", "d.tar/new.png")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert scan(tmp_path).names == ("a.tar/new.png", "c.tar/new.png", "d.tar/new.png")
    assert list(own_cache.rglob("*.*")) == [file]


def test_prepared_images_are_made_anew_when_their_tar_changes(write, picture, tmp_path):
    def members(first: int) -> list[tuple[str, bytes]]:
        return [(f"{i}.png", picture(12 * (first + i))) for i in range(9)]

    write(tmp_path / "a.tar", members(0))
    before = np.array(load(str(tmp_path), R).pixels)
    assert np.array_equal(load(str(tmp_path), R).pixels, before)
    replaced(write, tmp_path / "a.tar", members(20), later=1)
    after = load(str(tmp_path), R)
    assert after.names == load(str(tmp_path), R).names
    assert not np.array_equal(after.pixels, before)


def test_a_cache_that_cannot_be_written(write, tmp_path, monkeypatch):
    write(tmp_path / "data" / "a.tar", [("1.png", b"x")])
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="Set GEAR_CACHE to a folder that can be"):
        scan(tmp_path / "data")


@pytest.fixture
def large(picture, tmp_path: Path) -> Iterator[Path]:
    """A tar of 2,000 images of 4 MB and their labels: 8 GB of holes. The last one is an image."""
    path = tmp_path / "large" / "a.tar"
    path.parent.mkdir()
    image, size = picture(7), 4_000_000
    with path.open("wb") as file:
        for i in range(2000):
            member = tarfile.TarInfo(f"{i:04d}.cls")
            member.size = 4
            file.write(member.tobuf() + f"{i:04d}".encode().ljust(512, b"\0"))
            member = tarfile.TarInfo(f"{i:04d}.png")
            member.size = size if i < 1999 else len(image)
            file.write(member.tobuf())
            if i < 1999:
                file.seek(-(-size // 512) * 512, os.SEEK_CUR)
        file.write(image)
        file.truncate(-(-file.tell() // 512) * 512 + 1024)
    yield path
    path.unlink()


def read_so_far() -> int:
    """Bytes, by any call of this process."""
    return int(COUNTED.read_text().split()[1])


@pytest.mark.skipif(not COUNTED.exists(), reason="nothing here counts what a process reads")
def test_images_are_not_read_to_be_indexed(picture, large, capsys):
    before = read_so_far()
    listing = scan(large.parent)
    assert read_so_far() - before < 50_000_000  # of 8,000,000,000
    assert len(listing) == len(listing.classes) == 2000
    assert listing.classes[1999] == "1999"
    assert bytes_in(listing.file(1999)) == picture(7)
    assert "Indexing large, MB" in capsys.readouterr().err
    before = read_so_far()
    assert scan(large.parent).names == listing.names
    assert read_so_far() - before < 1_000_000
    assert capsys.readouterr().err == ""
