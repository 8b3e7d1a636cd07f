"""Files that list images with their captions, and all that can be wrong with them."""

import json
from pathlib import Path

import pytest

from gear.data import DataError
from gear.data.captions import read
from gear.data.folder import scan
from gear.data.listing import Listing


@pytest.fixture
def folder(picture, tmp_path: Path) -> Path:
    (tmp_path / "set" / "deeper").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "deeper/c.PNG", "photo.heic"):
        (tmp_path / "set" / name).write_bytes(picture(0))
    (tmp_path / "outside.png").write_bytes(picture(0))
    return tmp_path / "set"


def said(listing: Listing) -> dict[str, tuple[str, ...]]:
    assert listing.captions is not None
    return {name: read(listing.captions[i]) for i, name in enumerate(listing.names)}


def csv(folder: Path, text: str | bytes) -> Listing:
    (folder / "list.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return scan(folder / "list.csv", captioned=True)


def jsonl(folder: Path, text: str) -> Listing:
    (folder / "list.jsonl").write_text(text)
    return scan(folder / "list.jsonl", captioned=True)


def coco(folder: Path, found: object) -> Listing:
    (folder / "captions_val.json").write_text(json.dumps(found))
    return scan(folder / "captions_val.json", captioned=True)


@pytest.mark.parametrize("at", ["path", "file", "file_name", "image", "filepath"])
@pytest.mark.parametrize("text", ["caption", "text", "captions", "prompt"])
def test_columns(folder, at, text):
    listing = csv(folder, f'{text},size,{at}\n"one, two",3,b.jpg\nthree,4,deeper/c.PNG\n')
    assert said(listing) == {"b.jpg": ("one, two",), "deeper/c.PNG": ("three",)}
    assert (listing.classes, listing.problems) == (("list",), ())
    assert jsonl(folder, f'{{"{at}": "a.png", "{text}": ["x", "y"]}}').names == ("a.png",)


def test_rows_of_one_image_are_its_captions(folder):
    listing = csv(folder, "image,caption\r\nb.jpg,one\r\n./a.png,two\r\ndeeper/../b.jpg,three\r\n")
    assert said(listing) == {"a.png": ("two",), "b.jpg": ("one", "three")}


def test_the_order_of_rows_does_not_matter(folder):
    rows = ["b.jpg,one", "deeper/c.PNG,two", "a.png,three"]
    names = [csv(folder, "\n".join(["path,text", *some])).names for some in (rows, rows[::-1])]
    assert names == [("a.png", "b.jpg", "deeper/c.PNG")] * 2


def test_rows_that_cannot_be_used_are_counted(folder):
    rows = [
        b"a.png,good",
        b"../outside.png,a",
        b"/etc/passwd.png,a",
        b"gone.png,a",
        b"b.jpg,  ",
        b"deeper/c.PNG,caf\xe9",
        b"photo.heic,a",
        b"list.csv,a",
        b",a",
        b"short.png",
        b"caf\xe9.png,a",
        str(folder / "a.png").encode() + b",by its whole path",
    ]
    listing = csv(folder, b"path,caption\n" + b"\n".join(rows))
    assert said(listing) == {"a.png": ("good", "by its whole path")}
    assert listing.skipped == {
        "outside the folder of its list": 2,
        "not there": 2,
        "with an empty caption": 1,
        "with a caption that is not UTF-8": 1,
        ".heic, a format that is not read": 1,
        "without the suffix of an image": 1,
        "without a path": 1,
        "with a path that is not UTF-8": 1,
    }
    assert "2 outside the folder of its list (../outside.png, /etc/passwd.png)" in listing.report()


def test_one_good_caption_is_enough(folder):
    listing = csv(folder, b"path,caption\na.png,\na.png,good\na.png,caf\xe9\n")
    assert said(listing) == {"a.png": ("good",)}
    assert listing.problems == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "name,caption\na.png,b\n",
            "one of path, file, file_name, image, filepath must be there; there are name, caption",
        ),
        ("path,title\na.png,b\n", "one of caption, captions, text, prompt must be there; there are path, title"),
        ("", "must be there; there are none"),
        ("path,caption\n", "lists no image that can be used"),
        ("path,caption\ngone.png,a\n", r"lists no image that can be used \(not there\)"),
        ("path,caption\na.png,x".encode("utf-16"), "must be a table in UTF-8"),
        (b"path,caption\xe9\na.png,b\n", "must be a table in UTF-8"),
        ('path,caption\na.png,"' + "x" * (1 << 20) + 'y"\n', "field larger than field limit"),
        ("path,caption\na.png,a cup\nb.jpg,a cat, a dog\n", "line 3 has more cells than .* in double quotes"),
    ],
)
def test_tables_that_cannot_be_used(folder, text, sentence):
    with pytest.raises(DataError, match=sentence):
        csv(folder, text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"path": "a.png", "caption": "x"}\n\n{"path": "b.j', "JSON object a line; line 3 is none"),
        ('{"path": "a.png", "caption": "x"}\n["b.jpg"]', "JSON object a line; line 2 is a list"),
        ('{"path": "a.png", "caption": "x"}\n{"name": "b"}', "line 2: one of path, .* must be there; there are name"),
    ],
)
def test_lines_that_cannot_be_read(folder, text, sentence):
    with pytest.raises(DataError, match=sentence):
        jsonl(folder, text)


def test_lines_without_a_caption_are_counted(folder):
    rows = [{"path": "a.png", "caption": "x"}, {"path": "b.jpg"}, {"path": 5, "caption": "x"}]
    rows += [{"path": "deeper/c.PNG", "caption": [5]}]
    listing = jsonl(folder, "\n".join(map(json.dumps, rows)))
    assert said(listing) == {"a.png": ("x",)}
    assert listing.skipped == {
        "without a caption": 1,
        "without a path": 1,
        "with a caption that is no text": 1,
    }


def test_coco_counts_what_has_no_caption_or_is_not_there(folder):
    images = [{"id": i, "file_name": name} for i, name in enumerate(("a.png", "b.jpg", "gone.png"))]
    annotations = [{"image_id": i, "caption": f"of {i}"} for i in (0, 0, 2, 99)]
    listing = coco(folder, {"images": images, "annotations": annotations, "info": {}})
    assert said(listing) == {"a.png": ("of 0", "of 0")}
    assert listing.skipped == {"not there": 1, "without a caption": 1}


@pytest.mark.parametrize("place", ["val", "../val", "../images/val", "images", "../images"])
def test_coco_finds_its_images(picture, folder, place):
    (folder / "annotations").mkdir()
    at = folder / "annotations" / place
    at.mkdir(parents=True, exist_ok=True)
    (at / "1.png").write_bytes(picture(1))
    found = {"images": [{"id": 1, "file_name": "1.png"}], "annotations": [{"image_id": 1, "caption": "a"}]}
    listing = coco(folder / "annotations", found)
    assert listing.folder == at.resolve()
    assert listing.file(0) == at.resolve() / "1.png"


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"images": [], "annotations": []}, "it has 0 images"),
        ({"annotations": []}, r'must be COCO\'s: an object of "images"'),
        ([{"path": "a.png", "caption": "x"}], r"must be COCO's"),
        ({"images": [{"id": 1, "file_name": 5}], "annotations": []}, "with a file_name each"),
        (
            {"images": [{"id": 1, "file_name": "gone.png"}], "annotations": []},
            "such as gone.png, which are not beside it",
        ),
    ],
)
def test_coco_that_cannot_be_used(folder, found, sentence):
    with pytest.raises(DataError, match=sentence):
        coco(folder, found)


def test_a_list_needs_a_run_with_captions(folder):
    csv(folder, "path,caption\na.png,x\n")
    with pytest.raises(DataError, match=r"lists captions, and this run has classes: set generator\.text"):
        scan(folder / "list.csv")
    (folder / "set.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"is a file; data\.path must be"):
        scan(folder / "set.zip", captioned=True)
