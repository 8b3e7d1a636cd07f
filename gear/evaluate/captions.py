"""Captions to draw from or to compare with, one an image: COCO's, GPIC's, or anybody's, in the formats they come in."""

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from gear.evaluate.prompts import PromptError, json_lines, lines, read

TEXTS = ("caption", "captions", "prompt", "text", "sentences")  # the column of captions, first found first
KEYS = ("key", "file_name", "filename", "image_id", "id", "index")  # the column of keys
FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")

log = logging.getLogger("gear")


@dataclass(frozen=True)
class Caption:
    """
    key: what the image is called, as it is written or without folder and suffix. text: of several captions of an
    image, the first.
    """

    key: str
    text: str


def captions(path: Path, what: Literal["captions", "prompts"] = "captions") -> list[Caption]:
    """The captions of a file as `rows` reads it, by keys without folder and suffix; of several of one image the first.

    Raises `PromptError` for images of other captions that have one key.
    """
    found: dict[str, Caption] = {}
    for row in rows(path, what):
        first = found.setdefault(stem(row.key), row)
        if first.key != row.key and first.text != row.text:
            raise PromptError(
                f"{path}: {first.key} and {row.key} have one key, {stem(row.key)}, and not the same text: without "
                "folder and suffix, each image needs a name of its own."
            )
    return [Caption(key, first.text) for key, first in found.items()]


def rows(path: Path, what: Literal["captions", "prompts"] = "captions") -> list[Caption]:
    """The captions of a file, in its order, by keys as they are written; an image may have several.

    .json: COCO's annotations ({"images", "annotations"}; the key is the image's file name), a list of objects or of
    texts, or an object {key: text}. .jsonl, .csv, .tsv, .parquet: a column named as in `TEXTS`, and as in `KEYS` where
    there is one; else the number of the row is the key, in six digits. .txt: every line is a caption.

    Blank lines and rows are left out; how many rows is said. what: they are called in messages. Raises `PromptError`.
    """
    readers = {".json": _json, ".jsonl": _json_lines, ".parquet": _parquet, ".txt": lines}
    if path.suffix.lower() not in FORMATS:
        raise PromptError(f"{path}: {what} are read from {', '.join(FORMATS)}.")
    if not path.is_file():
        raise PromptError(f"{path} does not exist; it should hold {what}.")
    try:
        given = list(readers.get(path.suffix.lower(), _table)(path))
    except (json.JSONDecodeError, csv.Error) as error:
        raise PromptError(f"{path} cannot be read as {path.suffix}: {error}.") from error
    found = [said for i, row in enumerate(given) if (said := _caption(row, i, path)) is not None]
    blank = len(given) - len(found)
    if not found:
        raise PromptError(f"{path} holds no {what}" + (f": its {blank} rows are blank." if blank else "."))
    if blank:
        log.warning("warning: %s: %d of %d rows are blank and left out.", path, blank, len(given))
    return found


def _caption(row: Any, i: int, path: Path) -> Caption | None:
    """None for a blank one."""
    row = {"caption": row} if isinstance(row, str) else row
    if not isinstance(row, Mapping):
        raise PromptError(f"{path}, row {i + 1} must be a text or an object; it is a {type(row).__name__}.")
    names = [name for name in TEXTS if name in row]
    text = next((row[name] for name in names if row[name] is not None), "")
    if isinstance(text, list | tuple):
        text = text[0] if text else ""
    if not names or not isinstance(text, str):
        raise PromptError(
            f"{path}, row {i + 1} has no text under {', '.join(TEXTS)}; it has {', '.join(map(str, row))}."
        )
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise PromptError(f"{path}, row {i + 1} has half of a character ({text[:40]!r}): write the text anew.")
    key = next((row[name] for name in KEYS if row.get(name) not in (None, "")), f"{i:06d}")
    return Caption(str(key), text.strip()) if text.strip() else None


def stem(name: str) -> str:
    """A file's name without folder and the suffix of an image; a key that is no file's name stays as it is."""
    path = PurePosixPath(name.replace("\\", "/"))
    images = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
    return path.stem if path.suffix.lower() in images else path.name


def _json(path: Path) -> Iterable[Any]:
    contents = json.loads(read(path))
    if isinstance(contents, dict) and {"images", "annotations"} <= contents.keys():
        return _coco(contents, path)
    if isinstance(contents, dict):
        return [{"key": key, "caption": text} for key, text in contents.items()]
    return contents if isinstance(contents, list) else [contents]


def _coco(contents: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """By the number of the image; of an image's five captions that of the lowest number first."""
    try:
        names = {image["id"]: image["file_name"] for image in contents["images"]}
        notes = sorted(contents["annotations"], key=lambda note: (note["image_id"], note["id"]))
        return [{"key": names[note["image_id"]], "caption": note["caption"]} for note in notes]
    except (KeyError, TypeError) as error:
        raise PromptError(
            f"{path} is no file of COCO's captions (captions_val2017.json): it lacks {error} somewhere."
        ) from error


def _json_lines(path: Path) -> Iterator[Any]:
    return (record for _, record in json_lines(path))


def _table(path: Path) -> Iterator[Any]:
    """Raises `PromptError` for a first row without names, and for a row that is cut at a comma."""
    rows = csv.DictReader(io.StringIO(read(path), newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    names = rows.fieldnames or ()
    if names and not set(TEXTS) & set(names):
        raise PromptError(
            f"{path}: the first row must name the columns, one of them {', '.join(TEXTS[:-1])} or {TEXTS[-1]}; it is "
            f"{', '.join(map(repr, names))[:80]}."
        )
    for row in rows:
        if any(row.get(None) or ()):  # pyright: ignore[reportCallIssue, reportArgumentType]
            raise PromptError(
                f"{path}, line {rows.line_num} has more cells than the first row has names: put a text that has commas "
                'in double quotes ("a cat, a dog").'
            )
        yield row


def _parquet(path: Path) -> list[Any]:
    """Only the columns of captions and keys: images lie beside them."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise PromptError(
            f"{path}: parquet needs the library pyarrow (pip install pyarrow); or write its captions as .jsonl."
        ) from error
    try:
        names = parquet.ParquetFile(path).schema_arrow.names
        return parquet.read_table(path, columns=[name for name in names if name in TEXTS + KEYS]).to_pylist()
    except (ValueError, OSError) as error:  # pyarrow's own are ValueErrors
        raise PromptError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error
