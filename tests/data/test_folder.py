import os
from pathlib import Path

import numpy as np
import pytest

from gear.data import DataError, Images
from gear.data.folder import Listing, scan


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def found(listing: Listing) -> dict[str, str]:
    return {name: listing.classes[label] for name, label in zip(listing.names, listing.labels, strict=True)}


def test_class_folders_with_folders_in_them(tmp_path):
    touch(tmp_path, "dog/1.JPG", "cat/2.png", "cat/deep/er/3.webp", "cat/notes.txt", "docs/readme.md", "list.csv")
    listing = scan(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert found(listing) == {"dog/1.JPG": "dog", "cat/2.png": "cat", "cat/deep/er/3.webp": "cat"}
    assert listing.others == {".txt": 1, ".md": 1, ".csv": 1}
    assert listing.problems == ()


def test_without_classes_all_images_are_of_one(tmp_path):
    touch(tmp_path, "cat/a.png", "loose.png")
    listing = scan(tmp_path, None)
    assert found(listing) == {"cat/a.png": tmp_path.name, "loose.png": tmp_path.name}
    assert listing.problems == ()


def test_flat_folder_is_one_class(tmp_path, monkeypatch):
    touch(tmp_path / "pets", "a.jpg", "b.gif", "c.tiff")
    assert set(found(scan(tmp_path / "pets")).values()) == {"pets"}
    monkeypatch.chdir(tmp_path / "pets")
    assert scan(Path(".")).classes == ("pets",)


def test_images_beside_class_folders_are_named(tmp_path):
    touch(tmp_path, "cat/a.png", "loose.png")
    listing = scan(tmp_path)
    assert found(listing) == {"cat/a.png": "cat"}
    assert listing.problems == (("beside the class folders", "loose.png"),)
    assert listing.skipped == {"beside the class folders": 1}
    assert listing.report() == "Left out: 1 beside the class folders (loose.png)."
    assert scan(tmp_path / "cat").report() == ""


def test_hidden_files_and_folders_are_ignored(tmp_path):
    touch(tmp_path, "a.png", ".b.png", "._a.png", ".git/c.png", ".thumbnails/d.png")
    assert list(found(scan(tmp_path))) == ["a.png"]


def test_links_are_followed_once(tmp_path):
    touch(tmp_path, "elsewhere/x.png", "data/cat/a.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "cat" / "self").symlink_to(tmp_path / "data" / "cat" / "self")
    (tmp_path / "data" / "cat" / "gone.png").symlink_to(tmp_path / "absent")
    listing = scan(tmp_path / "data")
    assert found(listing) == {"cat/a.png": "cat", "dog/x.png": "dog"}
    assert set(listing.problems) == {("not readable", "cat/gone.png"), ("not readable", "cat/self")}


def test_a_pipe_called_an_image_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert scan(tmp_path).problems == (("not readable", "a.png"),)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    touch(tmp_path, "cat/a.png", "secret/b.png")
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert scan(tmp_path).problems == (("not readable", "secret/"),)


def test_parts_of_a_data_set_are_not_classes(tmp_path):
    touch(tmp_path, "train/cat/a.png", "val/cat/b.png")
    with pytest.raises(DataError, match=r"holds train and val: parts .* such as .*/train\.$"):
        scan(tmp_path)
    assert scan(tmp_path / "train").classes == ("cat",)


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match=r'There is no folder .*absent.* "builtin", "cifar10" or a folder'):
        scan(tmp_path / "absent")
    for pattern in ("{00000..00001}.tar", "*.tar", "part-?/0.tar", "[ab]/x/y"):
        with pytest.raises(
            DataError, match=rf"patterns are not read: give .* the folder .*, such as {tmp_path}/tars\.$"
        ):
            scan(tmp_path / "tars" / pattern)
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"is a file; .* unpacked first"):
        scan(tmp_path / "data.zip")


def test_labels_of_a_list_do_not_depend_on_the_folders_that_are_there(tmp_path):
    (tmp_path / "list.txt").write_text("zebra\ncat\nant\n")
    touch(tmp_path / "data", "zebra/1.png", "ant/2.png", "ant/3.png")
    listing = scan(tmp_path / "data", str(tmp_path / "list.txt"))
    assert listing.classes == ("zebra", "cat", "ant")
    assert listing.names == ("ant/2.png", "ant/3.png", "zebra/1.png")
    assert listing.labels.tolist() == [2, 2, 0]
    with pytest.raises(DataError, match="lie in no class folders"):
        scan(tmp_path / "data" / "ant", "imagenet")


def test_a_listing_is_split_as_prepared_images_are(tmp_path):
    touch(tmp_path, *(f"{'cat' if i % 3 else 'dog'}/{i}.png" for i in range(60)), "cat/1.jpg", "dog/3.jpg")
    listing = scan(tmp_path)
    pixels = np.zeros((len(listing), 3, 1, 1), np.uint8)
    images = Images(pixels, listing.labels, listing.classes, tuple(listing.names), listing.groups).split(0.3)
    split = listing.split(0.3)
    assert split.train.names == images.train.names
    assert split.held_out.names == images.held_out.names
    assert split.held_out.labels.tolist() == images.held_out.labels.tolist()
    assert 5 < len(split.held_out) < 30
    assert not set(split.train.groups) & set(split.held_out.groups)
