import errno
import logging
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gear.data import DataError, builtin, load, loading, members
from gear.data.crop import Interpolation
from gear.data.decode import decode
from gear.data.images import position


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six cats and four dogs that can be used, each of one colour, and one of every kind that cannot."""
    root = tmp_path / "pets"
    for i in range(10):
        path = root / ("cat" if i < 6 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 30), (20 * i, 0, 0)).save(path)
    (root / "cat" / "text.jpg").write_text("no")
    (root / "dog" / "cut.png").write_bytes((root / "dog" / "9.png").read_bytes()[:60])
    Image.new("RGB", (1, 1)).save(root / "dog" / "dot.png")
    (root / "bird").mkdir()
    (root / "bird" / "broken.webp").write_bytes(b"RIFF")
    return root


def test_a_folder(folder):
    images = load(str(folder), 16)
    assert images.pixels.shape == (10, 3, 16, 16)
    assert images.classes == ("cat", "dog")
    assert sorted(images.names) == [f"{'cat' if i < 6 else 'dog'}/{i}.png" for i in range(10)]
    for pixels, label, name in zip(images.pixels, images.labels, images.names, strict=True):
        i = int(Path(name).stem)
        assert images.classes[label] == Path(name).parent.name
        assert (pixels == np.array([20 * i, 0, 0]).reshape(3, 1, 1)).all()
    assert images.skipped == {"broken": 3, "smaller than 8 pixels": 1, "class without a usable image": 1}
    assert images.examples["broken"] == ("bird/broken.webp", "cat/text.jpg", "dog/cut.png")
    assert "1 smaller than 8 pixels (dog/dot.png)" in images.report()


def test_pixels_equal_decoding_each_file(images_folder):
    images = load(str(images_folder), 24)
    for pixels, name in zip(images.pixels, images.names, strict=True):
        assert np.array_equal(pixels, decode(images_folder / name, 24))


def test_the_filter_is_part_of_what_is_kept(images_folder, decodings):
    bilinear = load(str(images_folder), 24, interpolation="bilinear")
    bicubic = load(str(images_folder), 24)
    for pixels, name in zip(bilinear.pixels, bilinear.names, strict=True):
        assert np.array_equal(pixels, decode(images_folder / name, 24, "bilinear"))
    assert not np.array_equal(bilinear.pixels, bicubic.pixels)
    assert len(decodings) == 16
    load(str(images_folder), 24, interpolation="bilinear")
    assert len(decodings) == 16


def test_labels_of_a_list_survive_classes_without_images(folder, tmp_path):
    (tmp_path / "list.txt").write_text("bird\nwolf\ndog\ncat\n")
    images = load(str(folder), 16, classes=str(tmp_path / "list.txt"))
    assert images.classes == ("bird", "wolf", "dog", "cat")
    assert {images.classes[label] for label in images.labels} == {"cat", "dog"}
    for label, name in zip(images.labels, images.names, strict=True):
        assert images.classes[label] == Path(name).parent.name


def test_a_flat_folder(folder):
    for i in range(6, 10):
        shutil.move(folder / "dog" / f"{i}.png", folder / "cat")
    images = load(str(folder / "cat"), 9)
    assert images.classes == ("cat",)
    assert images.labels.tolist() == [0] * 10


def test_a_split_of_a_folder_copies_nothing(folder):
    images = load(str(folder), 16)
    assert [position(g) for g in images.groups] == sorted(position(g) for g in images.groups)
    assert np.shares_memory(images.split(0.3).train.pixels, images.pixels)


def test_copies_in_another_format_stay_on_one_side(tmp_path):
    for i in range(20):
        for suffix in ("png", "webp"):
            Image.new("RGB", (9, 9), (10 * i, 0, 0)).save(tmp_path / f"{i}.{suffix}")
    split = load(str(tmp_path), 8).split(0.5)
    assert not {Path(n).stem for n in split.train.names} & {Path(n).stem for n in split.held_out.names}


@pytest.fixture
def decodings(monkeypatch) -> list[str]:
    """The names of all files that were decoded."""
    seen: list[str] = []

    def counted(path: Path, resolution: int, interpolation: Interpolation) -> np.ndarray:
        seen.append(path.name)
        return decode(path, resolution, interpolation)

    monkeypatch.setattr(loading, "decode", counted)
    return seen


def test_the_second_start_decodes_nothing(folder, decodings):
    first = load(str(folder), 16)
    assert len(decodings) == 14
    second = load(str(folder), 16)
    assert len(decodings) == 14
    assert isinstance(second.pixels, np.memmap)
    assert np.array_equal(first.pixels, second.pixels)
    for field in ("classes", "names", "groups", "skipped", "examples"):
        assert getattr(first, field) == getattr(second, field)
    load(str(folder / ".." / "pets"), 16)  # the same folder by another name
    assert len(decodings) == 14
    load(str(folder), 17)
    assert len(decodings) == 28


def failing(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    """As where the disk cannot give the file of that name."""
    opened = members.open_file

    def open_file(file: members.File):
        if Path(str(file)).name == name:
            raise OSError(errno.EIO, "Input/output error")
        return opened(file)

    monkeypatch.setattr(f"{module}.open_file", open_file)


def test_images_that_could_not_be_read_are_there_once_they_can_be(folder, decodings, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, "gear.data.decode", "3.png")
        assert load(str(folder), 16).skipped["not readable"] == 1
        assert len(decodings) == 14
        assert "cat/3.png" not in load(str(folder), 16).names
        assert decodings[14:] == ["3.png"]  # of those that are broken it is not asked again
    assert "cat/3.png" in load(str(folder), 16).names
    assert "not readable" not in load(str(folder), 16).skipped
    assert len(decodings) == 15 + 1 + 14


def test_captions_that_could_not_be_read_are_there_once_they_can_be(captioned, tmp_path, monkeypatch):
    path = str(captioned.texts(tmp_path))
    with monkeypatch.context() as patch:
        failing(patch, "gear.data.captions", "03.txt")
        assert load(path, 16, captioned=True).skipped == {"with a caption that is not readable": 1}
    assert len(load(path, 16, captioned=True)) == captioned.N


@pytest.mark.parametrize("change", ["touch", "add", "remove", "rename"])
def test_a_changed_folder_is_prepared_anew_in_the_same_place(folder, decodings, own_cache, change):
    load(str(folder), 16)
    before = sorted(p.name for p in own_cache.rglob("*"))
    match change:
        case "touch":
            Image.new("RGB", (30, 30), (0, 0, 255)).save(folder / "cat" / "0.png")
            os.utime(folder / "cat" / "0.png", ns=(time.time_ns(), time.time_ns() + 10**9))
        case "add":
            Image.new("RGB", (30, 30), (0, 0, 255)).save(folder / "cat" / "new.png")
        case "remove":
            (folder / "cat" / "0.png").unlink()
        case "rename":
            (folder / "cat").rename(folder / "chat")
    images = load(str(folder), 16)
    assert len(decodings) > 14
    assert ("chat" in images.classes) == (change == "rename")
    assert (images.pixels[:, 2] == 255).any() == (change in ("touch", "add"))
    assert sorted(p.name for p in own_cache.rglob("*")) == before  # the old preparation is gone


def test_a_corrupted_cache_is_made_anew(folder, decodings, own_cache):
    first = np.array(load(str(folder), 16).pixels)
    (file,) = own_cache.rglob("*.npy")
    data = bytearray(file.read_bytes())
    data[-1] ^= 0xFF
    file.write_bytes(data)
    assert np.array_equal(load(str(folder), 16).pixels, first)
    assert len(decodings) == 28


def test_a_full_disk(folder, own_cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 93, 7))  # type: ignore[attr-defined]
    with pytest.raises(
        OSError, match=r"needs 10\.8 kB in .*, where 7 bytes are free\. Free some space, or set GEAR_CACHE"
    ):
        load(str(folder), 16)
    assert not any(own_cache.rglob("*.*"))


@pytest.mark.parametrize("usable", [0, 1, 7])
def test_too_few(tmp_path, own_cache, usable):
    for i in range(usable):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{i}.png")
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"no")
    (tmp_path / "c.txt").write_text("text")
    with pytest.raises(DataError) as caught:
        load(str(tmp_path), 8)
    assert str(caught.value) == (
        f"{tmp_path} has {usable} usable image{'' if usable == 1 else 's'} and 8 are needed; {usable + 2} image files "
        "were found, of which "
        "2 broken (a.png, b.jpg) left out, and 1 other files (.txt). Give data.path a folder of JPEG, PNG or WebP "
        "images, or of class folders or tars with such images."
    )
    assert not any(own_cache.rglob("*.*"))


def test_an_empty_folder(tmp_path):
    with pytest.raises(
        DataError, match=r"has 0 usable images and 8 are needed; 0 image files were found\. Give data\.path"
    ):
        load(str(tmp_path), 8)


def test_impossible_resolution(folder):
    with pytest.raises(DataError, match="must be at least 1; it is 0"):
        load(str(folder), 0)


def test_names_that_are_not_text(tmp_path):
    """Linux allows any bytes in a name."""
    for i in range(9):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{i}.png")
    os.rename(tmp_path / "0.png", os.fsencode(tmp_path) + b"/\xff.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe.jpg")).write_bytes(b"no")
    images = load(str(tmp_path), 8)
    assert len(images) == 9
    assert len(images.split(0.5).train) > 0
    images.report().encode()


@pytest.fixture
def few_emoji(monkeypatch) -> None:
    """So that the built-in images are resized at once."""
    whole = builtin.images()
    few = replace(whole, pixels=whole.pixels[:20], labels=whole.labels[:20], names=whole.names[:20])
    monkeypatch.setattr(builtin, "images", lambda: few)


def test_enlarging_is_said(caplog, few_emoji):
    with caplog.at_level(logging.WARNING, logger="gear"):
        assert load("builtin", 32).pixels.shape == (20, 3, 32, 32)
        assert caplog.text == ""
        load("builtin", 80)
    assert "The images of builtin are 64 px; they are enlarged to 80 px." in caplog.text


def test_large_resized_sets_are_mapped(monkeypatch, own_cache, few_emoji):
    monkeypatch.setattr(loading, "IN_MEMORY", 0)
    first, second = load("builtin", 8), load("builtin", 8)
    assert isinstance(second.pixels, np.memmap)
    assert np.array_equal(first.pixels, second.pixels)
    assert [p.name for p in own_cache.rglob("*.npy")] == ["builtin-8-bicubic.npy"]
