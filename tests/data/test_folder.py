import os
from pathlib import Path

import pytest

from gear.data import DataError
from gear.data.folder import Listing, scan


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def found(listing: Listing) -> dict[str, str]:
    return {file.name: listing.classes[file.label] for file in listing.files}


def test_class_folders_with_folders_in_them(tmp_path):
    touch(tmp_path, "dog/1.JPG", "cat/2.png", "cat/deep/er/3.webp", "cat/notes.txt", "docs/readme.md", "list.csv")
    listing = scan(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert found(listing) == {"dog/1.JPG": "dog", "cat/2.png": "cat", "cat/deep/er/3.webp": "cat"}
    assert listing.others == {".txt": 1, ".md": 1, ".csv": 1}
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
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"is a file; .* unpacked first"):
        scan(tmp_path / "data.zip")
