"""Images that a file lists with their captions: a .csv, a .jsonl, or COCO's captions_....json.

Paths are relative to the folder of the file. Images that are not there, that lie outside it, or whose captions cannot
be used are left out and counted. The texts are kept in memory.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gear.data import captions
from gear.data.captions import KEYS, Texts
from gear.data.decode import SUFFIXES as IMAGES
from gear.data.decode import UNREAD, Skip
from gear.data.images import DataError
from gear.data.listing import Listing

SUFFIXES = (".csv", ".jsonl", ".json")
PATHS = ("path", "file", "file_name", "image", "filepath")  # of a column or a key, the first one that is there
LONGEST = 1 << 20  # characters of a cell
SAID = 10  # columns in a sentence
TRIED = 20  # images by which COCO's folder is found

Row = tuple[str, Any]  # the path of an image, and what is said of it; an image may have several


def read(path: Path) -> Listing:
    """The images that `path` lists, in the order of their names. Several rows of one image are captions of it.

    Raises `DataError` for a file that cannot be read as what its suffix says, with the line.
    """
    match path.suffix.lower():
        case ".csv":
            return _listing(path, path.parent, _csv(path))
        case ".jsonl":
            return _listing(path, path.parent, _jsonl(path))
        case _:
            return _coco(path)


def _listing(path: Path, folder: Path, rows: Iterable[Row]) -> Listing:
    root = folder.resolve()
    said: dict[str, list[str]] = {}
    problems: dict[str, str] = {}  # name -> why
    for given, texts in rows:
        name, fault = _name(root, given)
        if fault is None and name not in said and not (root / name).is_file():
            fault = "not there"
        try:
            if fault is not None:
                raise Skip(fault)
            said.setdefault(name, []).extend(captions.cleaned(texts))
        except Skip as reason:
            problems[name] = str(reason)
    names = sorted((name for name, texts in said.items() if texts), key=lambda name: name.split("/"))
    left = [(reason, name) for name, reason in problems.items() if not said.get(name)]
    if not names:
        reasons = f" ({', '.join(sorted({reason for reason, _ in left}))})" if left else ""
        raise DataError(
            f"{path} lists no image that can be used{reasons}: its paths must be those of images, relative to "
            f"{folder}, each with a caption."
        )
    return Listing(
        folder=root,
        classes=(path.stem,),
        names=tuple(names),
        labels=np.zeros(len(names), dtype=np.int64),
        problems=tuple(left),
        others={},
        captions=Texts.of([tuple(said[name]) for name in names]),
    )


def _name(root: Path, given: str) -> tuple[str, str | None]:
    """The name of an image relative to the folder, and why it cannot be used, if so."""
    try:
        given.encode()
    except UnicodeEncodeError:
        return given, "with a path that is not UTF-8"
    inside = os.path.normpath(given)
    if os.path.isabs(given):  # the folder's own path has no links in it
        inside = os.path.relpath(os.path.join(os.path.realpath(os.path.dirname(given)), os.path.basename(given)), root)
    suffix = os.path.splitext(inside)[1].lower()
    if not given or "\0" in given:
        return given, "without a path"
    if inside.startswith("..") and inside[2:3] in ("", "/"):
        return given, "outside the folder of its list"
    if suffix in UNREAD:
        return inside, f"{suffix}, a format that is not read"
    return inside, None if suffix in IMAGES else "without the suffix of an image"


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)
    with _opened(path) as file:
        table = csv.DictReader(file)
        try:
            columns = [column for column in table.fieldnames or () if column]
            if any("\0" in column or column != _valid(column) for column in columns):
                raise DataError(f"{path} must be a table in UTF-8, and is not: save it as UTF-8.")
            at, text = (_first(path, columns, wanted) for wanted in (PATHS, KEYS))
            for row in table:
                if any(row.get(None) or ()):  # pyright: ignore[reportCallIssue, reportArgumentType]
                    raise DataError(
                        f"{path}, line {table.line_num} has more cells than the first row has names: put a text that "
                        'has commas in double quotes ("a cat, a dog").'
                    )
                yield row[at] or "", row[text]
        except (csv.Error, OSError) as error:
            raise DataError(
                f"{path} must be a table of comma-separated values; {error} (line {table.line_num})."
            ) from error


def _jsonl(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path} must hold a JSON object a line; line {number} is none ({error}).") from error
            if not isinstance(found, dict):
                raise DataError(f"{path} must hold a JSON object a line; line {number} is a {type(found).__name__}.")
            at = found.get(_first(path, list(found), PATHS, f"line {number}: "))
            yield at if isinstance(at, str) else "", captions.of_object(found)


def _coco(path: Path) -> Listing:
    """{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}; the images lie in a folder called as
    in captions_NAME.json, beside it or beside its folder, or beside the file."""
    with _opened(path) as file:
        try:
            found = json.load(file)
            names = {image["id"]: image["file_name"] for image in found["images"]}
            said = [(annotation["image_id"], annotation["caption"]) for annotation in found["annotations"]]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise DataError(
                f'{path} must be COCO\'s: an object of "images" (id, file_name) and "annotations" (image_id, caption); '
                f"{error!r} came of reading it. Lines of JSON objects belong in a .jsonl."
            ) from error
    if not names or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f'{path} must list images with a file_name each under "images"; it has {len(names)} images.')
    here, part = path.parent, path.stem.removeprefix("captions_")
    folders = [folder / sub for folder in (here, here.parent) for sub in (part, "images", f"images/{part}", "")]
    some = list(names.values())[:TRIED]
    folder = next((folder for folder in folders if any((folder / name).is_file() for name in some)), None)
    if folder is None:
        raise DataError(
            f"{path} lists {len(names)} images, such as {some[0]}, which are not beside it: they were looked for in "
            f"{here / part}, {here.parent / part} and {here}."
        )
    captioned = {number for number, _ in said}
    captionless = [(name, None) for number, name in names.items() if number not in captioned]
    return _listing(path, folder, [*((names[i], text) for i, text in said if i in names), *captionless])


def _opened(path: Path) -> TextIO:
    """As text in UTF-8, a byte order mark aside. What is not UTF-8 stays as surrogates, and costs its row only."""
    try:
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def _first(path: Path, there: list[str], wanted: tuple[str, ...], where: str = "") -> str:
    for name in wanted:
        if name in there:
            return name
    came = ", ".join(_valid(name) for name in there[:SAID]) + (", ..." if len(there) > SAID else "")
    raise DataError(f"{path}: {where}one of {', '.join(wanted)} must be there; there are {came or 'none'}.")


def _valid(text: str) -> str:
    """With a question mark for each byte that is not UTF-8."""
    return text.encode("utf-8", "replace").decode()
