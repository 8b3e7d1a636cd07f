"""Images to measure, from every kind of place; what they must not be."""

import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from torch import Tensor

from gear.data import DataError, builtin
from gear.data.decode import decode
from gear.evaluate import images, npz

H, W = 10, 12
XMP, TYPE_OF_BYTES = 700, 1  # of TIFF


def pictures(n: int = 7, height: int = H, width: int = W) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def saved(folder: Path, pixels: np.ndarray, form: str = "{:03d}.png") -> Path:
    for i, image in enumerate(pixels):
        path = folder / form.format(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def zipped(folder: Path, path: Path, compression: int) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/._000.png", b"")
        archive.writestr("README.txt", "not an image")
    return path


def everything(source: images.ImageSource, size: int = 3) -> Tensor:
    batches = list(source.batches(0, len(source), size))
    assert [len(b) for b in batches[:-1]] == [size] * (len(batches) - 1)
    return torch.cat(batches)


def nchw(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("kind", ["folder", "nested", "zip", "deflated zip", "npz", "compressed npz"])
def test_pixels_are_what_is_there_and_in_order(kind: str, tmp_path: Path):
    pixels = pictures()
    match kind:
        case "folder":
            where = saved(tmp_path / "images", pixels)
        case "nested":
            where = saved(tmp_path / "images", pixels, "class/{:03d}.png")
        case "zip" | "deflated zip":
            compression = zipfile.ZIP_STORED if kind == "zip" else zipfile.ZIP_DEFLATED
            where = zipped(saved(tmp_path / "images", pixels), tmp_path / "images.zip", compression)
        case _:
            where = tmp_path / "images.npz"
            (np.savez if kind == "npz" else np.savez_compressed)(where, pixels)
    source = images.opened(where)
    assert (len(source), source.resolution) == (7, (H, W))
    assert torch.equal(everything(source), nchw(pixels))
    assert torch.equal(torch.cat(list(source.batches(4, 6, 5))), nchw(pixels[4:6]))  # a step back, where it is a stream
    assert torch.equal(torch.cat(list(source.batches(1, 2, 5))), nchw(pixels[1:2]))
    about = source.about()
    assert (about["path"], about["n"], about["resolution"], about["crop"]) == (str(where), 7, [H, W], "none")


@pytest.mark.parametrize("kind", ["folder", "zip", "npz"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_resolution_resizes_and_crops_as_training_does(kind: str, interpolation, tmp_path: Path):
    pixels = pictures()
    folder = saved(tmp_path / "images", pixels)
    where = folder
    if kind == "zip":
        where = zipped(folder, tmp_path / "images.zip", zipfile.ZIP_DEFLATED)
    if kind == "npz":
        where = tmp_path / "images.npz"
        np.savez(where, pixels)
    source = images.opened(where, 8, interpolation)
    wanted = [decode(folder / f"{i:03d}.png", 8, interpolation) for i in range(7)]
    assert source.resolution == (8, 8)
    assert np.array_equal(everything(source).numpy(), np.stack(wanted))
    assert source.about()["interpolation"] == interpolation


def test_grey_and_odd_sized_images_of_a_folder_become_rgb_squares(tmp_path: Path):
    saved(tmp_path, pictures(1, 20, 15))
    Image.fromarray(pictures(1, 9, 31)[0, :, :, 0]).save(tmp_path / "grey.png")
    found = everything(images.opened(tmp_path, 8))
    assert found.shape == (2, 3, 8, 8)
    assert torch.equal(found[1, 0], found[1, 2])
    with pytest.raises(DataError, match=r"of several sizes \(000\.png is 15 x 20, grey\.png 31 x 9\).*resolution"):
        images.opened(tmp_path)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_the_size_is_that_of_what_is_decoded(orientation: int, suffix: str, tmp_path: Path):
    """Whatever orientation the file says, 0 and 9 meaning none."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pictures(1)[0]).save(tmp_path / f"a.{suffix}", exif=exif)
    source = images.opened(tmp_path)
    assert source.resolution == tuple(everything(source).shape[2:]) == ((W, H) if 5 <= orientation <= 8 else (H, W))


def test_the_size_of_a_file_whose_orientation_is_elsewhere_or_unreadable(tmp_path: Path):
    """In XMP, which Pillow applies to a TIFF as it decodes it; in EXIF that is damaged, which turns nothing."""
    tags = ImageFileDirectory_v2()
    tags[XMP], tags.tagtype[XMP] = b'<x tiff:Orientation="6"/>', TYPE_OF_BYTES
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.tif", tiffinfo=tags)
    damaged = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    Image.fromarray(pictures(1, W, H)[0]).save(tmp_path / "b.jpg", exif=damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow says that the EXIF data are corrupt
        source = images.opened(tmp_path)
        assert source.resolution == tuple(everything(source).shape[2:]) == (W, H)


def test_data_sets_have_names():
    source = images.opened("builtin")
    assert torch.equal(next(source.batches(2, 5, 8)), torch.from_numpy(builtin.images().pixels[2:5].copy()))
    assert images.opened("builtin", 16).resolution == (16, 16)
    assert images.opened("builtin", 16).about()["state"] != source.about()["state"]
    with pytest.raises(DataError, match="gear fetch cifar10"):
        images.opened("cifar10-test")


def in_classes(folder: Path, sizes: tuple[int, ...] = (3, 6, 9)) -> Path:
    for i, size in enumerate(sizes):
        saved(folder / f"class{i}", pictures(18)[sum(sizes[:i]) :][:size])
    return folder


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_part_of_class_folders_has_its_share_of_each(kind: str, tmp_path: Path):
    where = in_classes(tmp_path / "images")
    where = where if kind == "folder" else zipped(where, tmp_path / "images.zip", zipfile.ZIP_STORED)
    source = images.opened(where)
    part = images.part(source, 6)
    rows = [0, 3, 4, 9, 10, 11]  # a third of 3, of 6 and of 9
    assert torch.equal(everything(part, 4), nchw(pictures(18)[rows]))
    assert torch.equal(torch.cat(list(part.batches(2, 5, 2))), nchw(pictures(18)[rows[2:5]]))
    whole, some = source.about(), part.about()
    assert (some["n"], some["part_of"], some["path"]) == (6, 18, str(where))
    assert whole | {"state": some["state"], "n": 6, "part_of": 18} == some
    assert len({images.part(source, n).about()["state"] for n in (5, 6, 7, 18)}) == 4  # features are not mixed
    assert images.part(source, 18) is images.part(source, 40) is source
    assert len(images.part(source, 0)) == len(source)  # an error of whoever asks
    twice = images.part(part, 3)
    assert torch.equal(everything(twice), nchw(pictures(18)[[3, 9, 10]]))
    assert twice.about()["part_of"] == 18


def test_a_part_of_what_is_in_no_folders_is_the_first(tmp_path: Path):
    """Samples have their classes in turn there, and images at one distance could be all of one class. The protocol of
    `gear evidence` has the first of CIFAR-10, too."""
    np.savez(tmp_path / "a.npz", pictures())
    flat = saved(tmp_path / "flat", pictures())
    within = zipped(saved(tmp_path / "zipped" / "samples", pictures()).parent, tmp_path / "a.zip", zipfile.ZIP_STORED)
    cifar = images.Array(npz.opened(tmp_path / "a.npz"), "data set", "cifar10", None, "bicubic")
    for source in (images.opened(tmp_path / "a.npz"), images.opened(flat), images.opened(within), cifar):
        assert images.part(source, 3) is source
        assert "part_of" not in source.about()


def test_a_part_of_the_built_in_images_is_from_all_of_them():
    whole = builtin.images()
    part = images.part(images.opened("builtin"), 500)
    counts = np.bincount(whole.labels, minlength=len(whole.classes))
    rows = [row for row in range(len(whole)) if (row + 1) * 500 // len(whole) > row * 500 // len(whole)]
    assert np.array_equal(everything(part, 64).numpy(), whole.pixels[rows])
    assert np.abs(np.bincount(whole.labels[rows]) - counts * 500 / len(whole)).max() <= 1
    assert part.about()["state"] != images.part(images.opened("builtin"), 501).about()["state"]


@pytest.mark.parametrize("name", ["cifar10", "cifar10-test"])
def test_a_part_of_cifar_is_the_first(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images.data, "load", lambda name, side, interpolation: builtin.images())
    monkeypatch.setattr(images.data, "load_cifar10_test", lambda side, interpolation: builtin.images())
    source = images.opened(name)
    assert images.part(source, 5) is source


@pytest.mark.parametrize("runs", [(7,), (1,) * 7, (3, 1, 3), (1, 5, 20, 2)])
def test_shares(runs: tuple[int, ...]):
    """All n in all, the first ones of each run, and each run within one of its share."""
    of = np.repeat(np.arange(len(runs)), runs)
    for n in range(1, sum(runs) + 1):
        rows = images.shares(runs, n)
        counts = np.bincount(of[rows], minlength=len(runs))
        assert len(rows) == len(set(rows.tolist())) == n
        assert (np.abs(counts - np.array(runs) * n / sum(runs)) < 1).all()
        starts = np.cumsum(runs) - runs
        assert rows.tolist() == [
            int(start) + i for start, count in zip(starts, counts, strict=True) for i in range(count)
        ]


def test_a_file_that_changes_is_another_source(tmp_path: Path):
    before = images.opened(saved(tmp_path, pictures())).about()
    Image.fromarray(pictures(8)[0]).save(tmp_path / "003.png")
    (tmp_path / "003.png").touch()
    assert images.opened(tmp_path).about()["state"] != before["state"]


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": pictures()}, r"has no arr_0.*it holds images"),
        ({}, r"has no arr_0.*it holds nothing"),
        ({"arr_0": pictures() / 255}, r"uint8.*it is float64 of shape \(7, 10, 12, 3\).*255 \* x"),
        ({"arr_0": pictures().astype(np.int64)}, "it is int64"),
        ({"arr_0": (pictures() / 255).astype(np.uint8)}, r"images in \[0, 1\] must be multiplied by 255"),
        ({"arr_0": pictures().transpose(0, 3, 1, 2)}, r"transpose it by \(0, 2, 3, 1\)"),
        ({"arr_0": pictures()[..., 0]}, r"of shape \(7, 10, 12\)"),
        ({"arr_0": np.repeat(pictures()[..., :1], 4, -1)}, r"of shape \(7, 10, 12, 4\)"),
        ({"arr_0": np.asfortranarray(pictures())}, "Fortran"),
        ({"arr_0": pictures(1)[:0]}, "is empty"),
    ],
)
def test_an_npz_of_another_kind_is_refused(arrays: dict[str, Any], said: str, tmp_path: Path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=said):
        images.opened(tmp_path / "x.npz")


def test_an_npz_of_objects_is_not_unpickled(tmp_path: Path):
    np.savez(tmp_path / "x.npz", np.array([{}, {}], dtype=object))
    with pytest.raises(DataError, match="it is object"):
        images.opened(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["x.npz", "x.zip"])
def test_a_file_that_is_cut_short_is_refused(name: str, tmp_path: Path):
    if name == "x.npz":
        np.savez(tmp_path / name, pictures())
    else:
        zipped(saved(tmp_path / "images", pictures()), tmp_path / name, zipfile.ZIP_STORED)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not a whole \.?(npz|zip) file"):
        images.opened(tmp_path / name)


def test_a_compressed_npz_that_is_damaged_is_refused_where_it_is(tmp_path: Path):
    path, pixels = tmp_path / "x.npz", pictures(64, 32, 32)
    np.savez_compressed(path, pixels)
    data = bytearray(path.read_bytes())
    data[-2000:-1500] = bytes(500)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"damaged|not a whole"):
        everything(images.opened(path))


def test_an_image_that_cannot_be_used_is_named(tmp_path: Path):
    saved(tmp_path, pictures())
    (tmp_path / "004.png").write_bytes((tmp_path / "004.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"004\.png .* cannot be used \(broken\).*another set"):
        everything(images.opened(tmp_path))


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as bundle:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            bundle.addfile(member, io.BytesIO(data))
    return path.parent


def of_pictures(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(saved(folder, pictures()).iterdir())}


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (lambda where: (where / "gone.png").symlink_to(where / "absent"), r"1 not readable \(gone\.png\)"),
        (lambda where: (where / "a.HEIC").write_bytes(b""), r"1 \.heic, a format that is not read \(a\.HEIC\)"),
    ],
    ids=["link", "heic"],
)
def test_images_that_are_lost_are_an_error(lose: Callable[[Path], object], said: str, tmp_path: Path):
    lose(saved(tmp_path, pictures()))
    with pytest.raises(DataError, match=rf"Left out: {said}\. .*another set"):
        images.opened(tmp_path)


def test_images_that_a_tar_loses_are_an_error(tmp_path: Path):
    members = of_pictures(tmp_path / "files")
    where = tarred(tmp_path / "cut" / "a.tar", members)
    (where / "a.tar").write_bytes((where / "a.tar").read_bytes()[:6000])
    with pytest.raises(DataError, match=r"1 cut off where its tar ends .*another set"):
        images.opened(where)
    for name, said in (("000.jpg", "with the key of an earlier one"), ("a.seg.png", "with two suffixes")):
        where = tarred(tmp_path / name / "a.tar", {**members, name: members["000.png"]})
        with pytest.raises(DataError, match=rf"1 {said} \(a\.tar/{name}\)"):
            images.opened(where)


def test_labels_in_a_tar_do_not_matter(tmp_path: Path):
    members = of_pictures(tmp_path / "files")
    where = tarred(tmp_path / "tars" / "a.tar", {**members, "003.cls": b"7"})
    assert torch.equal(everything(images.opened(where)), nchw(pictures()))


def test_images_in_a_zip_that_are_not_read_are_an_error(tmp_path: Path):
    where = zipped(saved(tmp_path / "images", pictures()), tmp_path / "images.zip", zipfile.ZIP_STORED)
    with zipfile.ZipFile(where, "a") as archive:
        archive.writestr("deep/a.heic", b"")
    with pytest.raises(DataError, match=r"1 \.heic, a format that is not read \(deep/a\.heic\).*another set"):
        images.opened(where)


def test_what_is_ambiguous_empty_or_nothing_is_refused(tmp_path: Path):
    saved(tmp_path / "mixed", pictures())
    saved(tmp_path / "mixed" / "class", pictures(2))
    with pytest.raises(DataError, match=r"holds images \(000\.png, \.\.\.\) and folders of images"):
        images.opened(tmp_path / "mixed")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        images.opened(tmp_path / "empty")
    with pytest.raises(DataError, match=r"there is nothing at .*gone: samples must be a folder"):
        images.opened(tmp_path / "gone", what="samples")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="a file of another kind"):
        images.opened(tmp_path / "x.txt")
    with pytest.raises(DataError, match="resolution must be at least 1"):
        images.opened("builtin", 0)


def test_a_run_is_no_images(trained: Path) -> None:
    """Its sheets and figures are pictures, too."""
    with pytest.raises(DataError, match="is a run, not images: a reference must be a folder of images"):
        images.opened(trained, what="a reference")
